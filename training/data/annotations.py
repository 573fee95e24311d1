"""Reader of COCO-style keypoint files, which says what it left out and why."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.geometry import Box
from models.keypoints import KeypointSet
from training.errors import DataError

LARGEST = 1e9
"""Numbers from here on, and those that are none, cannot be pixels."""


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
    """The people of a file that can be used, and a count of what cannot.

    Attributes:
        people: that are whole.
        rejected: rows left out, by the reason.
        mended: what was taken out of the others, by the reason.
    """

    people: list[LabelledPerson] = field(default_factory=list)
    rejected: Counter[str] = field(default_factory=Counter)
    mended: Counter[str] = field(default_factory=Counter)


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
        DataError: not a COCO-style file, or no joint in common.
    """
    try:
        content = json.loads(annotations.read_text())
        names = content["categories"][0]["keypoints"]
        photos = {photo["id"]: photo for photo in content["images"]}
        rows = content["annotations"]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise DataError(f"{annotations} is not a COCO-style keypoint file: {error!r}") from error
    sources = [names.index(name) if name in names else None for name in keypoints.names]
    if sources == [None] * len(sources):
        raise DataError(f"{annotations} has no joint of {keypoints.name}")
    result = LabelledSet()
    if len(photos) < len(content["images"]):
        result.mended["duplicate image id"] = len(content["images"]) - len(photos)
    present = {path.name for path in images.iterdir()}
    seen: set[int] = set()
    for row in rows:
        try:
            person, outside = _read_person(row, photos, present, images, sources, len(names))
        except _RowError as reason:
            result.rejected[str(reason)] += 1
            continue
        if not wanted(person.image_id):
            continue
        if person.annotation_id in seen:
            result.rejected["duplicate id"] += 1
            continue
        seen.add(person.annotation_id)
        if max(person.box.width, person.box.height) < smallest:
            result.rejected["too small"] += 1
        elif not person.visibility.any() and not unlabelled:
            result.rejected["no labelled joint"] += 1
        else:
            result.people.append(person)
            if outside:
                result.mended["joint outside the image"] += outside
    return result


class _RowError(Exception):
    """A row that cannot be used; the message says why."""


def _read_person(
    row: object,
    photos: dict[object, object],
    present: set[str],
    images: Path,
    sources: list[int | None],
    joints: int,
) -> tuple[LabelledPerson, int]:
    """The person of a row, and how many joints were labelled outside its photo.

    The file has so many joints, `sources` of which are ours.
    """
    if not isinstance(row, dict) or not isinstance(row.get("id"), int):
        raise _RowError("no id")
    if row.get("iscrowd"):
        raise _RowError("crowd region")
    image_id = row.get("image_id")
    photo = photos.get(image_id) if isinstance(image_id, int) else None
    if not isinstance(photo, dict):
        raise _RowError("unknown image")
    if photo.get("file_name") not in present:
        raise _RowError("missing file")
    width, height = _numbers([photo.get("width"), photo.get("height")], 2)
    box = Box(*_numbers(row.get("bbox"), 4)).clipped(int(width), int(height))
    if box is None:
        raise _RowError("box outside the image")
    points, visibility = np.zeros((len(sources), 2)), np.zeros(len(sources), np.uint8)
    # A person whom nobody labelled may come without the field.
    labels = _numbers(row["keypoints"], 3 * joints) if row.get("keypoints") else [0.0] * 3 * joints
    for target, source in enumerate(sources):
        if source is not None:
            x, y, v = labels[3 * source : 3 * source + 3]
            if v not in (0, 1, 2):
                raise _RowError("visibility other than 0, 1 and 2")
            points[target], visibility[target] = (x, y), int(v)
    # A joint labelled outside its photo is a mistake of the labels.
    inside = ((points >= -1) & (points <= (width, height))).all(1)
    outside = int(np.count_nonzero(visibility[~inside]))
    visibility[~inside] = 0
    person = LabelledPerson(
        images / photo["file_name"], photo["id"], row["id"], box, points, visibility
    )
    return person, outside


def _numbers(values: object, count: int) -> list[float]:
    """So many finite numbers."""
    if not isinstance(values, list) or len(values) != count:
        raise _RowError("numbers missing or not finite")
    for value in values:
        if not isinstance(value, int | float) or not abs(value) < LARGEST:
            raise _RowError("numbers missing or not finite")
    return [float(value) for value in values]
