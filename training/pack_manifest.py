"""What a pack says of itself, and whether that is what lies here."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from models.bundle import file_digest, load_bundle
from models.strict import Strict
from training.config import DataSource
from training.looks import Looks


class Shard(Strict):
    """A file of a pack."""

    file: str
    people: int
    bytes: int
    sha256: str


class PackManifest(Strict):
    """A pack's `manifest.json`.

    Attributes:
        source: the set that was packed.
        looks: the crops that it was packed for.
        keypoints: the set of its joints.
        maps: whether it has what the teachers saw.
        annotations_sha256: of the file that the people were read from.
        teachers_sha256: of the teachers' files, in their order.
        shards: in order.
    """

    schema_version: Literal[1] = 1
    source: DataSource
    looks: Looks
    keypoints: str
    maps: bool
    annotations_sha256: str | None = None
    teachers_sha256: tuple[str | None, ...] = ()
    shards: tuple[Shard, ...]


def digest_of(path: Path) -> str | None:
    """sha256 of a file, or of a bundle's weights.

    None where there is none, as a pack travels without what it is made of.
    """
    if (path / "manifest.json").is_file():
        return load_bundle(path).digest
    return file_digest(path) if path.is_file() else None


def differs(path: Path, packed: str | None) -> bool:
    """Whether a file that is here is not the one of that sha256."""
    return packed is not None and digest_of(path) not in (None, packed)


def others(files: list[Path], packed: tuple[str | None, ...]) -> bool:
    """Whether the teachers are not those of the pack."""
    return len(files) != len(packed) or any(map(differs, files, packed))
