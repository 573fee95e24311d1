"""Reader of COCO-style keypoint files, which says what it left out and why."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.geometry import Box
from models.keypoints import KeypointSet


@dataclass(frozen=True, slots=True, eq=False)
class LabelledPerson:
    """One person of one photo.

    Attributes:
        image: the photo's file.
        image_id: of the photo in its set.
        annotation_id: of the person in its set.
        box: px, clipped to the photo as COCO does.
        points: (K, 2) float64 px; undefined where not labelled.
        visibility: (K,) uint8; 0 not labelled, 1 hidden, 2 visible.
    """

    image: Path
    image_id: int
    annotation_id: int
    box: Box
    points: NDArray[np.float64]
    visibility: NDArray[np.uint8]


@dataclass(slots=True)
class LabelledSet:
    """The people of a file that can be used, and a count of what cannot."""

    people: list[LabelledPerson] = field(default_factory=list)
    rejected: Counter[str] = field(default_factory=Counter)


def read_people(
    annotations: Path,
    images: Path,
    keypoints: KeypointSet,
    *,
    wanted: Callable[[int], bool] = lambda image_id: True,
    unlabelled: bool = False,
    smallest: float = 0.0,
) -> LabelledSet:
    """Read a COCO-style file.

    Args:
        annotations: the JSON file. Its category's keypoints may be any subset of `keypoints` by
            name, in any order; joints that it does not have are read as not labelled.
        images: the folder of the photos.
        keypoints: the set to read into.
        wanted: which image ids to read.
        unlabelled: also people without a single labelled joint.
        smallest: leave out boxes whose longer side is below this, px.

    Raises:
        ValueError: not a COCO-style file, or no joint in common.
    """
    try:
        content = json.loads(annotations.read_text())
        names = content["categories"][0]["keypoints"]
        photos = {photo["id"]: photo for photo in content["images"]}
        rows = content["annotations"]
    except (KeyError, IndexError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{annotations} is not a COCO-style keypoint file: {error!r}") from error
    shared = [(names.index(name), i) for i, name in enumerate(keypoints.names) if name in names]
    if not shared:
        raise ValueError(f"{annotations} has no joint of {keypoints.name}")
    result = LabelledSet()
    present = {path.name for path in images.iterdir()}
    seen: set[int] = set()
    for row in rows:
        reason, person = _read_person(row, photos, present, images, shared, len(keypoints))
        if person is not None and not wanted(person.image_id):
            continue
        if person is not None and row["id"] in seen:
            reason, person = "duplicate id", None
        if person is None:
            result.rejected[reason] += 1
            continue
        seen.add(row["id"])
        if max(person.box.width, person.box.height) < smallest:
            result.rejected["too small"] += 1
        elif not person.visibility.any() and not unlabelled:
            result.rejected["no labelled joint"] += 1
        else:
            result.people.append(person)
    return result


def _read_person(
    row: dict[str, Any],
    photos: dict[int, dict[str, Any]],
    present: set[str],
    images: Path,
    shared: list[tuple[int, int]],
    count: int,
) -> tuple[str, LabelledPerson | None]:
    """The person, or the reason why there is none."""
    if row.get("iscrowd"):
        return "crowd region", None
    photo = photos.get(row.get("image_id", -1))
    if photo is None:
        return "unknown image", None
    if photo["file_name"] not in present:
        return "missing file", None
    values = [*row.get("bbox", ()), *row.get("keypoints", ())]
    if len(row.get("bbox", ())) != 4 or not all(
        isinstance(value, int | float) and math.isfinite(value) for value in values
    ):
        return "numbers missing or not finite", None
    box = Box(*map(float, row["bbox"])).clipped(photo["width"], photo["height"])
    if box is None:
        return "box outside the image", None
    points, visibility = np.zeros((count, 2)), np.zeros(count, np.uint8)
    triplets = np.asarray(row.get("keypoints", ()), float).reshape(-1, 3)
    for source, target in shared:
        if source < len(triplets):
            x, y, v = triplets[source]
            # A joint labelled outside its photo is a mistake of the labels.
            inside = -1 <= x <= photo["width"] and -1 <= y <= photo["height"]
            points[target] = x, y
            visibility[target] = int(v) if inside else 0
    return "", LabelledPerson(
        images / photo["file_name"], row["image_id"], row["id"], box, points, visibility
    )
