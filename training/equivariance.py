"""Whether joints stay in place when the crop around them moves: the proof of sub-pixel precision.

The same person is cut out again a fraction of a pixel aside, a little larger or smaller, and in a
mirror. A head that sees positions finely answers the same place of the photo each time; one that
snaps to a grid, or to the pixels of the crop, does not. No label is needed, so none limits it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from models.geometry import Box
from models.keypoints import COCO17
from models.pose import PoseModel
from models.predictor import HeadChoice, Predictor
from training.data.annotations import LabelledPerson
from training.data.images import read_image
from training.evaluate import readings_of
from training.evaluation import Deviation, Move
from training.progress import console
from training.truth import Truth

Floats = NDArray[np.float64]

SHIFTS = ((0.25, 0.5), (-0.5, 0.75), (1.3, -0.4), (-1.7, -1.1))
"""Along x and y, in pixels of the crop."""

SCALES = (0.9, 0.95, 1.05, 1.1)
"""Of the box about its centre."""


def equivariance(
    model: PoseModel,
    truth: Truth,
    *,
    readings: Sequence[HeadChoice] | None = None,
    people: int = 150,
) -> list[Deviation]:
    """How far joints move that should not, through the product's own path.

    Args:
        model: of the COCO keypoint set.
        truth: whose photos and boxes are looked at; of the labels only which joints there are.
        readings: heads and decodes; None for `readings_of(model)`.
        people: at most, spread evenly over the split.
    """
    readings = readings_of(model) if readings is None else readings
    everyone = [(photo.path, person) for photo in truth.photos for person in photo.people]
    chosen = everyone[:: -(-len(everyone) // people)]
    predictor = Predictor(model)
    moved: dict[tuple[HeadChoice, Move], list[Floats]] = {
        (reading, move): [] for reading in readings for move in ("shift", "scale", "flip")
    }
    for path, person in track(chosen, "equivariance", console=console, transient=True):
        image = read_image(path)
        for key, deviations in _deviations(predictor, image, person, readings).items():
            moved[key].append(deviations)
    return [
        Deviation(
            split=truth.split,
            head=reading.head,
            decode=reading.decode,
            resolution=reading.resolution,
            move=move,
            joints=sum(map(len, parts)),
            median_px=float(np.median(np.concatenate(parts))),
            p90_px=float(np.quantile(np.concatenate(parts), 0.9)),
        )
        for (reading, move), parts in moved.items()
    ]


def _deviations(
    predictor: Predictor,
    image: NDArray[np.uint8],
    person: LabelledPerson,
    readings: Sequence[HeadChoice],
) -> dict[tuple[HeadChoice, Move], Floats]:
    """Of one person's labelled joints, in pixels of the crop."""
    box, width = person.box, image.shape[1]
    geometry = predictor.model.geometry(box)
    shifted = [
        Box(box.x + dx * geometry.scale, box.y + dy * geometry.scale, box.width, box.height)
        for dx, dy in SHIFTS
    ]
    scaled = [_scaled(box, factor) for factor in SCALES]
    mirrored = Box(width - 1 - box.x - box.width, box.y, box.width, box.height)
    plain = predictor.encode(image, boxes=[box, *shifted, *scaled])
    opposite = predictor.encode(np.ascontiguousarray(image[:, ::-1]), boxes=[mirrored])
    joints = person.visibility > 0
    result: dict[tuple[HeadChoice, Move], Floats] = {}
    for reading in readings:
        points = np.array([pose.points for pose in predictor.poses(plain, reading)])
        seen = predictor.poses(opposite, reading)[0].points[list(COCO17.mirror)]
        seen[:, 0] = width - 1 - seen[:, 0]
        after = len(SHIFTS) + 1
        others: dict[Move, Floats] = {
            "shift": points[1:after], "scale": points[after:], "flip": seen[None],
        }  # fmt: skip
        for move, answers in others.items():
            distances = np.linalg.norm(answers - points[0], axis=-1)[:, joints]
            result[reading, move] = distances.ravel() / geometry.scale
    return result


def _scaled(box: Box, factor: float) -> Box:
    (x, y), width, height = box.center, box.width * factor, box.height * factor
    return Box(x - width / 2, y - height / 2, width, height)
