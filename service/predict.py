"""Photos to poses in this process, without a server: what `subpose predict` does."""

from __future__ import annotations

import glob
import io
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.draw import draw_people
from models.files import write_whole
from models.formats import coco, openpose
from models.predictor import Person, Predictor
from service.api.answers import photo_body
from service.api.parameters import PoseQuery
from service.api.tasks import pose_task
from service.catalog import load_catalog
from service.images import PostedImage
from service.photo import SeenPerson, SeenPhoto
from service.settings import Settings
from service.timings import Timings

_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})
_STDIN = Path("-")


class NoPhotos(Exception):  # noqa: N818
    """An argument that names no photo; the message says which."""


class NoPlace(Exception):  # noqa: N818
    """A path that cannot be written to; the message says why."""


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
        if path == _STDIN or path.is_file():
            found = [path]
        elif path.is_dir():
            found = sorted(file for file in path.iterdir() if file.suffix.lower() in _SUFFIXES)
        else:
            found = [Path(name) for name in sorted(glob.glob(argument, recursive=True))]
        if not found:
            raise NoPhotos(f"{argument}: no such photo, nor a folder or pattern with one")
        photos += found
    return photos


def image_ids(photos: Sequence[Path]) -> list[int]:
    """A number for each photo: its name where all names are numbers, each another; else its place.

    COCO's files are named by their number. Places count from 1.
    """
    names = [photo.stem for photo in photos]
    if all(name.isascii() and name.isdigit() for name in names):
        numbers = [int(name) for name in names]
        if len(set(numbers)) == len(numbers):
            return numbers
    return list(range(1, len(photos) + 1))


def check_folder(path: Path) -> None:
    """Whether there is a folder to write a file into.

    Raises:
        NoPlace: there is none.
    """
    if not path.parent.is_dir():
        raise NoPlace(f"{path}: there is no folder {path.parent}")


def picture_paths(draw: Path, photos: Sequence[Path]) -> list[Path]:
    """Where each photo's picture goes: the path itself, or a folder for several.

    Raises:
        NoPlace: one cannot be written, or would overwrite another, or a photo.
    """
    targets = [draw]
    if len(photos) == 1:
        if draw.suffix.lower() not in _SUFFIXES:
            raise NoPlace(f"--draw: {draw} has none of the suffixes {', '.join(sorted(_SUFFIXES))}")
        check_folder(draw)
    else:
        if draw.is_file():
            raise NoPlace(f"--draw: {draw} is a file; of several photos it has to be a folder")
        names = ("stdin" if photo == _STDIN else photo.stem for photo in photos)
        targets = [draw / f"{name}.png" for name in names]
    originals = {photo.resolve() for photo in photos}
    drawn: dict[Path, Path] = {}
    for photo, target in zip(photos, targets, strict=True):
        if target.resolve() in originals:
            raise NoPlace(f"--draw: {target} would overwrite a photo; name another place")
        if target in drawn:
            raise NoPlace(
                f"--draw: {drawn[target]} and {photo} would both be {target}; rename one, or draw "
                "them apart"
            )
        drawn[target] = photo
    return targets


@dataclass(frozen=True, slots=True, eq=False)
class Posed:
    """A photo and who is in it."""

    file: Path
    image_id: int
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
        self._kind = query.format or "json"
        self._most_pixels = settings.image_pixels
        catalog = load_catalog(settings)
        self._task = pose_task(
            query,
            catalog,
            self._kind,
            answer_bytes=settings.answer_bytes,
        )
        self._predictor = Predictor(self._task.model, self._task.detector.detector)

    def see(self, file: Path, image_id: int) -> Posed:
        """Find the people of one photo.

        Args:
            file: the photo; `-` is standard input.
            image_id: its number in the answer.

        Raises:
            OSError: the file cannot be read.
            Problem: it is no photo that can be.
        """
        data = sys.stdin.buffer.read() if file == _STDIN else file.read_bytes()
        pixels = PostedImage(data, self._most_pixels).pixels()
        people = self._predictor.predict(
            pixels,
            boxes=self._task.boxes,
            heads=self._task.heads,
            flip=self._task.flip,
            max_people=self._task.max_people,
            min_box_score=self._task.min_box_score,
        )
        return Posed(file, image_id, pixels, people)

    def draw(self, posed: Posed) -> NDArray[np.uint8]:
        """The photo with its skeletons."""
        return draw_people(posed.pixels, posed.people, self._task.model.keypoints)

    def lines(self, photos: Iterable[Posed]) -> Iterator[str]:
        """The answer in the query's format: a line for each photo, for `coco` one for all."""
        rows = []
        answered = False
        for posed in photos:
            answered = True
            if self._kind == "coco":
                rows += coco(posed.people, image_id=posed.image_id)
            elif self._kind == "openpose":
                yield json.dumps(openpose(posed.people, self._task.model.keypoints)) + "\n"
            else:
                yield json.dumps(self._json(posed)) + "\n"
        if self._kind == "coco" and answered:
            yield json.dumps(rows) + "\n"

    def _json(self, posed: Posed) -> dict[str, object]:
        """POST /pose's answer without what only a server has, and with the file's name."""
        model = self._task.model
        height, width = posed.pixels.shape[:2]
        people = (
            SeenPerson(person.box, model.geometry(person.box), person, None)
            for person in posed.people
        )
        seen = SeenPhoto(width, height, tuple(people), None)
        body = photo_body(seen, self._task, posed.image_id, Timings(), "")
        served = {"id", "expires", "timings_ms"}
        answer = body.model_dump(mode="json", exclude=served, exclude_unset=True)
        return {"file": str(posed.file), **answer}


def write_picture(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write an image; its suffix says in which format."""
    data = io.BytesIO()
    kind = Image.registered_extensions()[path.suffix.lower()]
    Image.fromarray(pixels).save(data, kind, quality=92)
    write_whole(path, data.getvalue())
