import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

import training.card
from models.bundle import BUNDLES
from training import cli
from training.cli import app
from training.detector import cli as detector
from training.errors import ExportError

EXPERIMENTS = Path(__file__).parents[2] / "training" / "experiments"
POSE = str(EXPERIMENTS / "pose-s.toml")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "README.md").write_text("no marks")


def complaint(*arguments: str, code: int) -> str:
    """The one line that a command which fails has to say."""
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == code, result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("subpose-train: ")
    return line


def changed(path: str, old: str, new: str) -> str:
    """An experiment, copied with a mistake in it."""
    text = Path(path).read_text()
    assert old in text
    copy = Path("changed.toml")
    copy.write_text(text.replace(old, new, 1))
    return str(copy)


def test_help_says_what_the_command_is_for_and_lists_the_splits() -> None:
    general = CliRunner().invoke(app, ["--help"])
    assert "Make the weights that subpose serves" in " ".join(general.stdout.split())
    evaluate = CliRunner().invoke(app, ["evaluate", "--help"], env={"COLUMNS": "200"})
    assert "coco/dev|coco/val|lspet/val" in evaluate.stdout


@pytest.mark.parametrize("command", ["prepare", "pack", "train", "export", "card"])
def test_an_experiment_that_is_no_toml_is_named_with_the_line(command: str) -> None:
    Path("broken.toml").write_text("name = 'x'\nsteps 7\n")
    line = complaint(command, "broken.toml", code=2)
    assert "TOML" in line
    assert "line 2" in line


def test_a_field_that_no_experiment_has_is_named() -> None:
    config = changed(POSE, "[schedule]\n", "[schedule]\nstepz = 7\n")
    assert "schedule.stepz" in complaint("prepare", config, code=2)
    config = changed(str(EXPERIMENTS / "person-n.toml"), "seed", "sead")
    assert "sead" in complaint("detector", "train", config, "--data", ".", code=2)


def test_a_bundle_that_is_not_there_is_named_beside_those_that_are() -> None:
    for command in ("evaluate", "sweep"):
        line = complaint(command, "hourglass", code=2)
        assert "'hourglass'" in line
        assert "pose-s" in line
    assert "hourglass" in complaint("evaluate", "--detector", "hourglass", "--data", ".", code=2)


def test_a_detectors_bundle_is_no_pose_model() -> None:
    assert "person-n" in complaint("evaluate", "person-n", code=2)


@pytest.mark.parametrize("command", [["evaluate"], ["detector", "evaluate", "person-n"]])
def test_a_split_that_does_not_exist_is_wrong_usage(command: list[str]) -> None:
    result = CliRunner().invoke(app, [*command, "--data", ".", "--split", "foo"])
    assert result.exit_code == 2
    assert "'foo'" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["evaluate"],
        ["sweep"],
        ["export", POSE],
        ["detector", "evaluate", "person-n"],
        ["detector", "train", str(EXPERIMENTS / "person-n.toml")],
    ],
)
def test_files_that_are_not_there_are_named(arguments: list[str]) -> None:
    needs_data = arguments[0] != "export"
    line = complaint(*arguments, *(["--data", "."] if needs_data else []), code=2)
    assert "No such file" in line
    assert ("coco" if needs_data else "pose-s") in line


def test_annotations_that_are_none_are_work_that_failed() -> None:
    folder = Path("data/coco/annotations")
    folder.mkdir(parents=True)
    (folder / "person_keypoints_val.json").write_text("[]")
    assert "person_keypoints_val.json" in complaint("evaluate", "--data", "data", code=1)


def test_a_card_that_would_be_untrue_is_refused_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tmp_path / "bundles" / "pose-s"
    bundle.mkdir(parents=True)
    for file in (BUNDLES / "pose-s").glob("*.onnx"):
        os.link(file, bundle / file.name)
    text = (BUNDLES / "pose-s" / "manifest.json").read_text()
    (bundle / "manifest.json").write_text(text)
    evaluation = {
        "bundle": "pose-s",
        "weights": "sha256:of others",
        "engine": "onnxruntime/cpu",
        "measured": "2026-11-20",
        "rows": [],
    }
    (bundle / "evaluation.json").write_text(json.dumps(evaluation))
    monkeypatch.setattr(training.card, "BUNDLES", tmp_path / "bundles")
    assert "not of these weights" in complaint("card", POSE, code=1)


def test_a_graph_that_is_refused_ends_the_export_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(*_: object) -> None:
        raise ExportError("graph and network differ")

    monkeypatch.setattr(detector, "train_detector", refused)
    config = str(EXPERIMENTS / "person-n.toml")
    assert "differ" in complaint("detector", "train", config, "--data", ".", code=1)


def test_the_card_takes_another_readme() -> None:
    result = CliRunner().invoke(app, ["card", POSE, "--readme", "nowhere.md"])
    assert result.exit_code == 2
    assert "nowhere.md" in result.stderr


def test_measure_calibrates_first_and_writes_the_card_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[tuple[str, tuple[object, ...], object, object]] = []

    def note(step: str) -> None:
        def work(*given: object, **options: object) -> None:
            done.append((step, given, options.get("detector"), options.get("flip", False)))

        monkeypatch.setattr(cli, step, work)

    for step in ("calibrate", "evaluate", "equivariance", "card"):
        note(step)
    result = CliRunner().invoke(app, ["measure", POSE])
    assert result.exit_code == 0, result.output
    steps = [step for step, *_ in done]
    assert (steps[0], steps[-1]) == ("calibrate", "card")
    measured = {
        (given[1], detector, flip) for step, given, detector, flip in done if step == "evaluate"
    }
    assert measured == {
        ("coco/dev", None, False),
        ("coco/val", None, False),
        ("coco/val", None, True),
        ("coco/val", "person-n", False),
        ("lspet/val", None, False),
    }
    assert "equivariance" in steps


def test_a_detector_and_its_file_are_not_asked_for_at_once() -> None:
    given = ["evaluate", "--detector", "person-n", "--boxes", "boxes.json"]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 2
    assert "one of --detector and --boxes" in result.stderr
