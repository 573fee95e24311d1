"""Reader of MPII in the layout that the papers' code shares."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat

from models.geometry import Box
from models.keypoints import MPII16
from training.data.annotations import LabelledPerson, LabelledSet
from training.errors import DataError

HEIGHT = 200
"""Pixels of a person of scale 1."""


def read_mpii(annotations: Path, images: Path) -> LabelledSet:
    """Read `train.json` or `valid.json`: a list of image, center, scale, joints, joints_vis.

    The person's square box is what the papers' code cuts out before its padding: the centre 15
    scales lower and a side of 200 scales, all from Matlab's pixel 1 to pixel 0 (MODELS 1.1, 3).
    Ids are the rows' numbers, since the file has none, and an image's is its first row's.

    Args:
        annotations: the JSON file.
        images: the folder of the photos.

    Raises:
        DataError: the file is not of that form.
    """
    try:
        rows = json.loads(annotations.read_text())
        result = LabelledSet()
        ids: dict[str, int] = {}
        present = {path.name for path in images.iterdir()}
        for number, row in enumerate(rows):
            image_id = ids.setdefault(row["image"], number)
            points = np.asarray(row["joints"], np.float64).reshape(len(MPII16), 2) - 1
            seen = np.asarray(row["joints_vis"], np.float64).reshape(len(MPII16)) > 0
            (x, y), scale = map(float, row["center"]), float(row["scale"])
            reason = _unusable(row["image"] in present, (x, y, scale), points[seen])
            if reason:
                result.rejected[reason] += 1
                continue
            side = HEIGHT * scale
            box = Box(x - 1 - side / 2, y + 15 * scale - 1 - side / 2, side, side)
            result.people.append(
                LabelledPerson(
                    images / row["image"], image_id, number, box, points,
                    np.where(seen, 2, 0).astype(np.uint8),
                )
            )  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{annotations} is not MPII's list of people: {error!r}") from error
    return result


def _unusable(
    present: bool, place: tuple[float, float, float], points: NDArray[np.float64]
) -> str | None:
    """Why a row cannot be used, if it cannot."""
    if not present:
        return "missing file"
    if not np.isfinite(place).all() or not np.isfinite(points).all():
        return "numbers missing or not finite"
    if place[2] <= 0:
        return "box outside the image"
    return None if len(points) else "no labelled joint"


@dataclass(frozen=True, slots=True, eq=False)
class HeadTruth:
    """What PCKh compares with, in the order of `valid.json`.

    Attributes:
        points: (N, 16, 2) px, pixel 0 first.
        visible: (N, 16).
        boxes: (N, 4) of the heads: left, top, right, bottom, px.
    """

    points: NDArray[np.float64]
    visible: NDArray[np.bool_]
    boxes: NDArray[np.float64]


def read_heads(file: Path) -> HeadTruth:
    """Read `gt_valid.mat`: pos_gt_src (16, 2, N), jnt_missing (16, N), headboxes_src (2, 2, N).

    Raises:
        DataError: the file is not of that form.
    """
    try:
        content = loadmat(file)
        points = np.asarray(content["pos_gt_src"], np.float64).transpose(2, 0, 1) - 1
        visible = np.asarray(content["jnt_missing"]).T == 0
        boxes = np.asarray(content["headboxes_src"], np.float64).transpose(2, 0, 1).reshape(-1, 4)
    except (KeyError, ValueError) as error:
        raise DataError(f"{file} is not MPII's gt_valid.mat: {error!r}") from error
    return HeadTruth(points, visible, boxes)
