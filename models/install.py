"""A bundle takes its place among others: verified first, whole or not at all."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from models.bundle import Bundle, BundleError, find_bundles, load_bundle


@contextmanager
def drafting(folder: Path) -> Iterator[Path]:
    """An empty folder for a bundle, hidden beside the others of a folder, gone at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".draft-") as temporary:
        draft = Path(temporary) / "bundle"  # readable for others, as a temporary one is not
        draft.mkdir()
        yield draft


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
    name = bundle.manifest.name
    for other in among:
        if other != folder and name in find_bundles(other):
            raise BundleError(f"{other / name} has that name already: choose another --name")
    place = folder / name
    if place.exists():
        if not replace:
            raise BundleError(f"{place} is there already: choose another --name, or --replace it")
        place.rename(draft.with_name("replaced"))
    draft.rename(place)
    return Bundle(place, bundle.manifest, bundle.digest)
