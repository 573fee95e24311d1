"""What evaluation compares with: the photos of a split, their people and COCO's own labels."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from models.keypoints import COCO17
from training.data.annotations import LabelledPerson, read_people
from training.data.split import is_dev
from training.errors import DataError

Split = Literal["coco/dev", "coco/val", "lspet/val"]

_FILES: dict[Split, str] = {
    "coco/dev": "coco/annotations/person_keypoints_train.json",
    "coco/val": "coco/annotations/person_keypoints_val.json",
    "lspet/val": "lspet/annotations/val.json",
}


@dataclass(frozen=True, slots=True, eq=False)
class LabelledPhoto:
    """One photo of a split.

    Attributes:
        path: of the file.
        image_id: in its set.
        people: those with a labelled joint, however small.
        complete: everyone in it has a box in the labels, so who is found besides is a mistake.
        licence: the photo's own, as the set numbers them; None if it is not known.
        source: where the photo comes from; empty if that is not known.
    """

    path: Path
    image_id: int
    people: tuple[LabelledPerson, ...]
    complete: bool
    licence: int | None
    source: str


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """A split.

    Attributes:
        split: its name.
        content: of the annotation file, of these photos alone.
        photos: in the order of their ids.
    """

    split: Split
    content: dict[str, Any]
    photos: tuple[LabelledPhoto, ...]

    def with_people(self) -> Truth:
        """The part of it that has labelled people."""
        return self.of([photo for photo in self.photos if photo.people])

    def complete(self) -> Truth:
        """The part of it in which everyone is labelled.

        Raises:
            DataError: there is none.
        """
        photos = [photo for photo in self.photos if photo.complete]
        if not photos:
            raise DataError(f"{self.split} labels not everyone: use its boxes, no detector")
        return self.of(photos)

    def of(self, photos: Sequence[LabelledPhoto]) -> Truth:
        """The part of it that these photos are."""
        ids = {photo.image_id for photo in photos}
        content = {
            **self.content,
            "images": [row for row in self.content["images"] if row["id"] in ids],
            "annotations": [row for row in self.content["annotations"] if row["image_id"] in ids],
        }
        return Truth(self.split, content, tuple(photos))


def read_truth(data: Path, split: Split) -> Truth:
    """Read a split, its people as the COCO keypoint set.

    LSP's joints go over by name: neck and top of the head have no counterpart and are left out.

    Args:
        data: the folder with `coco/` and `lspet/`.
        split: `coco/dev` is the part of train that choices are made on.

    Raises:
        DataError: the annotations are not a COCO-style keypoint file.
        OSError: they cannot be read.
    """
    annotations = data / _FILES[split]
    images = data / split.split("/")[0] / "images"
    by_image: defaultdict[int, list[LabelledPerson]] = defaultdict(list)
    for person in read_people(annotations, images, COCO17).people:
        by_image[person.image_id].append(person)
    content = json.loads(annotations.read_text())
    rows = sorted(content["images"], key=lambda row: int(row["id"]))
    photos = [
        LabelledPhoto(
            path=images / row["file_name"],
            image_id=row["id"],
            people=tuple(by_image[row["id"]]),
            # LSP's photos show others whom nobody labelled.
            complete=bool(row.get("all_persons", False)),
            licence=row.get("license"),
            source=row.get("flickr_url", ""),
        )
        for row in rows
        if split != "coco/dev" or is_dev(row["id"])
    ]
    return Truth(split, content, ()).of(photos)
