"""What evaluation compares with: the photos of a split, their people and the set's own labels."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from models.keypoints import COCO17, CROWDPOSE14, LSP14, MPII16, KeypointSet
from training.data.annotations import LabelledPerson, read_people
from training.data.lsp import read_lsp
from training.data.mpii import read_heads, read_mpii
from training.data.split import is_dev
from training.errors import DataError
from training.protocols import head_sizes

Split = Literal["coco/dev", "coco/val", "lspet/val", "crowdpose/test", "mpii/val", "lsp/test"]

_FILES: dict[Split, str] = {
    "coco/dev": "coco/annotations/person_keypoints_train.json",
    "coco/val": "coco/annotations/person_keypoints_val.json",
    "lspet/val": "lspet/annotations/val.json",
    "crowdpose/test": "crowdpose/json/crowdpose_test.json",
}

LSP_TRAIN = 1000
"""LSP's first so many photos, by their names; the others are its test."""


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
        content: of the annotation file, of these photos alone; without people where the file is
            not COCO-style.
        photos: in the order of their ids.
        keypoints: what their people's joints are.
        heads: MPII's unit of length by the person's id, px; empty for other sets.
    """

    split: Split
    content: dict[str, Any]
    photos: tuple[LabelledPhoto, ...]
    keypoints: KeypointSet = COCO17
    heads: Mapping[int, float] = field(default_factory=dict)

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
        return replace(self, content=content, photos=tuple(photos))

    def asking(self, names: Collection[str]) -> Truth:
        """The same without the labels of other joints, which a model without them cannot find.

        Raises:
            DataError: no joint is left.
        """
        lacking = [i for i, name in enumerate(self.keypoints.names) if name not in names]
        if not lacking:
            return self
        if len(lacking) == len(self.keypoints):
            raise DataError(f"{self.split} labels none of the model's joints")

        def known(person: LabelledPerson) -> LabelledPerson:
            visibility = person.visibility.copy()
            visibility[lacking] = 0
            return replace(person, visibility=visibility)

        photos = [
            replace(photo, people=tuple(p for p in map(known, photo.people) if p.visibility.any()))
            for photo in self.photos
        ]
        rows = [_without(row, lacking) for row in self.content["annotations"]]
        content = {**self.content, "annotations": rows}
        return replace(self, content=content, photos=tuple(photos))


def _without(row: dict[str, Any], lacking: list[int]) -> dict[str, Any]:
    """An annotation without some of its labels."""
    joints = np.array(row.get("keypoints") or [], np.float64).reshape(-1, 3)
    if not len(joints):
        return row
    joints[lacking] = 0
    labelled = int(np.count_nonzero(joints[:, 2]))
    return {**row, "keypoints": joints.ravel().tolist(), "num_keypoints": labelled}


def read_truth(data: Path, split: Split) -> Truth:
    """Read a split.

    LSPET's joints go over to COCO's by name: neck and top of the head have no counterpart and are
    left out. The others keep the joints of their set.

    Args:
        data: the folder with `coco/` and `lspet/`, and, where they are to be had, `crowdpose/`
            (`json/`, `images/`), `mpii/` (`annot/` with `valid.json` and `gt_valid.mat`,
            `images/`) and `lsp/` (`joints.mat`, `images/`), each as its home or the papers' code
            lays it out.
        split: `coco/dev` is the part of train that choices are made on.

    Raises:
        DataError: the annotations are not of the set's form.
        OSError: they cannot be read.
    """
    if split == "mpii/val":
        folder = data / "mpii"
        heads = head_sizes(read_heads(folder / "annot" / "gt_valid.mat").boxes)
        people = read_mpii(folder / "annot" / "valid.json", folder / "images").people
        if any(person.annotation_id >= len(heads) for person in people):
            raise DataError(f"{folder}/annot: valid.json and gt_valid.mat are of other people")
        return replace(_of_people(split, people, MPII16), heads=dict(enumerate(heads.tolist())))
    if split == "lsp/test":
        people = read_lsp(data / "lsp" / "joints.mat", data / "lsp" / "images").people
        tested = [person for person in people if person.image_id >= LSP_TRAIN]
        return _of_people(split, tested, LSP14)
    return _coco_style(data / _FILES[split], data / split.split("/")[0] / "images", split)


def _of_people(split: Split, people: list[LabelledPerson], keypoints: KeypointSet) -> Truth:
    """Of a set whose photos show others too, whom nobody labelled."""
    by_image: defaultdict[int, list[LabelledPerson]] = defaultdict(list)
    for person in people:
        by_image[person.image_id].append(person)
    photos = [
        LabelledPhoto(found[0].image, image_id, tuple(found), False, None, "")
        for image_id, found in sorted(by_image.items())
    ]
    content = {"images": [{"id": photo.image_id} for photo in photos], "annotations": []}
    return Truth(split, content, tuple(photos), keypoints)


def _coco_style(annotations: Path, images: Path, split: Split) -> Truth:
    keypoints = CROWDPOSE14 if split == "crowdpose/test" else COCO17
    by_image: defaultdict[int, list[LabelledPerson]] = defaultdict(list)
    for person in read_people(annotations, images, keypoints).people:
        by_image[person.image_id].append(person)
    content = json.loads(annotations.read_text())
    rows = sorted(content["images"], key=lambda row: int(row["id"]))
    photos = [
        LabelledPhoto(
            path=images / row["file_name"],
            image_id=row["id"],
            people=tuple(by_image[row["id"]]),
            # The sets themselves do not say: LSP's photos show others whom nobody labelled.
            complete=bool(row.get("all_persons", split != "lspet/val")),
            licence=row.get("license"),
            source=row.get("flickr_url", ""),
        )
        for row in rows
        if split != "coco/dev" or is_dev(row["id"])
    ]
    return Truth(split, content, (), keypoints).of(photos)
