"""What the heads see of one joint: by resolution, and across the borders of NerPE's cells."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from models.features import Features
from models.files import write_whole
from models.geometry import denormalise
from models.networks.pose import PoseNetwork
from models.pose import PoseModel
from training.data.annotations import LabelledPerson
from training.data.images import read_image
from training.report import COLOURS, png
from training.truth import Truth

SAMPLES = 1201
"""Of the field along a line."""


class Line(NamedTuple):
    """NerPE's field along a row of the crop, (SAMPLES,) from one side to the other."""

    with_ensemble: NDArray[np.float32]
    without: NDArray[np.float32]


def typical_person(truth: Truth, joint: int) -> LabelledPerson:
    """Whoever has the most joints labelled, this one among them; of several the largest."""
    people = [person for photo in truth.photos for person in photo.people]
    return max(
        (person for person in people if person.visibility[joint]),
        key=lambda person: (int((person.visibility > 0).sum()), person.box.area),
    )


def draw_fields(
    models: dict[str, PoseModel], person: LabelledPerson, joint: int, resolutions: tuple[int, ...]
) -> bytes:
    """PNG: a row for each head, a column for each resolution, as NerPE's Figure 4 has it."""
    figure = Figure(
        figsize=(1.8 * len(resolutions), 1.9 * len(models)), dpi=100, layout="constrained"
    )
    grid = figure.subplots(len(models), len(resolutions), squeeze=False)
    for row, (head, model) in zip(grid, models.items(), strict=True):
        (geometry,), (crop,) = model.cut(read_image(person.image), [person.box])
        features = model.encode(crop[None])
        label = geometry.to_crop(person.points[joint])
        for axes, resolution in zip(row, resolutions, strict=True):
            values = sampled_field(model, features, head, joint, resolution)
            width, height = model.size
            edges = (-0.5, width - 0.5, height - 0.5, -0.5)
            axes.imshow(values, extent=edges, cmap="magma", interpolation="nearest")
            axes.plot(*label, marker="+", color="white", markersize=7, markeredgewidth=0.8)
            axes.set(xticks=[], yticks=[])
            axes.set_title(f"{head}, {resolution}", fontsize=8)
    return png(figure)


def sampled_field(
    model: PoseModel, features: Features, head: str, joint: int, resolution: int
) -> NDArray[np.float32]:
    """A head's field of the first crop on a lattice over the crop, (rows, columns)."""
    pitch = max(model.size) / resolution
    columns, rows = (
        (np.arange(round(length / pitch)) + 0.5) * pitch - 0.5 for length in model.size
    )
    drawn = model.field(features, head, columns, rows, keypoints=[joint], exact=True)
    return np.asarray(drawn[0, 0], np.float32)


def line_through(network: PoseNetwork, crop: NDArray[np.uint8], joint: int, height: float) -> Line:
    """NerPE's field along a row of the crop.

    Args:
        network: with a NerPE head; its ensemble is switched off and on again.
        crop: (H, W, 3).
        joint: whose.
        height: of the row, normalised.
    """
    head, ensemble = network.nerpe, network.nerpe.ensemble
    across = torch.linspace(-1, 1, SAMPLES)
    points = torch.stack([across, torch.full_like(across, height)], dim=-1)[None]
    values = []
    with torch.inference_mode():
        cells = head.cells(network.eval().encode(torch.from_numpy(crop[None])))
        for blended in (True, False):
            head.ensemble = blended
            values.append(head.field(cells, points)[0, :, joint].numpy())
    head.ensemble = ensemble
    return Line(*values)


def draw_seam(network: PoseNetwork, person: LabelledPerson, model: PoseModel, joint: int) -> bytes:
    """PNG: the line through the field's peak, and its steps from sample to sample."""
    _, (crop,) = model.cut(read_image(person.image), [person.box])
    values = sampled_field(model, model.encode(crop[None]), "nerpe", joint, 64)
    row = int(np.unravel_index(np.argmax(values), values.shape)[0])
    line = line_through(network, crop, joint, (row + 0.5) / len(values) * 2 - 1)
    at = denormalise(np.stack([np.linspace(-1, 1, SAMPLES)] * 2, -1), model.size)[:, 0]
    figure = Figure(figsize=(7.2, 3.2), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2)
    borders = (np.arange(1, network.nerpe.columns) / network.nerpe.columns) * model.size[0] - 0.5
    for name, part, colour in (
        ("without", line.without, "grey"),
        ("with the ensemble", line.with_ensemble, COLOURS["nerpe"]),
    ):
        left.plot(at, part, color=colour, linewidth=1, label=name)
        steps = np.abs(np.diff(part))
        label = f"{name}: at most {steps.max():.4f}"
        right.semilogy(at[1:], np.maximum(steps, 1e-7), color=colour, linewidth=0.8, label=label)
    for axes, title in ((left, "value"), (right, f"step of 1/{SAMPLES - 1} of the crop")):
        for border in borders:
            axes.axvline(border, color="black", alpha=0.15, linewidth=0.6)
        axes.set(xlabel="px of the crop", title=title)
        axes.legend(fontsize=7)
    return png(figure)


def write_fields(
    folder: Path,
    models: dict[str, PoseModel],
    network: PoseNetwork,
    truth: Truth,
    joint: int,
    resolutions: tuple[int, ...],
) -> None:
    """Write both pictures.

    Args:
        folder: to write into.
        models: by head, of one size.
        network: of NerPE's, with its ensemble.
        truth: whose person is drawn.
        joint: of theirs.
        resolutions: of the columns.
    """
    person = typical_person(truth, joint)
    write_whole(folder / "fields.png", draw_fields(models, person, joint, resolutions))
    write_whole(folder / "seam.png", draw_seam(network, person, models["nerpe"], joint))
