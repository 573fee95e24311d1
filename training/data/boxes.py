"""A detector's boxes from a file, as COCO's and CrowdPose's protocols take them."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from models.geometry import Box
from training.data.annotations import LARGEST
from training.errors import DataError

PERSON = 1
"""COCO's category."""


@dataclass(frozen=True, slots=True)
class DetectorBoxes:
    """What a detector found in the photos of a set.

    Attributes:
        name: of the file.
        by_image: its boxes in each photo, best score first.
    """

    name: str
    by_image: dict[int, list[Box]]


def read_boxes(file: Path, *, smallest_score: float = 0.0) -> DetectorBoxes:
    """Read a COCO results file: a list of image_id, category_id, bbox and score.

    Boxes are taken as they are: neither clipped nor suppressed.

    Args:
        file: JSON.
        smallest_score: those below it are left out; the published tables leave out none.

    Raises:
        DataError: the file is not of that form, or a box has no area.
        OSError: it cannot be read.
    """
    boxes: defaultdict[int, list[Box]] = defaultdict(list)
    try:
        for row in json.loads(file.read_text()):
            if row["category_id"] != PERSON or row["score"] < smallest_score:
                continue
            x, y, width, height = map(float, row["bbox"])
            if not (0 < width < LARGEST and 0 < height < LARGEST and abs(x) + abs(y) < LARGEST):
                raise ValueError(f"box {row['bbox']}")
            boxes[int(row["image_id"])].append(Box(x, y, width, height, float(row["score"])))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{file} is no COCO results file of boxes: {error!r}") from error
    for found in boxes.values():
        found.sort(key=lambda box: -box.score)
    return DetectorBoxes(file.stem, dict(boxes))
