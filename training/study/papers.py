"""What the papers say of low resolutions, to be looked at beside what was found here."""

from __future__ import annotations

from models.networks.pose import HeadName
from training.report import table_line

CLAIMS: tuple[tuple[HeadName, HeadName, str], ...] = (
    ("simcc", "heatmap", "SimCC > heatmap"),
    ("nerpe", "simcc", "NerPE ≥ SimCC"),
    ("nerpe", "heatmap", "NerPE > heatmap"),
)
"""The better head, the other, in words."""

PUBLISHED = {"heatmap": "quarter", "simcc": "argmax", "nerpe": "standard"}
"""The decodes of the papers' tables."""

FINEST = {"heatmap": "dark", "simcc": "expectation", "nerpe": "gaussian"}
"""Those that get the most out of each head."""

AP: dict[int, dict[str, tuple[float, float, float]]] = {
    64: {
        "ResNet-50": (34.4, 40.8, 40.8),
        "HRNet-W48": (48.5, 59.7, 62.5),
        "TokenPose-S": (57.1, 62.8, 64.4),
    },
    128: {
        "ResNet-50": (60.3, 62.6, 63.3),
        "HRNet-W48": (68.9, 72.0, 73.1),
        "TokenPose-S": (65.4, 70.4, 71.8),
    },
}
"""By size and trunk: heatmap (quarter offset; TokenPose's with DARK), SimCC, NerPE (MODELS 5)."""

APART = """Of the papers' figures only the signs of the differences can be compared: theirs are of
another experiment. Their systems train for 140 to 210 epochs on the 150,000 people of COCO's train
set; here each has seen a few thousand people a handful of times, from a trunk that was made for
heatmaps of people on larger crops and was then fitted to the size with all three heads at once.
Theirs are measured on all of val2017 with a detector's boxes and flip, here on 440 of its photos
with labelled boxes and without. Their trunks have 4 to 50 times this one's parameters, NerPE learns
from 64 positions a cell there and from 4 here, and optimisers and label forms differ."""


def papers_table(sizes: list[int]) -> str:
    """Markdown: the papers' AP at these sizes, and what SimCC and NerPE gain."""
    titles = ("crop", "trunk", "heatmap", "SimCC", "NerPE", "SimCC - heatmap", "NerPE - SimCC")
    lines = [table_line(*titles), "|---" * len(titles) + "|"]
    for pixels in sizes:
        for trunk, (heatmap, simcc, nerpe) in AP.get(pixels, {}).items():
            figures = (f"{ap / 100:.3f}" for ap in (heatmap, simcc, nerpe))
            gains = (f"{gain / 100:+.3f}" for gain in (simcc - heatmap, nerpe - simcc))
            lines.append(table_line(f"{pixels} x {pixels}", trunk, *figures, *gains))
    return "\n".join(lines)
