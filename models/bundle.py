"""A bundle: a folder of weights that describes itself in `manifest.json`.

Loaded strictly: an unknown field, a missing file or a wrong digest is refused by name. Nothing is
ever unpickled; weights are ONNX files.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from models.manifest import MANIFEST, DetectorManifest, Manifest, PoseManifest

BUNDLES = Path(__file__).parent / "bundles"
"""The committed weights."""


class BundleError(Exception):
    """A bundle that cannot be loaded; the message says which, why and what to do."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A folder of verified weights."""

    path: Path
    manifest: Manifest
    digest: str
    """By `weights_digest`."""

    def file(self, name: str) -> Path:
        """Where one of the manifest's files lies."""
        return self.path / name

    @property
    def pose(self) -> PoseManifest:
        """The manifest of a pose bundle.

        Raises:
            BundleError: it is a detector's.
        """
        if not isinstance(self.manifest, PoseManifest):
            raise BundleError(
                f"{self.manifest.name} is a {self.manifest.kind} bundle, not a pose one"
            )
        return self.manifest

    @property
    def detector(self) -> DetectorManifest:
        """The manifest of a detector bundle.

        Raises:
            BundleError: it is a pose model's.
        """
        if not isinstance(self.manifest, DetectorManifest):
            raise BundleError(
                f"{self.manifest.name} is a {self.manifest.kind} bundle, not a detector"
            )
        return self.manifest


def load_bundle(path: Path) -> Bundle:
    """Read and verify a bundle.

    Args:
        path: the bundle's folder.

    Raises:
        BundleError: no manifest, one that does not fit the schema, a file that is missing, lies
            outside the folder or does not have the digest that the manifest states.
    """
    manifest = read_manifest(path)
    for name, stated in manifest.files.items():
        try:
            found = file_digest(path / name)
        except OSError as error:
            raise BundleError(f"{path.name}: {name} cannot be read ({error.strerror})") from error
        if found != stated:
            raise BundleError(
                f"{path.name}: {name} has sha256 {found}, the manifest says {stated}; "
                "fetch or export the bundle again"
            )
    return Bundle(path, manifest, weights_digest(manifest))


def read_manifest(path: Path) -> Manifest:
    """Read what a bundle says of itself, its files unseen.

    Args:
        path: the bundle's folder.

    Raises:
        BundleError: no manifest, one that does not fit the schema, or a file of it lies outside
            the folder.
    """
    source = path / "manifest.json"
    try:
        text = source.read_bytes()
    except OSError as error:
        raise BundleError(f"{path.name}: no readable manifest.json ({error.strerror})") from error
    try:
        manifest = MANIFEST.validate_json(text)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc'])) or 'manifest'}: {problem['msg']}"
            for problem in error.errors()
        )
        raise BundleError(f"{path.name}/manifest.json: {problems}") from error
    for name in manifest.files:
        if Path(name).name != name or "\0" in name:
            raise BundleError(f"{path.name}: file {name!r} is not a plain name inside the bundle")
    return manifest


def weights_digest(manifest: Manifest) -> str:
    """`sha256:` and the digest of every file and of how they are used: all that bears on answers.

    What is merely said of the weights, as their accuracy is, may change without them.
    """
    text = manifest.model_dump_json(exclude={"accuracy", "provenance", "licence", "default_head"})
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def find_bundles(folder: Path = BUNDLES) -> dict[str, Path]:
    """The bundles of a folder by name: each subfolder that has a manifest, in order.

    Hidden ones, in which an export writes its draft, do not count.
    """
    return {path.parent.name: path.parent for path in sorted(folder.glob("[!.]*/manifest.json"))}


def bundle_path(which: str | Path, *besides: str) -> Path:
    """Where a bundle lies that somebody asks for.

    Args:
        which: the name of a committed one, or the path of one.
        besides: other names that could have been given, for who is refused to read.

    Raises:
        BundleError: neither.
    """
    committed = find_bundles()
    path = committed.get(str(which), Path(which))
    if not path.is_dir():
        known = ", ".join([*committed, *besides])
        raise BundleError(f"no bundle {str(which)!r}: give one of {known}, or a bundle's folder")
    return path


def file_digest(path: Path) -> str:
    """sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
