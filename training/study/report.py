"""A study's table, its reading and its plots, of whatever is done so far."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from models.files import write_whole
from models.networks.pose import HEADS
from training.report import table_line
from training.study.config import Study
from training.study.papers import APART, CLAIMS, FINEST, PUBLISHED, papers_table
from training.study.plots import chart_of_costs, chart_of_sizes
from training.study.results import Result, Row

METRICS = {"AP": "ap", "PCK@0.05": "pck05"}
"""In which the claims are looked at."""


class Verdict(NamedTuple):
    """A claim against the seeds.

    Attributes:
        differences: (seeds,) of a metric, of systems of the same seed.
        interval: 95 % of their mean, by Student's t; None where one seed alone is there.
    """

    differences: NDArray[np.float64]
    interval: tuple[float, float] | None

    @property
    def words(self) -> str:
        """What they say."""
        if self.interval is None:
            return "cannot be told from one seed"
        low, high = self.interval
        if low > 0:
            return "holds"
        return "the opposite holds" if high < 0 else "cannot be told from this spread"


def compare(
    results: Sequence[Result], pixels: int, heads: tuple[str, str], read: Callable[[Result], float]
) -> Verdict | None:
    """A figure of the first head's systems less that of the second's, seed by seed.

    Returns:
        None where no seed has both.
    """
    first, second = (
        {
            r.system.seed: read(r)
            for r in results
            if (r.system.pixels, r.system.head) == (pixels, head)
        }
        for head in heads
    )
    both = [seed for seed in first if seed in second]
    if not both:
        return None
    differences = np.array([first[seed] - second[seed] for seed in both])
    if len(both) == 1:
        return Verdict(differences, None)
    reach = stats.t.ppf(0.975, len(both) - 1) * differences.std(ddof=1) / np.sqrt(len(both))
    mean = differences.mean()
    return Verdict(differences, (float(mean - reach), float(mean + reach)))


def row_of(result: Result, decodes: dict[str, str]) -> Row:
    """As one of `decodes` reads it; of several lattices the finest."""
    rows = [row for row in result.rows if row.decode == decodes[result.system.head]]
    return max(rows, key=lambda row: row.resolution or 0)


def table(results: Sequence[Result]) -> str:
    """Markdown: mean and standard deviation over the seeds of every size, head and decode."""
    titles = ("crop", "system", "decode", "AP", "AP50", "PCK@0.05", "PCK@0.1", "error, median")
    lines = [table_line(*titles, "seeds"), "|---" * (len(titles) + 1) + "|"]
    rows: dict[tuple[int, str, str, int | None], list[Row]] = {}
    for result in results:
        for row in result.rows:
            key = (result.system.pixels, result.system.head, row.decode, row.resolution)
            rows.setdefault(key, []).append(row)
    for (pixels, head, decode, resolution), seeds in rows.items():
        figures = (
            _spread([getattr(row, name) for row in seeds])
            for name in ("ap", "ap50", "pck05", "pck10", "error")
        )
        how = decode if resolution is None else f"{decode}, {resolution}"
        lines.append(table_line(f"{pixels} x {pixels}", head, how, *figures, str(len(seeds))))
    return "\n".join(lines)


def reading(study: Study, results: Sequence[Result]) -> str:
    """Markdown: each claim of the papers against the spread of the seeds."""
    titles = ("crop", "claim", "decodes", "metric", "difference", "95 % of the mean", "this study")
    lines = [table_line(*titles), "|---" * len(titles) + "|"]
    for size in study.sizes:
        for better, other, words in CLAIMS:
            for name, decodes in (("published", PUBLISHED), ("finest", FINEST)):
                for metric, field in METRICS.items():

                    def read(
                        result: Result, decodes: dict[str, str] = decodes, field: str = field
                    ) -> float:
                        return float(getattr(row_of(result, decodes), field))

                    verdict = compare(results, size.pixels, (better, other), read)
                    if verdict is None:
                        continue
                    interval = (
                        ""
                        if verdict.interval is None
                        else "{:+.3f} to {:+.3f}".format(*verdict.interval)
                    )
                    lines.append(
                        table_line(
                            f"{size.pixels} x {size.pixels}", words, name, metric,
                            _spread(verdict.differences, sign="+"), interval, verdict.words,
                        )
                    )  # fmt: skip
    return "\n".join(lines)


def costs_table(results: Sequence[Result]) -> str:
    """Markdown: what reading costs by resolution, and what it buys."""
    titles = ("crop", "system", "decode", "time over the encoder's", "PCK@0.05", "error, mean")
    lines = [table_line(*titles), "|---" * len(titles) + "|"]
    for result in results:
        for cost in result.costs:
            how = cost.decode if cost.resolution is None else f"{cost.decode}, {cost.resolution}"
            pixels = result.system.pixels
            figures = f"{cost.relative:.2f}", f"{cost.pck05:.3f}", f"{cost.error:.4f}"
            lines.append(table_line(f"{pixels} x {pixels}", result.system.head, how, *figures))
    return "\n".join(lines)


def write_report(study: Study, results: Sequence[Result], recipe: str) -> list[Path]:
    """Write `README.md`, `results.json` and the charts into the study's folder of reports.

    Args:
        study: that was run.
        results: of the systems that are done.
        recipe: the study's file.

    Returns:
        What was written.
    """
    folder = study.report
    done = {
        r.system.pixels: sum(o.system.pixels == r.system.pixels for o in results) for r in results
    }
    budget = "\n".join(
        f"- {size.pixels} x {size.pixels}: {size.trunk.steps} steps of {size.trunk.batch} crops "
        f"for the trunk, with all heads, then {size.schedule.steps} of {size.schedule.batch} for "
        f"each system; {done.get(size.pixels, 0)} of {len(HEADS) * len(study.seeds)} are done"
        for size in study.sizes
    )
    text = f"""# Heatmap, SimCC and NerPE at low resolution

Written by `subpose-train study` from `{recipe}`; every figure but the papers' is measured by it.

{_summary(study, results)}

Of each size one run of all heads together first fits the trunk, a `{study.shape.encoder}`, so that
it favours no head: the largest size's from what is published, each other one's from the next larger
size's. Of each seed fresh heads are trained alone on that trunk's features
({study.warm_up.epochs} epochs of {study.warm_up.passes} augmented crop a person, NerPE with
{study.warm_up.samples} position a cell). From there each system, one head and its own trunk, is
trained alone: on the same people in the same order with the same augmentation, schedule and number
of steps, NerPE with {study.samples} positions a cell.
Figures are of `{study.split}`, {results[0].people if results else 0} people, boxes of the labels,
no flip, through the bundle and the predictor that are served. An error is a joint's distance over
the square root of its person's box, and PCK the share of joints within so much. ± is the standard
deviation over seeds, which vary the heads' start, the order of the people and the augmentation; the
trunk of a size is one for all of them, so it is not in the spread. The budgets are small ones: the
figures tell how fast the heads learn as much as how far they come.

{budget}

{table(results)}

## Do the papers' claims hold here?

Differences between systems of the same seed, read as the papers' tables are (`published`: quarter
offset, argmax, `standard`) and as finely as each head can be (`finest`: DARK, expectation,
`gaussian`). A claim holds where the whole interval, Student's t over the seeds, is above 0.

{reading(study, results)}

In the papers, AP:

{papers_table([size.pixels for size in study.sizes])}

{APART}

## What a resolution costs, and what it buys

Of the first seed, on {study.swept_photos} photos: processor time from features to joints over that
from pixels to features. So few photos have few joints: a hundredth of PCK there says little.

{costs_table(results)}
"""
    charts = {}
    if results:
        charts["sizes.png"] = chart_of_sizes(results, FINEST), "Accuracy by size of the crop"
    if any(result.costs for result in results if result.system.head == "nerpe"):
        charts["costs.png"] = chart_of_costs(results), "Accuracy and cost by resolution"
    for name, (content, caption) in charts.items():
        write_whole(folder / name, content)
        text += f"\n![{caption}]({name})\n"
    for name, caption in FIELDS.items():
        if (folder / name).exists():
            text += f"\n{caption}\n\n![{caption}]({name})\n"
    write_whole(folder / "README.md", text)
    rows = [result.model_dump(mode="json") for result in results]
    write_whole(folder / "results.json", json.dumps(rows, indent=1) + "\n")
    return sorted(folder.iterdir())


def _summary(study: Study, results: Sequence[Result]) -> str:
    """Markdown: the answer in a line a size and metric, as the papers read their heads."""
    lines = []
    for size in study.sizes:
        for metric, field in METRICS.items():
            said = []
            for better, other, words in CLAIMS:

                def read(result: Result, field: str = field) -> float:
                    return float(getattr(row_of(result, PUBLISHED), field))

                if verdict := compare(results, size.pixels, (better, other), read):
                    mean = _spread(verdict.differences, sign="+")
                    said.append(f"{words}: {verdict.words} ({mean})")
            if said:
                lines.append(f"- **{size.pixels} x {size.pixels}, {metric}.** {'; '.join(said)}.")
    return "\n".join(lines)


FIELDS = {
    "fields.png": "One joint's field by head and resolution; the cross is its label.",
    "seam.png": "NerPE's field through a joint, with the local ensemble and without it; "
    "thin lines are the borders of cells.",
}
"""Pictures that `training.study.fields` draws, and what they show."""


def _spread(values: Sequence[float] | NDArray[np.float64], sign: str = "") -> str:
    mean = f"{np.mean(values):{sign}.3f}"
    return f"{mean} ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else mean
