"""Zip files with a bundle or a network in them: only what is looked for is unpacked."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path, PurePosixPath

from models.bundle import BundleError

LARGEST_BYTES = 2_000_000_000
"""Of a file unpacked, about what an ONNX file can have."""

MANIFEST, CARD = "manifest.json", "CARD.md"


class Archive:
    """A zip file's members, by what they are; nothing is written before a method is asked to.

    Members are found by their whole path and written under their last name alone, so that no path
    leads out of the folder.
    """

    def __init__(self, file: Path) -> None:
        """Read its table of contents.

        Raises:
            BundleError: it is no zip file.
        """
        self._file = file
        try:
            with zipfile.ZipFile(file) as opened:
                self._members = [info.filename for info in opened.infolist() if not info.is_dir()]
        except zipfile.BadZipFile as error:
            raise BundleError(f"{file.name} is no zip file: {error}") from error

    @property
    def manifest(self) -> str | None:
        """The path of a bundle's manifest, if it holds one."""
        found = [path for path in self._members if PurePosixPath(path).name == MANIFEST]
        return found[0] if len(found) == 1 else None

    def unpack_bundle(self, draft: Path) -> None:
        """Write the manifest and what lies beside it: graphs and the card.

        Raises:
            BundleError: a file is too large.
        """
        manifest = self.manifest
        assert manifest is not None
        for path in self._members:
            name = PurePosixPath(path)
            ours = name.suffix == ".onnx" or name.name in (MANIFEST, CARD)
            if ours and name.parent == PurePosixPath(manifest).parent:
                self._write(path, draft)

    def unpack_network(self, folder: Path) -> Path:
        """Write its one ONNX file, as mmdeploy's zip files have it.

        Raises:
            BundleError: it has none, or several.
        """
        found = [path for path in self._members if path.endswith(".onnx")]
        if len(found) != 1:
            listed = ", ".join(found) or "no ONNX file"
            raise BundleError(
                f"{self._file.name} holds {listed}; expected a bundle with its manifest.json, or "
                "one ONNX file"
            )
        return self._write(found[0], folder)

    def _write(self, path: str, folder: Path) -> Path:
        target = folder / PurePosixPath(path).name
        with zipfile.ZipFile(self._file) as opened:
            if opened.getinfo(path).file_size > LARGEST_BYTES:
                raise BundleError(f"{self._file.name}: {path} is over {LARGEST_BYTES} bytes")
            # No more is ever read than the size that is stated.
            with opened.open(path) as source, target.open("wb") as written:
                shutil.copyfileobj(source, written)
        return target
