"""The README's own lines, on the committed weights."""

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.bundle import BUNDLES, load_bundle
from tests.http.serving import Running, running

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
LINES = re.findall(r"^curl .*$", README, re.MULTILINE)


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running(None, latest=True) as there:
        yield there


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "service/page/sample.jpg", tmp_path / "photo.jpg")
    return tmp_path


def run(line: str, server: Running, folder: Path) -> bytes:
    command = shlex.split(line.replace("http://127.0.0.1:8000", server.url))
    done = subprocess.run(
        [*command, "--silent", "--show-error", "--fail-with-body"],
        cwd=folder,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, (line, done.stdout, done.stderr)
    if "-o" in command:
        return (folder / command[command.index("-o") + 1]).read_bytes()
    return done.stdout


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("line", LINES)
def test_a_line_of_the_readme_answers(line: str, server: Running, folder: Path) -> None:
    if "/heatmap" in line:
        run(LINES[0], server, folder)
    answer = run(line, server, folder)
    if line.endswith(".png"):
        assert answer.startswith(b"\x89PNG")
        return
    content = json.loads(answer)
    for photo in content.get("results", [content]):
        assert photo["people"], "the sample shows people"
        assert {"name", "x", "y", "score"} <= set(photo["people"][0]["keypoints"][0])


def test_the_readme_has_lines_to_test() -> None:
    assert len(LINES) >= 5


def test_the_answer_it_shows_is_one_of_the_default_head() -> None:
    (text,) = re.findall(r"```json\n(.*?)```", README, re.DOTALL)
    shown, heads = json.loads(text), load_bundle(BUNDLES / "pose-s").pose
    decode = getattr(heads.heads, heads.default_head).decode
    assert (shown["head"], shown["decode"]) == (heads.default_head, decode)
    box, image = shown["people"][0]["box"], shown["image"]
    assert box["x"] + box["width"] <= image["width"]
    assert box["y"] + box["height"] <= image["height"]
