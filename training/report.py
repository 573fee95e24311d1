"""What was measured, to be looked at: tables and charts."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from models.files import write_whole
from models.manifest import PoseManifest
from training.evaluation import GROUND_TRUTH, Deviation, Evaluation, Figures
from training.log import Log, read_log
from training.metrics import OKS_THRESHOLDS
from training.sweep import Trial

COLOURS = {"simcc": "#0072B2", "nerpe": "#D55E00", "heatmap": "#009E73"}
"""Of the heads, in every chart."""

_SHOWN = {
    "AP": "AP", "AP50": "AP50", "AP75": "AP75", "APM": "APM", "APL": "APL", "AR": "AR",
    "APE": "easy", "APH": "hard", "PCKh@0.5": "PCKh@0.5", "PCKh@0.1": "PCKh@0.1",
    "PCKh@0.11": "PCKh@0.11",
    "PCK@0.2": "PCK@0.2", "PCP": "PCP",
    "error_median": "error, median", "error_mean": "error, mean",
    "calibration_error": "calibration error", "within_sigma": "within sigma",
}  # fmt: skip
"""Metrics and their titles."""


def tables(evaluation: Evaluation) -> str:
    """Markdown: a table for each split, kind of boxes and flip; a row for each head and decode."""
    parts = []

    def group(row: Figures) -> tuple[str, bool, bool, str]:
        return row.split, row.boxes != GROUND_TRUTH, row.flip, row.boxes

    for (split, _, flip, boxes), rows in groupby(sorted(evaluation.rows, key=group), group):
        chosen = list(rows)
        first = chosen[0]
        answered = "" if boxes == GROUND_TRUTH else f", {first.found / first.photos:.1f} a photo"
        parts.append(
            f"**{split}**, boxes: {boxes}{answered}; {'with' if flip else 'no'} flip; "
            f"{first.people} people in {first.photos} photos\n\n{table(chosen)}"
        )
    return "\n\n".join(parts)


def table(rows: Sequence[Figures]) -> str:
    """Markdown: one table of figures of the same split, the main one with its interval."""
    first, *others = [name for name in _SHOWN if name in rows[0].metrics]
    titles = [_SHOWN[name] for name in others]
    lines = [table_line("head", "decode", first, "95 %", *titles), "|---" * (len(others) + 4) + "|"]
    for row in rows:
        low, high = row.interval
        rest = (f"{row.metrics[name]:.3f}" for name in others)
        main = f"**{row.metrics[first]:.3f}**"
        lines.append(table_line(row.head, _decode(row), main, f"{low:.3f} to {high:.3f}", *rest))
    return "\n".join(lines)


def _decode(row: Figures | Deviation) -> str:
    return row.decode if row.resolution is None else f"{row.decode}, {row.resolution}"


def table_line(*cells: str) -> str:
    """Markdown: one row."""
    return f"| {' | '.join(cells)} |"


def equivariance_table(deviations: Sequence[Deviation]) -> str:
    """Markdown: a row for each head and decode, median and 90th percentile of each move."""
    moves = list(dict.fromkeys(deviation.move for deviation in deviations))
    lines = [table_line("head", "decode", *moves), "|---" * (len(moves) + 2) + "|"]
    rows: dict[tuple[str, str], dict[str, Deviation]] = {}
    for each in deviations:
        rows.setdefault((each.head, _decode(each)), {})[each.move] = each
    for how, row in rows.items():
        cells = (f"{row[move].median_px:.2f} / {row[move].p90_px:.2f}" for move in moves)
        lines.append(table_line(*how, *cells))
    return "\n".join(lines)


def sweep_table(trials: Sequence[Trial]) -> str:
    """Markdown: AP by value of each choice."""
    lines = [table_line("head", "decode", "choice", "value", "AP", "95 %"), "|---" * 6 + "|"]
    for trial in trials:
        low, high = trial.interval
        what = trial.head, trial.decode, trial.field, f"{trial.value:g}"
        lines.append(table_line(*what, f"{trial.ap:.4f}", f"{low:.3f} to {high:.3f}"))
    return "\n".join(lines)


def default_rows(
    evaluation: Evaluation,
    manifest: PoseManifest,
    split: str,
    *,
    boxes: str = GROUND_TRUTH,
    flip: bool = False,
) -> list[Figures]:
    """Of each head that was measured so, the row with the manifest's own decode."""
    return [
        row
        for row in evaluation.rows
        if (row.split, row.boxes, row.flip) == (split, boxes, flip)
        and row.decode == getattr(manifest.heads, row.head).decode
        and row.resolution == getattr(getattr(manifest.heads, row.head), "resolution", None)
    ]


def chart_of_thresholds(rows: Sequence[Figures]) -> bytes:
    """PNG: AP over the similarity asked for; the right end is where precision shows."""
    figure = Figure(figsize=(5.2, 3.4), dpi=100, layout="constrained")
    axes = figure.subplots()
    for row in rows:
        axes.plot(
            OKS_THRESHOLDS, row.by_threshold, marker="o", markersize=3,
            color=COLOURS.get(row.head), label=f"{row.head}, {row.decode}: AP {row.main:.3f}",
        )  # fmt: skip
    axes.set(xlabel="object keypoint similarity asked for", ylabel="AP", ylim=(0, 1))
    axes.grid(alpha=0.3)
    axes.legend()
    return png(figure)


def chart_of_reliability(rows: Sequence[Figures]) -> bytes:
    """PNG: of joints with a score, the share that is right; on the diagonal scores are true."""
    figure = Figure(figsize=(3.9, 3.9), dpi=100, layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle="--")
    for row in rows:
        if not row.reliability:
            continue
        scores, shares, counts = np.array(row.reliability).T
        error, colour = row.metrics["calibration_error"], COLOURS.get(row.head)
        axes.plot(scores, shares, color=colour, label=f"{row.head}: error {error:.3f}")
        axes.scatter(scores, shares, s=4 + 80 * counts / counts.max(), color=colour)
    axes.set(xlabel="score", ylabel="share within 0.1 of the person's size", aspect="equal")
    axes.grid(alpha=0.3)
    axes.legend()
    return png(figure)


def chart_of_losses(log: Log) -> bytes:
    """PNG: each head's loss over the steps, as it was and smoothed, on an axis of its own."""
    heads = [name for name in log if name in COLOURS]
    figure = Figure(figsize=(2.9 * len(heads), 2.4), dpi=100, layout="constrained")
    for axes, head in zip(figure.subplots(1, len(heads), squeeze=False)[0], heads, strict=True):
        colour = COLOURS.get(head)
        axes.plot(log["step"], log[head], color=colour, alpha=0.2, linewidth=0.8)
        axes.plot(log["step"], smoothed(log[head]), color=colour)
        axes.set(title=head, xlabel="step")
        axes.ticklabel_format(scilimits=(-2, 3), axis="y")
        axes.grid(alpha=0.3)
    return png(figure)


def smoothed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean of each value and of those around it, a twentieth of them all but 21 at least."""
    reach = max(10, len(values) // 40)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    low, high = np.maximum(at - reach, 0), np.minimum(at + reach + 1, len(values))
    return np.asarray((sums[high] - sums[low]) / (high - low), np.float64)


def write_report(
    folder: Path,
    evaluation: Evaluation,
    manifest: PoseManifest,
    *,
    log: Path | None = None,
    sheet: bytes | None = None,
) -> list[Path]:
    """Write `report.md` and the pictures beside it.

    Args:
        folder: to write into.
        evaluation: of the bundle.
        manifest: of the bundle.
        log: of the run that made it.
        sheet: of examples, as `training.sheet` draws it.

    Returns:
        What was written.
    """
    pictures: dict[str, tuple[bytes, str]] = {}
    for split in ("coco/val", "coco/dev"):
        rows = default_rows(evaluation, manifest, split)
        if rows:
            pictures["thresholds.png"] = (
                chart_of_thresholds(rows), f"AP by similarity asked for, {split}, no flip"
            )  # fmt: skip
            pictures["reliability.png"] = (
                chart_of_reliability(rows), f"Share of joints that are right, {split}, no flip"
            )  # fmt: skip
            break
    if log is not None and log.exists():
        pictures["losses.png"] = chart_of_losses(read_log(log)), "Losses by step"
    if sheet is not None:
        pictures["examples.png"] = sheet, "Best, typical and worst people"
    for name, (content, _) in pictures.items():
        write_whole(folder / name, content)
    text = f"# {evaluation.bundle}, measured {evaluation.measured}\n\n"
    text += f"On {evaluation.engine}; weights {evaluation.weights}.\n\n{tables(evaluation)}\n"
    text += "".join(f"\n![{caption}]({name})\n" for name, (_, caption) in pictures.items())
    write_whole(folder / "report.md", text)
    return [folder / "report.md", *(folder / name for name in pictures)]


def png(figure: Figure) -> bytes:
    """Of a chart."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
