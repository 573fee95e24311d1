import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.bundle import BUNDLES, BundleError, find_bundles, load_bundle

GRAPH = b"what a graph's bytes are does not matter here"
DIGEST = hashlib.sha256(GRAPH).hexdigest()

Change = Callable[[dict[str, Any]], object]


def _pose() -> dict[str, Any]:
    names = ("encoder.onnx", "simcc.onnx", "heatmap.onnx", "cells.onnx", "field.onnx")
    return {
        "schema_version": 1,
        "name": "tiny",
        "kind": "pose",
        "input": {"width": 64, "height": 64, "largest_batch": 4},
        "files": dict.fromkeys(names, DIGEST),
        "licence": "Apache-2.0",
        "provenance": {"data": "none", "start": "none", "recipe": "none", "date": "2026-11-21"},
        "accuracy": {"coco/dev AP": 0.5},
        "keypoint_set": "coco17",
        "crop": {"matrix": "udp", "padding": 1.25},
        "encoder": "encoder.onnx",
        "feature_shape": [40, 16, 16],
        "heads": {
            "simcc": {
                "graph": "simcc.onnx", "split": 2, "sigma": [4, 4], "decode": "expectation",
            },
            "nerpe": {
                "cells": "cells.onnx", "graph": "field.onnx", "width": 4, "height": 4,
                "sigma": 0.06, "decode": "progressive", "resolution": 512,
            },
            "heatmap": {
                "graph": "heatmap.onnx", "width": 16, "height": 16, "grid": "udp",
                "sigma": 2, "blur": 11, "decode": "dark",
            },
        },
        "default_head": "simcc",
    }  # fmt: skip


def _detector() -> dict[str, Any]:
    pose = _pose()
    common = {k: pose[k] for k in ("schema_version", "input", "licence", "provenance", "accuracy")}
    return common | {
        "name": "tiny-detector",
        "kind": "detector",
        "files": {"graph.onnx": DIGEST},
        "graph": "graph.onnx",
        "decoder": "rtmdet",
        "score_threshold": 0.3,
        "nms_threshold": 0.6,
    }


def _write(folder: Path, manifest: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in manifest.get("files", {}):
        if Path(name).name == name != ".." and "\0" not in name:
            (folder / name).write_bytes(GRAPH)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_a_whole_bundle_loads(tmp_path: Path) -> None:
    bundle = load_bundle(_write(tmp_path / "tiny", _pose()))
    assert bundle.pose.heads.names == ("simcc", "nerpe", "heatmap")
    assert bundle.pose.feature_shape == (40, 16, 16)
    assert bundle.file("simcc.onnx").read_bytes() == GRAPH
    with pytest.raises(BundleError, match="tiny is a pose bundle, not a detector"):
        _ = bundle.detector
    detector = load_bundle(_write(tmp_path / "other", _detector()))
    assert detector.detector.decoder == "rtmdet"
    with pytest.raises(BundleError, match="tiny-detector is a detector bundle, not a pose one"):
        _ = detector.pose


def test_the_digest_is_of_what_bears_on_answers(tmp_path: Path) -> None:
    folder = _write(tmp_path / "tiny", _pose())
    first = load_bundle(folder).digest
    assert first.startswith("sha256:")
    (folder / "CARD.md").write_text("a card beside the weights changes nothing")
    assert load_bundle(folder).digest == first
    measured = _pose() | {"accuracy": {"coco/dev AP": 0.6}}
    assert load_bundle(_write(tmp_path / "tiny", measured)).digest == first
    cropped = _pose() | {"crop": {"matrix": "udp", "padding": 1.5}}
    assert load_bundle(_write(tmp_path / "tiny", cropped)).digest != first
    (folder / "simcc.onnx").write_bytes(GRAPH + b"other")
    files = _pose()["files"] | {"simcc.onnx": hashlib.sha256(GRAPH + b"other").hexdigest()}
    changed = _pose() | {"files": files}
    (folder / "manifest.json").write_text(json.dumps(changed))
    assert load_bundle(folder).digest != first


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(extra=1), "extra: Extra inputs are not permitted"),
        (lambda m: m["input"].update(size=1), r"input\.size: Extra inputs"),
        (lambda m: m["heads"].update(paf={}), r"heads\.paf: Extra inputs"),
        (lambda m: m["heads"]["simcc"].update(k=2), r"heads\.simcc\.k: Extra inputs"),
        (lambda m: m.pop("licence"), "licence: Field required"),
        (lambda m: m.pop("kind"), "kind"),
        (lambda m: m.update(kind="segmenter"), "'segmenter'"),
        (lambda m: m.update(schema_version=2), "schema_version: Input should be 1"),
        (lambda m: m.update(name="../tiny"), "name: String should match"),
        (lambda m: m.update(keypoint_set="coco18"), "'coco18' is not one of coco17, lsp14"),
        (lambda m: m.update(default_head="dark"), "default_head"),
        (lambda m: m["heads"].pop("heatmap"), "are not the graphs"),
        (lambda m: m.update(heads={}), "'simcc' is not among the heads"),
        (lambda m: m["heads"]["heatmap"].update(blur=4), "must be odd"),
        (lambda m: m["heads"]["simcc"].update(split=0.5), r"split: Input should be greater"),
        (lambda m: m["heads"]["nerpe"].update(resolution=8), "resolution: Input should be"),
        (lambda m: m["crop"].update(matrix="affine"), r"crop\.matrix: Input should be 'legacy'"),
        (lambda m: m["input"].update(channels="BGR"), "takes NHWC uint8 RGB"),
        (lambda m: m["input"].update(layout="NCHW"), "takes NHWC uint8 RGB"),
        (
            lambda m: m["input"].update(normalisation={"mean": [0, 0, 0], "std": [1, 1, 1]}),
            "normalises it itself",
        ),
        (lambda m: m["files"].update({"more.onnx": DIGEST}), r"more\.onnx.* are not the graphs"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused_by_name(
    tmp_path: Path, change: Change, message: str
) -> None:
    manifest = _pose()
    change(manifest)
    with pytest.raises(BundleError, match=message) as error:
        load_bundle(_write(tmp_path / "tiny", manifest))
    assert str(error.value).startswith("tiny/manifest.json: ")


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b"\xff\xfe", b'"pose"', b"null"])
def test_a_manifest_that_is_none_is_refused(tmp_path: Path, text: bytes) -> None:
    (_write(tmp_path / "tiny", _pose()) / "manifest.json").write_bytes(text)
    with pytest.raises(BundleError, match=r"^tiny/manifest\.json: "):
        load_bundle(tmp_path / "tiny")


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"no readable manifest\.json \(No such file"):
        load_bundle(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(BundleError, match="Not a directory"):
        load_bundle(tmp_path / "file")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    folder = _write(tmp_path / "tiny", _pose())
    (folder / "field.onnx").unlink()
    with pytest.raises(BundleError, match=r"tiny: field\.onnx cannot be read \(No such file"):
        load_bundle(folder)


def test_a_changed_file_is_refused_with_both_digests(tmp_path: Path) -> None:
    folder = _write(tmp_path / "tiny", _pose())
    (folder / "simcc.onnx").write_bytes(GRAPH + b"!")
    found = hashlib.sha256(GRAPH + b"!").hexdigest()
    with pytest.raises(
        BundleError, match=rf"simcc\.onnx has sha256 {found}.* says {DIGEST}.*again"
    ):
        load_bundle(folder)


@pytest.mark.parametrize("name", ["../encoder.onnx", "/etc/passwd", "a/encoder.onnx", "..", "a\0b"])
def test_a_file_outside_the_bundle_is_refused_though_its_digest_fits(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / "encoder.onnx").write_bytes(GRAPH)
    manifest = _pose()
    manifest["files"][name] = manifest["files"].pop("encoder.onnx")
    manifest["encoder"] = name
    with pytest.raises(BundleError, match=r"not a plain name|cannot be read"):
        load_bundle(_write(tmp_path / "tiny", manifest))


def test_bundles_are_found_by_their_folders(tmp_path: Path) -> None:
    for name in ("pose-m", "pose-a", ".export-x"):
        _write(tmp_path / name, _pose())
    (tmp_path / "notes").mkdir()
    (tmp_path / "manifest.json").touch()
    found = find_bundles(tmp_path)
    assert list(found.items()) == [(n, tmp_path / n) for n in ("pose-a", "pose-m")]
    assert find_bundles(tmp_path / "nowhere") == {}


def test_the_committed_bundles_are_whole_and_carry_their_folder_s_name() -> None:
    found = find_bundles()
    assert {"pose-s", "person-n"} <= set(found)
    for name, path in found.items():
        assert path.parent == BUNDLES
        assert load_bundle(path).manifest.name == name
