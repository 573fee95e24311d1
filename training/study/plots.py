"""A study's charts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from training.report import COLOURS, png
from training.study.results import Result

STYLES = ("-", "--", ":", "-.")
"""By size of the crop."""


def chart_of_sizes(results: Sequence[Result], decodes: dict[str, str]) -> bytes:
    """PNG: AP and PCK over the crop's size, a line for each head: mean and deviation of its seeds.

    Args:
        results: of the systems.
        decodes: by head how it is read; of several lattices the finest counts.
    """
    figure = Figure(figsize=(7.2, 3.2), dpi=100, layout="constrained")
    heads = list(dict.fromkeys(result.system.head for result in results))
    for axes, (title, field) in zip(
        figure.subplots(1, 2), (("AP", "ap"), ("PCK@0.05", "pck05")), strict=True
    ):
        for number, head in enumerate(heads):
            by_size: dict[int, list[float]] = {}
            for result in results:
                rows = [row for row in result.rows if row.decode == decodes[head]]
                if result.system.head == head:
                    finest = max(rows, key=lambda row: row.resolution or 0)
                    by_size.setdefault(result.system.pixels, []).append(getattr(finest, field))
            # A little aside, so that bars of the same size do not hide each other.
            at = np.array(sorted(by_size)) * (1 + 0.02 * (number - 1))
            values = [by_size[pixels] for pixels in sorted(by_size)]
            axes.errorbar(
                at, [np.mean(v) for v in values], color=COLOURS[head], capsize=3, label=head,
                yerr=[np.std(v, ddof=1) if len(v) > 1 else 0 for v in values],
            )  # fmt: skip
            for x, seeds in zip(at, values, strict=True):
                axes.scatter([x] * len(seeds), seeds, s=9, color=COLOURS[head])
        sizes = sorted({result.system.pixels for result in results})
        axes.set(xlabel="side of the crop, px", title=title, xticks=sizes)
        axes.set_xlim(0.8 * sizes[0], 1.1 * sizes[-1])
        axes.set_ylim(0, 1.1 * axes.get_ylim()[1])
        axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    return png(figure)


def chart_of_costs(results: Sequence[Result]) -> bytes:
    """PNG: NerPE's accuracy and time over the resolution, beside the other heads' one each.

    Some NerPE must be among them: the other heads have no resolution to choose.
    """
    figure = Figure(figsize=(7.2, 3.4), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2)
    sizes = sorted({result.system.pixels for result in results})
    for result in results:
        pixels, head = result.system.pixels, result.system.head
        style, colour = STYLES[sizes.index(pixels) % len(STYLES)], COLOURS[head]
        if head != "nerpe" and result.costs:
            last = result.costs[-1]
            label = f"{head}, {last.decode}, {pixels} px"
            left.axhline(last.pck05, color=colour, linestyle=style, label=label)
            right.axhline(last.relative, color=colour, linestyle=style)
            continue
        for decode, marker in (("standard", "o"), ("progressive", "^"), ("gaussian", "s")):
            costs = [cost for cost in result.costs if cost.decode == decode]
            at = [cost.resolution for cost in costs]
            how = {"color": colour, "linestyle": style, "marker": marker, "markersize": 4}
            if costs:
                label = f"nerpe, {decode}, {pixels} px"
                left.plot(at, [cost.pck05 for cost in costs], label=label, **how)
                right.plot(at, [cost.relative for cost in costs], **how)
    left.set(xlabel="resolution", ylabel="PCK@0.05", xscale="log")
    right.set(xlabel="resolution", ylabel="time over the encoder's", xscale="log", yscale="log")
    ticks = sorted({c.resolution for r in results for c in r.costs if c.resolution is not None})
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
    left.legend(fontsize=6)
    return png(figure)
