"""Photos to poses in this process, without a server: what `subpose predict` does."""

from __future__ import annotations

import glob
import io
import json
import math
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.draw import draw_people
from models.formats import coco, openpose
from models.predictor import Person, Predictor
from service.api.answers import photo_body
from service.api.parameters import PoseQuery
from service.api.tasks import pose_task
from service.catalog import load_catalog
from service.images import PostedImage
from service.pipeline import SeenPerson, SeenPhoto
from service.problems import InvalidParameter
from service.settings import Settings
from service.timings import Timings

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})
STDIN = Path("-")


class NoPhotos(Exception):  # noqa: N818
    """An argument that names no photo; the message says which."""


def find_photos(arguments: Sequence[str]) -> list[Path]:
    """The photos that a command line names.

    Args:
        arguments: files, folders (their photos, not those of folders within), patterns, or `-`.

    Raises:
        NoPhotos: one of them has none.
    """
    photos: list[Path] = []
    for argument in arguments:
        path = Path(argument)
        if path == STDIN or path.is_file():
            found = [path]
        elif path.is_dir():
            found = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
        else:
            found = [Path(name) for name in sorted(glob.glob(argument, recursive=True))]
        if not found:
            raise NoPhotos(f"{argument}: no such photo, nor a folder or pattern with one")
        photos += found
    return photos


@dataclass(frozen=True, slots=True, eq=False)
class Posed:
    """A photo and who is in it."""

    file: Path
    pixels: NDArray[np.uint8]
    people: list[Person]


class LocalPose:
    """The models that the settings name, loaded here, asked the same way for every photo.

    Args:
        settings: of the server that this stands in for.
        query: the parameters of POST /pose.

    Raises:
        BundleError: weights that are damaged or not there.
        EngineError: the device is missing.
        Problem: parameters that do not go together.
    """

    def __init__(self, settings: Settings, query: PoseQuery) -> None:
        self._query = query
        self._kind = query.format or "json"
        self._most_pixels = settings.image_pixels
        catalog = load_catalog(settings)
        self._task = pose_task(
            query,
            catalog,
            self._kind,
            images=1,
            deadline=math.inf,
            answer_bytes=settings.answer_bytes,
        )
        self._heads = [choice.head for choice in self._task.heads]
        if len(self._heads) > 1 and (query.decode or query.resolution):
            raise InvalidParameter(("head", "with decode or resolution, name one head"))
        self._predictor = Predictor(self._task.model, self._task.detector.detector)

    def see(self, file: Path) -> Posed:
        """Find the people of one photo.

        Raises:
            OSError: the file cannot be read.
            Problem: it is no photo that can be.
        """
        data = sys.stdin.buffer.read() if file == STDIN else file.read_bytes()
        pixels = PostedImage(data, self._most_pixels).pixels()
        people = self._predictor.predict(
            pixels,
            boxes=self._task.boxes,
            heads=self._heads,
            decode=self._query.decode,
            resolution=self._query.resolution,
            flip=self._task.flip,
            max_people=self._task.max_people,
            min_box_score=self._task.min_box_score,
        )
        return Posed(file, pixels, people)

    def draw(self, posed: Posed) -> NDArray[np.uint8]:
        """The photo with its skeletons."""
        return draw_people(posed.pixels, posed.people, self._task.model.keypoints)

    def lines(self, photos: Iterable[Posed]) -> Iterator[str]:
        """The answer in the query's format: a line for each photo, for `coco` one for all."""
        rows = []
        count = 0
        for count, posed in enumerate(photos, 1):
            if self._kind == "coco":
                rows += coco(posed.people, image_id=_image_id(posed.file, count))
            elif self._kind == "openpose":
                yield json.dumps(openpose(posed.people, self._task.model.keypoints)) + "\n"
            else:
                yield json.dumps(self._json(posed, _image_id(posed.file, count))) + "\n"
        if self._kind == "coco" and count:
            yield json.dumps(rows) + "\n"

    def _json(self, posed: Posed, image_id: int) -> dict[str, object]:
        """POST /pose's answer without what only a server has, and with the file's name."""
        model = self._task.model
        height, width = posed.pixels.shape[:2]
        people = (
            SeenPerson(person.box, model.cut(posed.pixels, person.box)[0], person, None)
            for person in posed.people
        )
        seen = SeenPhoto(width, height, tuple(people), None)
        body = photo_body(seen, self._task, None, image_id, Timings(), "")
        served = {"id", "expires", "timings_ms"}
        answer = body.model_dump(mode="json", exclude=served, exclude_unset=True)
        return {"file": str(posed.file), **answer}


def _image_id(file: Path, position: int) -> int:
    """COCO's files are named by their id; others are numbered as they come, from 1."""
    return int(file.stem) if file.stem.isascii() and file.stem.isdigit() else position


def write_picture(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write an image; its suffix says in which format."""
    data = io.BytesIO()
    kind = Image.registered_extensions()[path.suffix.lower()]
    Image.fromarray(pixels).save(data, kind, quality=92)
    write_whole(path, data.getvalue())


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that is there whole or not at all: under another name first, then renamed."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_bytes(data)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
