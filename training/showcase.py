"""The photos that a card shows: the whole path, on pictures that may be shown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from models.draw import draw_people
from models.predictor import Predictor
from training.data.images import read_image
from training.errors import DataError
from training.pictures import small_png

PHOTOS = ("coco_000000281759.jpg", "coco_000000000790.jpg", "coco_000000000872.jpg")
"""Of `demo/`; an easy one, people cut off by a table, two who overlap much."""

FREE = "http://creativecommons.org/licenses/by/2.0/"
"""The licence of photos that may lie here, with credit."""

_HEIGHT_PX = 250
_COLOURS = 128


@dataclass(frozen=True, slots=True)
class Credit:
    """Of a photo: its name in its set, and the page that names the photographer."""

    photo: str
    page: str

    def __str__(self) -> str:
        return f"{self.photo}, [photo page, which names the photographer]({self.page}), CC BY 2.0"


def credits_of(demo: Path, photos: Sequence[str] = PHOTOS) -> list[Credit]:
    """What `SOURCES.md` beside the photos says of them.

    Raises:
        DataError: it does not know one of them, or that one may not be shown here.
    """
    text = (demo / "SOURCES.md").read_text()
    found = []
    for photo in photos:
        row = re.search(rf"^\| {re.escape(photo)} \|.*$", text, re.MULTILINE)
        facts = row and re.search(r"\| (COCO \w+ image \d+);.*photo page (\S+) \|.*", row[0])
        if not row or not facts or FREE not in row[0]:
            raise DataError(f"{photo} may not be shown: {demo}/SOURCES.md does not have it {FREE}")
        found.append(Credit(facts[1], facts[2]))
    return found


def draw_showcase(predictor: Predictor, demo: Path, photos: Sequence[str] = PHOTOS) -> bytes:
    """PNG: the photos side by side, with the skeletons that the predictor finds in them."""
    tiles = [_tile(predictor, read_image(demo / photo)) for photo in photos]
    return small_png(np.hstack(tiles), _COLOURS)


def _tile(predictor: Predictor, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    drawn = draw_people(image, predictor.predict(image), predictor.model.keypoints)
    width = round(image.shape[1] * _HEIGHT_PX / image.shape[0])
    return np.asarray(
        cv2.resize(drawn, (width, _HEIGHT_PX), interpolation=cv2.INTER_AREA), np.uint8
    )
