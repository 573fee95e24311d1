"""Zip files that are damaged, odd or hostile."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from models import archive
from models.archive import Archive
from models.bundle import BUNDLES, BundleError

MANIFEST = (BUNDLES / "pose-s" / "manifest.json").read_text()
GRAPHS = list(json.loads(MANIFEST)["files"])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "theirs.zip"


@pytest.fixture
def draft(tmp_path: Path) -> Path:
    folder = tmp_path / "theirs.zip draft"
    folder.mkdir()
    return folder


def zipped(file: Path, members: dict[str, str], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(file, "w", method) as opened:
        for name, text in members.items():
            opened.writestr(name, text)
    return file


def unpacked(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def damaged_stream(data: bytearray) -> None:
    """Deflate's third kind of block, which there is not."""
    data[data.index(b"a.onnx") + len("a.onnx")] = 0xFF


def damaged_sum(data: bytearray) -> None:
    data[data.rindex(b"PK\x01\x02") + 16] ^= 0xFF


def encrypted(data: bytearray) -> None:
    data[data.index(b"PK\x03\x04") + 6] |= 1
    data[data.rindex(b"PK\x01\x02") + 8] |= 1


def of_an_unknown_method(data: bytearray) -> None:
    data[data.index(b"PK\x03\x04") + 8] = 9
    data[data.rindex(b"PK\x01\x02") + 10] = 9


@pytest.mark.parametrize("done", [damaged_stream, damaged_sum, encrypted, of_an_unknown_method])
def test_what_cannot_be_unpacked_is_said(
    file: Path, draft: Path, done: Callable[[bytearray], None]
) -> None:
    data = bytearray(zipped(file, {"a.onnx": "weights " * 100}).read_bytes())
    done(data)
    file.write_bytes(data)
    with pytest.raises(BundleError, match=r"theirs.zip cannot be unpacked, the zip is damaged or"):
        Archive(file).unpack_network(draft)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_methods_are_unpacked_unless_damaged(file: Path, draft: Path, method: int) -> None:
    data = bytearray(zipped(file, {"a.onnx": "weights " * 100}, method).read_bytes())
    assert Archive(file).unpack_network(draft).read_text() == "weights " * 100
    start = data.index(b"a.onnx") + len("a.onnx")
    data[start : start + 12] = bytes([0xFF] * 12)
    file.write_bytes(data)
    with pytest.raises(BundleError, match="cannot be unpacked"):
        Archive(file).unpack_network(draft)


def test_only_what_the_manifest_names_is_unpacked(file: Path, draft: Path) -> None:
    names = ["manifest.json", "CARD.md", *GRAPHS]
    texts = dict.fromkeys((f"a/{name}" for name in (*names, "stray.onnx", "b/CARD.md")), "")
    Archive(zipped(file, texts | {"a/manifest.json": MANIFEST})).unpack_bundle(draft)
    assert unpacked(draft) == set(names)


def test_all_that_is_unpacked_has_one_bound(
    file: Path, draft: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = {"manifest.json": MANIFEST} | dict.fromkeys(GRAPHS, "x" * 1000)
    zipped(file, members)
    monkeypatch.setattr(archive, "LARGEST_BYTES", 1000 * len(GRAPHS) - 1)
    with pytest.raises(BundleError, match="would be over"):
        Archive(file).unpack_bundle(draft)
    assert unpacked(draft) == {"manifest.json"}


def test_a_manifest_is_no_longer_than_one_can_be(file: Path, draft: Path) -> None:
    zipped(file, {"manifest.json": " " * 1_000_001})
    with pytest.raises(BundleError, match=r"manifest\.json would be over 1000000 bytes"):
        Archive(file).unpack_bundle(draft)
    assert not unpacked(draft)


def test_what_macos_adds_is_not_seen(file: Path, draft: Path) -> None:
    network = {"n/a.onnx": "weights", "__MACOSX/n/._a.onnx": "?", "n/._a.onnx": "?"}
    assert Archive(zipped(file, network)).unpack_network(draft).read_text() == "weights"
    bundle = {"m/manifest.json": MANIFEST, "__MACOSX/m/manifest.json": "?"}
    assert Archive(zipped(file, bundle)).manifest == "m/manifest.json"
