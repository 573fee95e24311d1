"""Photos with the boxes of the people in them, read from COCO's files."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from training.data.images import read_image
from training.data.split import is_dev

Split = Literal["train", "dev", "val"]


@dataclass(frozen=True, slots=True)
class Photo:
    """One photo and its labels, corners x1 y1 x2 y2 in px.

    Attributes:
        path: of the file.
        image_id: COCO's.
        people: (N, 4), every labelled person.
        posed: (N,), which of them have keypoints.
        crowds: (M, 4), regions full of people who are not labelled one by one.
    """

    path: Path
    image_id: int
    people: NDArray[np.float64]
    posed: NDArray[np.bool_]
    crowds: NDArray[np.float64]

    def pixels(self) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB.

        Raises:
            DataError: the file is not a picture that can be read.
        """
        return read_image(self.path)


def read_photos(coco: Path, split: Split) -> list[Photo]:
    """The photos of a split in which every person is boxed, in the order of their ids.

    Args:
        coco: the folder with `annotations/` and `images/`.
        split: `dev` is the part of train that choices are made on.
    """
    source = "val" if split == "val" else "train"
    content = json.loads((coco / f"annotations/person_keypoints_{source}.json").read_text())
    by_image = defaultdict(list)
    for annotation in content["annotations"]:
        by_image[annotation["image_id"]].append(annotation)
    photos = []
    for image in sorted(content["images"], key=lambda image: image["id"]):
        if not image.get("all_persons", True) or (
            source == "train" and is_dev(image["id"]) != (split == "dev")
        ):
            continue
        annotations = by_image[image["id"]]
        single = [item for item in annotations if not item["iscrowd"]]
        photos.append(
            Photo(
                path=coco / "images" / image["file_name"],
                image_id=image["id"],
                people=_corners(single),
                posed=np.array([item["num_keypoints"] > 0 for item in single], bool),
                crowds=_corners([item for item in annotations if item["iscrowd"]]),
            )
        )
    return photos


def _corners(annotations: list[dict[str, list[float]]]) -> NDArray[np.float64]:
    boxes = np.array([item["bbox"] for item in annotations], np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return boxes
