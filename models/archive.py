"""Zip files with a bundle or a network in them: only what is looked for is unpacked."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from models.bundle import BundleError, read_manifest

LARGEST_BYTES = 2_000_000_000
"""Of all that is unpacked, about what an ONNX file can have."""

LARGEST_MANIFEST_BYTES = 1_000_000

MANIFEST, CARD = "manifest.json", "CARD.md"


class Archive:
    """A zip file's members, by what they are; nothing is written before a method is asked to.

    Members are found by their whole path and written under their last name alone, so that no path
    leads out of the folder.
    """

    def __init__(self, file: Path) -> None:
        """Read its table of contents.

        Raises:
            BundleError: it is no zip file, or a damaged one.
        """
        self._file = file
        with self._opened() as opened:
            self._members = [
                info.filename
                for info in opened.infolist()
                if not info.is_dir() and not _of_macos(PurePosixPath(info.filename))
            ]

    @property
    def manifest(self) -> str | None:
        """The path of a bundle's manifest, if it holds one."""
        found = [path for path in self._members if PurePosixPath(path).name == MANIFEST]
        return found[0] if len(found) == 1 else None

    def unpack_bundle(self, draft: Path, *, name: str | None = None) -> None:
        """Write the manifest, and of what lies beside it what that names, and the card.

        Args:
            draft: an empty folder.
            name: that the manifest gets in place of its own.

        Raises:
            BundleError: it cannot be unpacked, is too large, or the manifest is none.
        """
        path = self.manifest
        assert path is not None
        self._write([path], draft, LARGEST_MANIFEST_BYTES)
        manifest = read_manifest(draft)
        if name:
            written = draft / MANIFEST
            text = json.dumps(json.loads(written.read_bytes()) | {"name": name}, indent=2)
            written.write_text(text + "\n")
        beside = {str(PurePosixPath(path).parent / file) for file in (*manifest.files, CARD)}
        self._write([member for member in self._members if member in beside], draft, LARGEST_BYTES)

    def unpack_network(self, folder: Path) -> Path:
        """Write its one ONNX file, as mmdeploy's zip files have it.

        Raises:
            BundleError: it has none, or several, or it cannot be unpacked.
        """
        found = [path for path in self._members if path.endswith(".onnx")]
        if len(found) != 1:
            listed = ", ".join(found) or "no ONNX file"
            raise BundleError(
                f"{self._file.name} holds {listed}; expected a bundle with its manifest.json, or "
                "one ONNX file"
            )
        self._write(found, folder, LARGEST_BYTES)
        return folder / PurePosixPath(found[0]).name

    def _write(self, paths: Collection[str], folder: Path, largest: int) -> None:
        with self._opened() as opened:
            # No more is ever read of a member than the size that is stated.
            if sum(opened.getinfo(path).file_size for path in paths) > largest:
                listed = ", ".join(paths)
                raise BundleError(f"{self._file.name}: {listed} would be over {largest} bytes")
            for path in paths:
                target = folder / PurePosixPath(path).name
                with opened.open(path) as source, target.open("wb") as written:
                    shutil.copyfileobj(source, written)

    @contextmanager
    def _opened(self) -> Iterator[zipfile.ZipFile]:
        try:
            with zipfile.ZipFile(self._file) as opened:
                yield opened
        except BundleError:
            raise
        except Exception as error:  # zipfile and what it unpacks with have no common base
            if isinstance(error, OSError) and error.errno:  # the disk's, not bzip2's
                raise
            reason = str(error) or type(error).__name__
            raise BundleError(
                f"{self._file.name} cannot be unpacked, the zip is damaged or of a kind that is "
                f"not read here: {reason}"
            ) from error


def _of_macos(path: PurePosixPath) -> bool:
    """Whether it holds what macOS knows of another file, under nearly its name."""
    return path.parts[:1] == ("__MACOSX",) or path.name.startswith("._")
