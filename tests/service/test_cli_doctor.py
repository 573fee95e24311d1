import re
import shutil
import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner

from models.bundle import BUNDLES
from service import doctor
from service.cli import app

free_memory = doctor._free_memory


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # What a busy machine has left is not what most tests here are about.
    monkeypatch.setattr(doctor, "_free_memory", lambda: 10**10)


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
    free = free_memory()
    assert free is None or 10_000_000 < free < 10**14


def test_what_a_group_may_take_counts_no_cache_that_goes_when_there_is_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"max": "5000000", "current": "4900000", "stat": "anon 9\ninactive_file 4000000\n"}
    for name, text in files.items():
        (tmp_path / f"memory.{name}").write_text(text)
    monkeypatch.setattr(doctor, "_GROUP", tmp_path)
    assert free_memory() in (4_100_000, None)
