"""People cut out of their photos, in files that travel: a WebDataset of pictures and labels.

A sample is one person: `00000012.jpg`, the part of the photo that any augmented crop may show;
`00000012.json`, labels in pixels of that part; `00000012.maps.png`, what the teachers saw, one
joint's map below the other, 255 for 1. Shards are plain tar files. The augmentation draws the same
numbers and makes the same crops as it would of the photo, but for what JPEG leaves.
"""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from models.bundle import file_digest
from models.geometry import Box
from models.keypoints import COCO17
from training.config import DataSource, Experiment
from training.data.annotations import LabelledPerson
from training.data.images import read_image
from training.errors import DataError
from training.looks import Looks
from training.pack_manifest import PackManifest, Shard, differs, digest_of, others
from training.prepare import read_source
from training.progress import console
from training.teacher_maps import find_maps

LARGEST_SHARD = 60_000_000
"""Bytes; many a host takes no larger file."""

QUALITY = 90
"""Of the JPEGs."""


def write_packs(experiment: Experiment) -> Iterator[PackManifest]:
    """Pack each training set of an experiment into its `pack_folder`.

    Raises:
        DataError: what the teachers saw is of other people, or other teachers saw it.
        OSError: there is nothing of the teachers yet: `prepare` runs them.
    """
    for number, source in enumerate(experiment.train):
        maps, teachers = None, tuple[str | None, ...]()
        people = read_source(source).people
        if experiment.teachers is not None:
            teachers = tuple(digest_of(path) for path in experiment.teachers.files)
            maps = np.load(find_maps(experiment, number, len(people)), mmap_mode="r")
        folder = experiment.pack_folder(number)
        yield write_pack(folder, source, people, maps, Looks.of(experiment), teachers)


def write_pack(
    folder: Path,
    source: DataSource,
    people: list[LabelledPerson],
    maps: NDArray[np.floating] | None,
    looks: Looks,
    teachers: tuple[str | None, ...] = (),
) -> PackManifest:
    """Write a pack, whole or not at all, in place of one that is there.

    Args:
        folder: of the pack.
        source: the set that the people are of.
        people: to pack.
        maps: (N, K, rows, columns), what teachers saw of them.
        looks: the crops to pack them for.
        teachers: sha256 of each teacher's file.

    Raises:
        DataError: a photo cannot be read, or a person is larger than a shard.
    """
    draft = folder.with_name(f".{folder.name}")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    shards = _write_shards(draft, _samples(people, maps, looks))
    manifest = PackManifest(
        source=source, looks=looks, keypoints=COCO17.name, maps=maps is not None,
        annotations_sha256=digest_of(source.annotations), teachers_sha256=teachers, shards=shards,
    )  # fmt: skip
    (draft / "manifest.json").write_text(manifest.model_dump_json(indent=2) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)
    return manifest


def _samples(
    people: list[LabelledPerson], maps: NDArray[np.floating] | None, looks: Looks
) -> Iterator[dict[str, bytes]]:
    """Files of each person, by their names."""
    for number, person in enumerate(track(people, "people", console=console)):
        photo = read_image(person.image)
        part = looks.part(person, (photo.shape[1], photo.shape[0]))
        (x, y), scale = part.to_crop(np.array([person.box.x, person.box.y])), part.matrix[0, 0]
        points = part.to_crop(person.points)
        labels = {
            "image_id": person.image_id,
            "annotation_id": person.annotation_id,
            "box": [x, y, person.box.width * scale, person.box.height * scale],
            "keypoints": [
                [*p, int(v)] for p, v in zip(points.tolist(), person.visibility, strict=True)
            ],
        }
        files = {
            f"{number:08}.jpg": encoded_picture(part.cut(photo)),
            f"{number:08}.json": json.dumps(labels).encode(),
        }
        if maps is not None:
            seen = np.clip(np.asarray(maps[number], np.float32), 0, 1)
            files[f"{number:08}.maps.png"] = _encoded(
                ".png", np.rint(255 * seen).astype(np.uint8).reshape(-1, seen.shape[-1])
            )
        yield files


def encoded_picture(pixels: NDArray[np.uint8]) -> bytes:
    """(H, W, 3) RGB to JPEG."""
    how = [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
    return _encoded(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), how)


def _encoded(kind: str, pixels: Any, how: list[int] | None = None) -> bytes:  # noqa: ANN401
    return bytes(cv2.imencode(kind, pixels, how or [])[1])


def _write_shards(folder: Path, samples: Iterator[dict[str, bytes]]) -> tuple[Shard, ...]:
    """Tar files, each as large as it may be; the same samples give the same bytes."""
    shards: list[Shard] = []
    sample = next(samples, None)
    while sample:
        path, people = folder / f"{len(shards):05}.tar", 0
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as shard:
            # A record of zeros may follow the last sample.
            while sample and shard.offset + _tar_bytes(sample) + tarfile.RECORDSIZE < LARGEST_SHARD:
                for name, content in sample.items():
                    entry = tarfile.TarInfo(name)
                    entry.size = len(content)
                    shard.addfile(entry, io.BytesIO(content))
                people += 1
                sample = next(samples, None)
        if not people:
            raise DataError(f"a person of {_tar_bytes(sample or {})} bytes is larger than a shard")
        shards.append(
            Shard(
                file=path.name, people=people, bytes=path.stat().st_size, sha256=file_digest(path)
            )
        )
    return tuple(shards)


def _tar_bytes(sample: dict[str, bytes]) -> int:
    block = tarfile.BLOCKSIZE
    return sum(block + -(-len(content) // block) * block for content in sample.values())


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Members(Generic[T]):
    """One file of each sample, read when it is asked for."""

    places: list[tuple[Path, int, int]]
    decode: Callable[[bytes], T]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int, /) -> T:
        path, start, size = self.places[index]
        with path.open("rb") as file:
            file.seek(start)
            return self.decode(file.read(size))


class Pack:
    """A pack to learn from.

    Attributes:
        manifest: what it says of itself.
        people: their points and boxes in pixels of their picture.
        pictures: of each, (H, W, 3) uint8 RGB.
        maps: of each, (K, rows, columns) float32; None without teachers.
    """

    def __init__(self, folder: Path) -> None:
        """Open it.

        Raises:
            DataError: a shard is not the one that the manifest describes.
            OSError: there is none.
            pydantic.ValidationError: what lies there is none.
        """
        self.manifest = PackManifest.model_validate_json((folder / "manifest.json").read_bytes())
        places: dict[str, list[tuple[Path, int, int]]] = {}
        for shard in self.manifest.shards:
            path = folder / shard.file
            if file_digest(path) != shard.sha256:
                raise DataError(f"{path} is not what its manifest describes: copy it again")
            with tarfile.open(path) as tar:
                for entry in tar:
                    kind = entry.name.partition(".")[2]
                    places.setdefault(kind, []).append((path, entry.offset_data, entry.size))
        labels = _Members(places.get("json", []), json.loads)
        self.people = [
            _person(labels.places[index][0], labels[index]) for index in range(len(labels))
        ]
        self.pictures = _Members(places.get("jpg", []), _picture)
        self.maps = _Members(places["maps.png"], _maps) if self.manifest.maps else None


def open_pack(experiment: Experiment, number: int) -> Pack:
    """The pack of an experiment's training set of that number.

    Raises:
        DataError: it was packed of other people, by other teachers or for other crops than the
            experiment asks for, as far as the files that it was made of are here to compare.
    """
    pack, source = Pack(experiment.pack_folder(number)), experiment.train[number]
    chosen = {"split", "unlabelled", "smallest"}
    packed = pack.manifest
    if not packed.looks.cover(Looks.of(experiment)):
        reason = "crops of another shape, or larger, wider or farther aside"
    elif packed.source.model_dump(include=chosen) != source.model_dump(include=chosen):
        reason = "other people of the set"
    elif experiment.teachers is not None and pack.maps is None:
        reason = "what teachers saw"
    elif differs(source.annotations, packed.annotations_sha256):
        reason = f"the people of {source.annotations} as it is now"
    elif experiment.teachers is not None and others(
        experiment.teachers.files, packed.teachers_sha256
    ):
        reason = "what these teachers saw"
    else:
        return pack
    raise DataError(f"{experiment.pack_folder(number)} lacks {reason}: pack it again")


def _person(shard: Path, labels: dict[str, Any]) -> LabelledPerson:
    joints = np.array(labels["keypoints"], np.float64)
    return LabelledPerson(
        shard, labels["image_id"], labels["annotation_id"], Box(*labels["box"]),
        joints[:, :2], joints[:, 2].astype(np.uint8),
    )  # fmt: skip


def _picture(content: bytes) -> NDArray[np.uint8]:
    return np.asarray(cv2.cvtColor(_pixels(content, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB), np.uint8)


def _maps(content: bytes) -> NDArray[np.float32]:
    rows = _pixels(content, cv2.IMREAD_GRAYSCALE)
    seen = rows.reshape(len(COCO17), -1, rows.shape[1])
    return np.asarray(seen / np.float32(255), np.float32)


def _pixels(content: bytes, how: int) -> NDArray[np.uint8]:
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), how)
    if pixels is None:
        raise DataError("a pack holds what is no picture")
    return np.asarray(pixels, np.uint8)
