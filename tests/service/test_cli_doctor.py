import re
import shutil
import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner

from models.bundle import BUNDLES
from service import doctor
from service.cli import app


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def failures(*arguments: str, code: int = 1) -> dict[str, str]:
    """By check: what was found and the remedy."""
    result = CliRunner().invoke(app, ["doctor", "--port", "0", *arguments])
    assert result.exit_code == code, result.output
    lines = result.stdout.splitlines()
    return {
        line.split()[1]: f"{line} {remedy.strip()}"
        for line, remedy in zip(lines, [*lines[1:], ""], strict=True)
        if line.startswith("FAIL")
    }


def test_a_sound_installation_passes_every_check() -> None:
    result = CliRunner().invoke(app, ["doctor", "--port", "0"])
    assert result.exit_code == 0, result.stdout
    checks = [line.split()[1] for line in result.stdout.splitlines()]
    expected = {
        "python",
        "onnxruntime",
        "device",
        "cv2",
        "images",
        "bundle",
        "photo",
        "memory",
        "port",
    }
    assert set(checks) == expected
    assert re.search(r"[1-9]\d* (person|people) found in the sample", result.stdout)


def test_a_port_that_is_taken_is_named_with_the_remedy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        found = failures("--port", port)
    assert found.keys() == {"port"}
    assert port in found["port"]
    assert "--port" in found["port"]


def test_two_wheels_with_one_import_name_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    both = {"onnxruntime": ["onnxruntime", "onnxruntime-gpu"], "cv2": ["opencv-python-headless"]}
    monkeypatch.setattr(doctor, "packages_distributions", lambda: both)
    found = failures()
    assert found.keys() == {"onnxruntime"}
    assert "pip uninstall onnxruntime onnxruntime-gpu" in found["onnxruntime"]


def test_a_damaged_bundle_is_named(tmp_path: Path) -> None:
    shutil.copytree(BUNDLES, tmp_path / "bundles")
    graph = tmp_path / "bundles" / "person-n" / "detector.onnx"
    data = bytearray(graph.read_bytes())
    data[len(data) // 2] ^= 1
    graph.write_bytes(data)
    found = failures("--bundles", str(tmp_path / "bundles"))
    assert found.keys() == {"bundle", "photo"}
    assert "detector.onnx" in found["bundle"]


def test_no_bundles_are_named(tmp_path: Path) -> None:
    assert failures("--bundles", str(tmp_path)).keys() == {"bundle", "photo"}


def test_a_device_that_is_missing_is_a_failure_and_not_the_cpu() -> None:
    found = failures("--device", "cuda")
    assert found.keys() == {"device", "photo"}
    assert "CUDAExecutionProvider" in found["device"]


def test_too_little_memory_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_free_memory", lambda: 200_000_000)
    assert "0.2 GB" in failures()["memory"]


def test_free_memory_is_told_in_bytes() -> None:
    free = doctor._free_memory()
    assert free is None or 10_000_000 < free < 10**14
