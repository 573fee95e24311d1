"""The people that a model got best, middling and worst, drawn beside their labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from models.draw import draw_people
from models.geometry import Box, CropGeometry, Size
from models.keypoints import COCO17, RGB
from models.predictor import Person, Pose
from training.data.annotations import LabelledPerson
from training.data.images import read_image
from training.joint_errors import People
from training.metrics import oks
from training.pictures import small_png
from training.truth import LabelledPhoto, Truth

LABEL: RGB = (0x00, 0xC0, 0x60)
FOUND: RGB = (0xFF, 0x40, 0xC0)

_TILE: Size = (168, 224)
_CAPTION_PX = 20
_COLOURS = 160


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """A labelled person, and what was found of them.

    Attributes:
        photo: that they are in.
        labelled: as the set has them.
        found: as the model has them.
        similarity: of the two (OKS).
        swapped: the same, were left and right to change places.
    """

    photo: LabelledPhoto
    labelled: LabelledPerson
    found: Person
    similarity: float
    swapped: float

    @property
    def caption(self) -> str:
        """What the tile says."""
        sides = f" ({self.swapped:.2f} with sides swapped)" if self.swapped > 0.5 else ""
        return f"OKS {self.similarity:.2f}{sides if self.similarity < 0.5 else ''}"


def pick_examples(
    truth: Truth, people: People, count: int, *, least_joints: int = 8, least_px: float = 80
) -> list[Example]:
    """The best, the middle and the worst, a third of `count` each, one a photo.

    Args:
        truth: a split of COCO.
        people: found in it with the labels' boxes, person by person.
        count: how many in all, best first.
        least_joints: labelled, for a person to be looked at.
        least_px: longer side of their box.
    """
    areas = {row["id"]: float(row["area"]) for row in truth.content["annotations"]}
    every = [
        _example(photo, labelled, found, areas[labelled.annotation_id])
        for photo, row in zip(truth.photos, people, strict=True)
        for labelled, found in zip(photo.people, row, strict=True)
        if (labelled.visibility > 0).sum() >= least_joints
        and max(labelled.box.width, labelled.box.height) >= least_px
    ]
    every.sort(key=lambda example: -example.similarity)
    from_middle = sorted(range(len(every)), key=lambda index: abs(index - len(every) / 2))
    third = count // 3
    picked: dict[int, Example] = {}
    for candidates, wanted in (
        (every, third),
        ([every[index] for index in from_middle], count - 2 * third),
        (every[::-1], third),
    ):
        free = (example for example in candidates if example.photo.image_id not in picked)
        for example in free:
            if not wanted:
                break
            picked[example.photo.image_id] = example
            wanted -= 1
    return sorted(picked.values(), key=lambda example: -example.similarity)


def _example(photo: LabelledPhoto, labelled: LabelledPerson, found: Person, area: float) -> Example:
    visible, points = labelled.visibility > 0, found.pose.points
    similarity, swapped = (
        oks(side, labelled.points, visible, area, COCO17.sigmas)
        for side in (points, points[list(COCO17.mirror)])
    )
    return Example(photo, labelled, found, similarity, swapped)


def draw_sheet(examples: Sequence[Example], columns: int) -> bytes:
    """PNG: a tile a person, labels in green, what was found in pink, the caption below."""
    tiles = [_tile(example) for example in examples]
    blank = np.full_like(tiles[0], 255)
    tiles += [blank] * (-len(tiles) % columns)
    rows = [np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)]
    return small_png(np.vstack(rows), _COLOURS)


def _tile(example: Example) -> NDArray[np.uint8]:
    geometry = CropGeometry.from_box(example.labelled.box, _TILE, padding=1.3)
    pixels = geometry.cut(read_image(example.photo.path))
    frame = Box(0, 0, *map(float, _TILE))
    labelled = example.labelled.visibility > 0
    for points, scores, colour in (
        (example.labelled.points, labelled.astype(float), LABEL),
        (example.found.pose.points, example.found.pose.scores, FOUND),
    ):
        pose = Pose(geometry.to_crop(points), np.asarray(scores, np.float64))
        person = Person(frame, {"": pose})
        pixels = draw_people(pixels, [person], COCO17, single=colour)
    caption = np.full((_CAPTION_PX, _TILE[0], 3), 255, np.uint8)
    cv2.putText(
        caption, example.caption, (4, 15),
        cv2.FONT_HERSHEY_SIMPLEX, 0.38, (0, 0, 0), 1, cv2.LINE_AA,
    )  # fmt: skip
    tile = np.vstack([pixels, caption])
    return np.pad(tile, ((2, 2), (2, 2), (0, 0)), constant_values=255)
