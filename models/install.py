"""A bundle takes its place among others: verified first, whole or not at all."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from models.bundle import Bundle, BundleError, find_bundles, load_bundle
from models.manifest import NAME


@contextmanager
def drafting(folder: Path, source: str) -> Iterator[Path]:
    """An empty folder for a bundle, hidden beside the others of a folder, gone at the end.

    Args:
        folder: of bundles.
        source: name of the file that it is made of, by which complaints of it go.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".draft-") as temporary:
        draft = Path(temporary) / source  # readable for others, as a temporary one is not
        draft.mkdir()
        yield draft


def free_place(
    name: str, folder: Path, *, among: Sequence[Path] = (), replace: bool = False
) -> Path:
    """Where a bundle of a name will lie.

    Args:
        name: of the bundle.
        folder: of bundles.
        among: the folders that are served together, in which a name is there once.
        replace: one of that name.

    Raises:
        BundleError: the name is none, or is taken.
    """
    if not re.fullmatch(NAME, name):
        raise BundleError(
            f"--name: {name!r} is not lower-case letters, digits and . _ -, 64 at the most"
        )
    for other in among:
        if other.resolve() != folder.resolve() and name in find_bundles(other):
            raise BundleError(f"{other / name} has that name already: choose another --name")
    place = folder / name
    if place.exists() and not replace:
        raise BundleError(f"{place} is there already: choose another --name, or --replace it")
    return place


def install(
    draft: Path, folder: Path, *, among: Sequence[Path] = (), replace: bool = False
) -> Bundle:
    """Move a bundle into a folder of bundles, under its manifest's name.

    Args:
        draft: within `drafting` of that folder.
        folder: of bundles.
        among: the folders that are served together, in which a name is there once.
        replace: one of that name.

    Raises:
        BundleError: the draft is no bundle, or its name is taken.
    """
    bundle = load_bundle(draft)
    place = free_place(bundle.manifest.name, folder, among=among, replace=replace)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".replaced-") as temporary:
        old = Path(temporary) / place.name
        try:
            if place.exists():
                place.rename(old)
            draft.rename(place)
        except BaseException:  # an interrupt too
            if old.exists() and not place.exists():
                old.rename(place)
            raise
    return Bundle(place, bundle.manifest, bundle.digest)
