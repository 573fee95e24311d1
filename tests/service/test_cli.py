import io
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from dotenv import dotenv_values
from fastapi.testclient import TestClient
from PIL import Image
from typer.testing import CliRunner, Result

from models.bundle import BUNDLES
from service.app import create_app
from service.catalog import ServedDetector
from service.cli import app
from service.doctor import SAMPLE
from service.settings import Settings
from tests.fakes import FakeDetector, FakeHouse

SUBPOSE = [sys.executable, "-c", "from service.cli import app; app()"]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # no .env of a developer


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    shutil.copy(SAMPLE, folder / "b.jpg")
    with Image.open(SAMPLE) as image:
        image.crop((320, 0, 640, 427)).save(folder / "a.png")
    (folder / "notes.txt").write_text("no photo")
    return folder


def subpose(*arguments: str | Path, stdin: bytes | None = None, code: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)
    assert result.exit_code == code, result.output
    return result


def answers(result: Result) -> list[dict[str, object]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_version_is_the_installed_one() -> None:
    assert subpose("--version").stdout.strip() == version("subpose")


def test_predict_answers_what_the_service_answers() -> None:
    (found,) = answers(subpose("predict", SAMPLE))
    with TestClient(create_app(Settings()), base_url="http://localhost") as client:
        while client.get("/readyz").status_code != 200:
            pass
        served = client.post("/pose", content=SAMPLE.read_bytes()).json()
    only_served = {"id", "expires", "timings_ms"}
    assert found.pop("file") == str(SAMPLE)
    assert found.pop("image_id") == 1
    assert found["people"]
    assert found == {k: v for k, v in served.items() if k not in {*only_served, "image_id"}}


def test_predict_takes_the_parameters_of_the_service() -> None:
    boxes = [[95, 98, 102, 303], [200, 110, 95, 300]]
    arguments = ("predict", SAMPLE, "--boxes", json.dumps(boxes), "--head", "nerpe")
    (plain,) = answers(subpose(*arguments, "--decode", "standard", "--resolution", "40"))
    (flipped,) = answers(
        subpose(*arguments, "--decode", "standard", "--resolution", "40", "--flip")
    )
    assert (plain["detector"], plain["decode"], plain["resolution"]) == (None, "standard", 40)
    for answer in (plain, flipped):
        people = answer["people"]
        assert isinstance(people, list)
        assert [[p["box"][k] for k in ("x", "y", "width", "height")] for p in people] == boxes
    assert plain["people"] != flipped["people"]


def test_predict_gives_sigmas_of_calibrated_heads(tmp_path: Path) -> None:
    own = tmp_path / "bundles" / "pose-c"
    own.mkdir(parents=True)
    for file in (BUNDLES / "pose-s").glob("*.onnx"):
        shutil.copy(file, own)
    manifest = json.loads((BUNDLES / "pose-s" / "manifest.json").read_text())
    manifest["name"] = "pose-c"
    curve = {"raw": [0, 100], "value": [0, 100]}
    manifest["heads"]["simcc"]["calibration"] = {"score": curve, "sigma": curve}
    manifest["heads"]["heatmap"]["calibration"] = None
    (own / "manifest.json").write_text(json.dumps(manifest))
    bundles = ("--bundles", BUNDLES, "--bundles", own.parent)
    arguments = ("predict", SAMPLE, *bundles, "--model", "pose-c", "--sigma")
    (answer,) = answers(subpose(*arguments, "--head", "simcc"))
    people = answer["people"]
    assert isinstance(people, list)
    assert all(joint["sigma"] > 0 for person in people for joint in person["keypoints"])
    refused = subpose(*arguments, "--head", "heatmap", code=2)
    assert "not calibrated" in refused.stderr


def test_predict_runs_several_heads_at_once() -> None:
    (answer,) = answers(subpose("predict", SAMPLE, "--head", "heatmap,simcc", "--max-people", "1"))
    people = answer["people"]
    assert isinstance(people, list)
    (person,) = people
    assert person["heads"]["heatmap"]["keypoints"] == person["keypoints"]
    assert person["heads"].keys() == {"heatmap", "simcc"}


def test_predict_decodes_each_head_that_knows_how_as_it_is_told() -> None:
    asked = ("predict", SAMPLE, "--head", "nerpe,simcc", "--decode", "standard")
    (both,) = answers(subpose(*asked, "--resolution", "40"))
    (plain,) = answers(subpose("predict", SAMPLE, "--head", "simcc"))
    assert (both["head"], both["decode"], both["resolution"]) == ("nerpe", "standard", 40)
    people, alone = both["people"], plain["people"]
    assert isinstance(people, list)
    assert isinstance(alone, list)
    by_box = {json.dumps(person["box"]): person["keypoints"] for person in alone}
    same = [person for person in people if json.dumps(person["box"]) in by_box]
    assert same
    for person in same:
        assert person["heads"]["simcc"]["keypoints"] == by_box[json.dumps(person["box"])]


def test_predict_takes_files_folders_patterns_and_standard_input(photos: Path) -> None:
    a, b = str(photos / "a.png"), str(photos / "b.jpg")
    few = ("--max-people", "1")
    assert [x["file"] for x in answers(subpose("predict", photos, *few))] == [a, b]
    assert [x["file"] for x in answers(subpose("predict", photos / "*.jpg", a, *few))] == [b, a]
    (piped,) = answers(subpose("predict", "-", *few, stdin=SAMPLE.read_bytes()))
    (named,) = answers(subpose("predict", SAMPLE, *few))
    assert piped.pop("file") == "-"
    assert named.pop("file") == str(SAMPLE)
    assert piped == named


def test_predict_writes_json_and_picture_in_place_of_standard_output(tmp_path: Path) -> None:
    out, drawn = tmp_path / "out.json", tmp_path / "out.png"
    assert subpose("predict", SAMPLE, "--json", out, "--draw", drawn).stdout == ""
    assert json.loads(out.read_text())["people"]
    with Image.open(drawn) as picture, Image.open(SAMPLE) as photo:
        assert (picture.format, picture.size) == ("PNG", photo.size)
    assert {path.name for path in tmp_path.iterdir()} == {"out.json", "out.png"}


def test_predict_draws_several_photos_into_a_folder(photos: Path, tmp_path: Path) -> None:
    subpose("predict", photos, "--draw", tmp_path / "new" / "drawn", "--max-people", "1")
    assert {p.name for p in (tmp_path / "new" / "drawn").iterdir()} == {"a.png", "b.png"}


def coco_ids(*arguments: str | Path, code: int = 0) -> tuple[set[int], list[str]]:
    """The ids of the photos in COCO's rows, and what is said of them."""
    result = subpose("predict", *arguments, "-f", "coco", "--max-people", "1", code=code)
    (line,) = result.stdout.splitlines()
    rows = json.loads(line)
    assert all(len(row["keypoints"]) == 51 for row in rows)
    return {row["image_id"] for row in rows}, result.stderr.splitlines()


def test_coco_rows_of_all_photos_are_one_list_numbered_by_their_names(tmp_path: Path) -> None:
    names = ("000000281759.jpg", "7.jpg")
    for name in names:
        shutil.copy(SAMPLE, tmp_path / name)
    said = ["000000281759.jpg -> image_id 281759", "7.jpg -> image_id 7"]
    assert coco_ids(*names) == ({281759, 7}, said)
    assert coco_ids(*names, "--quiet") == ({281759, 7}, [])


def test_coco_photos_whose_names_are_not_all_numbers_are_numbered_by_place(photos: Path) -> None:
    shutil.copy(SAMPLE, photos / "2.jpg")
    (photos / "1.jpg").write_bytes(b"hello")
    ids, said = coco_ids(photos, code=1)
    assert ids == {2, 3, 4}  # a photo that fails keeps its number
    assert said[:4] == [
        f"{photos / name} -> image_id {number}"
        for number, name in enumerate(("1.jpg", "2.jpg", "a.png", "b.jpg"), 1)
    ]
    assert "1.jpg: " in said[4]


def test_coco_photos_whose_names_are_one_number_are_numbered_by_place(tmp_path: Path) -> None:
    for name in ("7.jpg", "007.jpg"):
        shutil.copy(SAMPLE, tmp_path / name)
    assert coco_ids("7.jpg", "007.jpg", "--quiet") == ({1, 2}, [])


def test_openpose_is_a_document_a_photo(photos: Path) -> None:
    documents = answers(subpose("predict", photos, "-f", "openpose"))
    assert [document["version"] for document in documents] == [1.3, 1.3]
    assert all(document["people"] for document in documents)


def test_a_photo_that_fails_is_named_and_the_others_answer(photos: Path) -> None:
    (photos / "c.jpg").write_bytes(SAMPLE.read_bytes()[:20_000])
    (photos / "d.jpg").write_bytes(b"hello")
    result = subpose("predict", photos, code=1)
    assert len(answers(result)) == 2
    complaints = result.stderr.splitlines()
    assert [re.findall(r"(\w\.jpg): ", line) for line in complaints] == [["c.jpg"], ["d.jpg"]]


def test_where_every_photo_fails_no_file_is_written(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(b"hello")
    subpose("predict", "x.jpg", "--json", "out.json", code=1)
    assert not (tmp_path / "out.json").exists()


def test_pictures_that_would_be_one_file_are_refused_before_the_work(tmp_path: Path) -> None:
    for name in ("x/a.jpg", "y/a.jpg", "x/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(SAMPLE, tmp_path / name)
    result = subpose("predict", "x/a.jpg", "y/a.jpg", "--draw", "out", code=2)
    (line,) = result.stderr.splitlines()
    assert all(path in line for path in ("x/a.jpg", "y/a.jpg", "out/a.png"))
    assert result.stdout == ""
    assert not (tmp_path / "out").exists()
    for photo, draw in (("x", "x"), ("x/b.png", "x/b.png")):
        assert "x/b.png" in subpose("predict", photo, "--draw", draw, code=2).stderr
    assert (tmp_path / "x" / "b.png").read_bytes() == SAMPLE.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["nowhere.jpg"], "nowhere.jpg"),
        ([str(SAMPLE), "--head", "hourglass"], "'hourglass'"),
        ([str(SAMPLE), "--head", "simcc", "--decode", "dark"], "--decode: 'dark'"),
        ([str(SAMPLE), "--head", "simcc,heatmap", "--resolution", "64"], "--resolution"),
        ([str(SAMPLE), "--head", "simcc,heatmap", "--decode", "standard"], "--decode: 'standard'"),
        ([str(SAMPLE), "--head", "nerpe", "--resolution", "5"], "--resolution: 5"),
        ([str(SAMPLE), "--boxes", "[[1, 2, 3]]"], "--boxes"),
        ([str(SAMPLE), str(SAMPLE), "--boxes", "[[1, 2, 30, 40]]"], "--boxes"),
        ([str(SAMPLE), "--max-people", "0"], "--max-people: 0"),
        ([str(SAMPLE), "--model", "hourglass"], "'hourglass'"),
        ([str(SAMPLE), "--detector", "nobody"], "'nobody'"),
        ([str(SAMPLE), "--device", "abacus"], "--device"),
        ([str(SAMPLE), "--draw", "out.gif"], "out.gif"),
        ([str(SAMPLE), "--json", "no/such/folder.json"], "no/such"),
        ([str(SAMPLE), "--bundles", "nowhere"], "there is no folder nowhere"),
        ([str(SAMPLE), "--bundles", "nowhere"], "--bundles"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(arguments: list[str], named: str) -> None:
    result = subpose("predict", *arguments, code=2)
    (line,) = result.stderr.splitlines()
    assert line.startswith("subpose: ")
    assert named in line
    assert result.stdout == ""


def test_the_help_of_predict_shows_the_form_of_boxes() -> None:
    words = re.sub(r"[\s│]+", " ", subpose("predict", "--help").stdout)
    assert "JSON [[x, y, width, height], ...] instead of a detector." in words


def test_an_interrupt_ends_with_130_and_no_traceback() -> None:
    command = [*SUBPOSE, "predict", str(SAMPLE), "-"]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # A test run in the background ignores the signal, and so would the child.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdout
        assert process.stderr
        assert json.loads(process.stdout.readline())["people"]  # now it waits for stdin
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert b"Traceback" not in process.stderr.read()


def test_models_lists_every_bundle_and_marks_the_defaults() -> None:
    lines = subpose("models").stdout
    for name in (path.name for path in BUNDLES.iterdir() if (path / "manifest.json").exists()):
        assert name in lines
    assert re.search(r"pose-s\* .*coco17 .*192x256 .*onnxruntime/cpu .*Apache-2.0", lines)
    assert re.search(r"person-n\* .*people .*Apache-2.0", lines)


def test_models_tell_detectors_without_a_bundle_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    found = FakeHouse().load(Settings())
    other = ServedDetector("other", FakeDetector("ultralytics:x.pt", device="cuda"), None)
    catalog = replace(found, detectors={"other": other, "whole": found.detectors["whole"]})
    monkeypatch.setattr("service.cli.models.load_catalog", lambda settings: catalog)
    _, _, named, whole = subpose("models").stdout.splitlines()
    assert named.split() == ["other", "people", "ultralytics:x.pt", "cuda"]
    assert "taking the photo for one person" in whole


def test_models_are_written_for_triton(tmp_path: Path) -> None:
    pytest.importorskip("tritonclient.grpc")
    lines = subpose("models", "export-triton", str(tmp_path / "repository")).stdout.split()
    assert "pose-s-encoder" in lines
    assert sorted(path.name for path in (tmp_path / "repository").iterdir()) == sorted(lines)
    assert (tmp_path / "repository" / "pose-s-encoder" / "1" / "model.onnx").is_file()


def test_settings_come_from_flag_over_environment_over_file_over_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("SUBPOSE_PORT=9001\nSUBPOSE_DEADLINE_MS=77\n")
    monkeypatch.setenv("SUBPOSE_PORT", "9002")
    lines = subpose("config").stdout.splitlines()
    assert any(line.split() == ["SUBPOSE_PORT=9002", "#", "environment"] for line in lines)
    assert any(line.split() == ["SUBPOSE_DEADLINE_MS=77", "#", ".env"] for line in lines)
    assert any(line.split() == ["SUBPOSE_HOST=127.0.0.1", "#", "default"] for line in lines)
    for name, field in Settings.model_fields.items():
        meaning = lines.index(f"# {field.description}")
        assert re.match(rf"(# )?SUBPOSE_{name.upper()}=", lines[meaning + 1])
    assert "port: 127.0.0.1:9003" in _doctor_port("--port", "9003")


def _doctor_port(*arguments: str) -> str:
    lines = CliRunner().invoke(app, ["doctor", *arguments]).stdout.splitlines()
    return "".join(re.sub(r"ok +port +", "port: ", line) for line in lines if " port " in line)


def test_config_hides_keys_and_reads_back_as_an_env_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUBPOSE_API_KEYS", "open-sesame,friend")
    monkeypatch.setenv("SUBPOSE_HOSTS", "pose.example,localhost")
    text = subpose("config").stdout
    assert "sesame" not in text
    assert "friend" not in text
    values = dotenv_values(stream=io.StringIO(text))
    assert values.keys() == {
        f"SUBPOSE_{name.upper()}"
        for name in Settings.model_fields
        if getattr(Settings(), name) is not None
    }
    monkeypatch.delenv("SUBPOSE_API_KEYS")
    before = Settings()
    for name, value in values.items():
        if name != "SUBPOSE_API_KEYS":
            monkeypatch.setenv(name, str(value))
    assert Settings() == before


@pytest.mark.parametrize("command", ["serve", "predict -", "models", "doctor", "config"])
def test_every_command_refuses_an_unknown_setting(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUBPOSE_PROT", "8001")
    (line,) = subpose(*command.split(), code=2).stderr.splitlines()
    assert line == "subpose: there is no setting SUBPOSE_PROT; did you mean SUBPOSE_PORT?"


def test_a_setting_that_cannot_be_is_named_as_it_was_given(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SUBPOSE_PORT", "many")
    (tmp_path / ".env").write_text("SUBPOSE_THREADS=none\n")
    (line,) = subpose(
        "serve", "--metrics-port", "99999", "--device", "abacus", code=2
    ).stderr.splitlines()
    for name in ("SUBPOSE_PORT: ", "SUBPOSE_THREADS: ", "--metrics-port: ", "--device: "):
        assert name in line
    assert "SUBPOSE_DEVICE" not in line


def test_a_port_that_is_taken_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for flag in ("--port", "--metrics-port"):
            other = "--metrics-port" if flag == "--port" else "--port"
            asked = ("serve", flag, port, other, "0", "--bundles", tmp_path / "nowhere")
            result = subpose(*asked, code=1)
            (line,) = result.stderr.splitlines()
            assert f"127.0.0.1:{port}" in line
            assert flag in line


@pytest.mark.parametrize(
    ("host", "why"),
    [
        ("192.0.2.1", "Cannot assign requested address"),
        ("no..name", "no name that a host could have"),
    ],
)
def test_a_host_that_is_not_this_machine_is_not_taken_for_a_port(host: str, why: str) -> None:
    (line,) = subpose("serve", "--host", host, code=1).stderr.splitlines()
    assert why in line
    assert "--host" in line
    assert "end what listens" not in line


@pytest.mark.parametrize(
    ("host", "keys", "warned"), [("0.0.0.0", "", 1), ("0.0.0.0", "a", 0), ("127.0.0.1", "", 0)]
)
def test_serve_warns_where_strangers_could_see_the_newest_photo(
    host: str, keys: str, warned: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUBPOSE_API_KEYS", keys)
    where = ("--host", host, "--port", "0", "--bundles", str(tmp_path))  # it ends: no bundles
    ended = subprocess.run(
        [*SUBPOSE, "serve", "--latest", *where], capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 2, ended.stderr
    warnings = [line for line in ended.stderr.splitlines() if "WARNING" in line]
    assert len(warnings) == warned
    assert all("SUBPOSE_LATEST=false" in line for line in warnings)


def test_a_device_that_is_missing_is_wrong_configuration() -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine has the device")
    command = [*SUBPOSE, "serve", "--port", "0", "--device", "cuda"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2, ended.stderr
    assert "CUDAExecutionProvider" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.fixture
def server() -> Iterator[subprocess.Popen[str]]:
    command = [*SUBPOSE, "serve", "--port", "0", "--latest"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    yield process
    process.kill()
    process.wait()
    assert process.stderr
    process.stderr.close()


def test_serve_listens_where_its_flags_say_and_ends_in_order(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setenv("SUBPOSE_PORT", "1")
    process: subprocess.Popen[str] = request.getfixturevalue("server")
    assert process.stderr
    ready = (re.search(r"ready on (http://\S+)", line) for line in process.stderr)
    base = next(match[1] for match in ready if match)
    with urllib.request.urlopen(f"{base}/readyz", timeout=10) as answer:
        assert answer.status == 200
    post = urllib.request.Request(f"{base}/pose", SAMPLE.read_bytes(), method="POST")
    with urllib.request.urlopen(post, timeout=30) as answer:
        assert json.load(answer)["people"]
    with urllib.request.urlopen(f"{base}/heatmap?format=npy", timeout=30) as answer:
        assert np.load(io.BytesIO(answer.read())).ndim == 3
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
