"""What the Makefile tells the service, by make itself."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@pytest.mark.parametrize(
    ("file", "environment", "told"),
    [
        (None, {}, "true"),
        ("DEBUG=1\nSUBPOSE_PORT=1\n# SUBPOSE_LATEST=false\n", {}, "true"),
        ("SUBPOSE_LATEST=false\n", {}, "nothing"),
        ("DEBUG=1\nexport subpose_latest = false\n", {}, "nothing"),
        (None, {"SUBPOSE_LATEST": "false"}, "false"),
        ("SUBPOSE_LATEST=true\n", {"SUBPOSE_LATEST": "false"}, "false"),
    ],
)
def test_serve_lets_heatmaps_be_of_the_newest_photo_where_nobody_says_otherwise(
    file: str | None, environment: dict[str, str], told: str, tmp_path: Path
) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    if file:
        (tmp_path / ".env").write_text(file)
    command = tmp_path / "venv" / "bin" / "subpose"
    command.parent.mkdir(parents=True)
    command.write_text('#!/bin/sh\necho "$1 ${SUBPOSE_LATEST-nothing}"\n')
    command.chmod(0o755)
    (tmp_path / "venv" / ".light").touch()  # installed
    done = subprocess.run(
        ["make", "-s", "serve", "VENV=venv"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == (f"serve {told}\n", "")
