import csv
import datetime
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.bundle import BUNDLES, load_bundle
from models.geometry import Box
from models.keypoints import COCO17
from models.manifest import PoseManifest
from models.predictor import Person, Pose
from training.data.annotations import LabelledPerson
from training.evaluation import GROUND_TRUTH, Evaluation, Figures
from training.log import read_log
from training.report import (
    chart_of_losses,
    chart_of_thresholds,
    default_rows,
    smoothed,
    sweep_table,
    tables,
    write_report,
)
from training.sheet import draw_sheet, pick_examples
from training.sweep import Trial
from training.truth import LabelledPhoto, Truth

FIGURES = Figures(
    split="coco/val",
    boxes=GROUND_TRUTH,
    flip=False,
    head="simcc",
    decode="expectation",
    resolution=None,
    photos=400,
    people=1085,
    found=1085,
    metrics={"AP": 0.6123, "AP50": 0.87, "AR": 0.65, "error_median": 0.031},
    interval=(0.5901, 0.6349),
    by_threshold=tuple(np.linspace(0.87, 0.05, 10)),
    seconds=61.5,
)


def changed(**values: object) -> Figures:
    return FIGURES.model_copy(update=values)


def evaluation(*rows: Figures) -> Evaluation:
    return Evaluation(
        bundle="pose-s",
        weights="sha256:1",
        engine="onnxruntime/cpu",
        measured=datetime.date(2026, 11, 21),
        rows=rows,
    )


def picture(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content)).convert("RGB")


@pytest.fixture
def manifest() -> PoseManifest:
    return load_bundle(BUNDLES / "pose-s").pose


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log.csv"
    random = np.random.default_rng(0)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "seconds", "simcc", "heatmap", "nerpe"])
        for step in range(1, 201):
            writer.writerow([step, step * 2.0, *(random.uniform(1, 2, 3) / step)])
    return path


def test_tables_say_every_figure_under_its_setting() -> None:
    text = tables(
        evaluation(
            changed(boxes="person-n", found=880),
            FIGURES,
            changed(head="nerpe", decode="progressive", resolution=512, interval=(0.1, 0.2)),
            changed(split="lspet/val", metrics={"PCK@0.2": 0.75}, by_threshold=()),
        )
    )
    assert "| simcc | expectation | **0.612** | 0.590 to 0.635 | 0.870 | 0.650 | 0.031 |" in text
    assert "| nerpe | progressive, 512 | **0.612** | 0.100 to 0.200 |" in text
    assert "boxes: person-n, 2.2 a photo" in text
    assert "| head | decode | PCK@0.2 | 95 % |" in text
    assert text.count("| head |") == 3
    for block in text.split("\n\n")[1::2]:
        assert len({line.count("|") for line in block.splitlines()}) == 1


def test_sweep_table_has_a_row_a_value() -> None:
    trials = [Trial("heatmap", "dark", "blur", blur, 0.6, (0.58, 0.62)) for blur in (1, 3, 11)]
    assert len(sweep_table(trials).splitlines()) == 5
    assert "| heatmap | dark | blur | 11 | 0.6000 | 0.580 to 0.620 |" in sweep_table(trials)


def test_default_rows_are_those_of_the_manifest_alone(manifest: PoseManifest) -> None:
    simcc = manifest.heads.simcc
    assert simcc is not None
    own = changed(decode=simcc.decode)
    other = changed(decode="argmax" if simcc.decode == "expectation" else "expectation")
    flipped = changed(decode=simcc.decode, flip=True)
    mixed = evaluation(own, other, flipped, changed(decode=simcc.decode, boxes="person-n"))
    assert default_rows(mixed, manifest, "coco/val") == [own]
    assert default_rows(mixed, manifest, "coco/val", flip=True) == [flipped]


def test_a_log_that_was_cut_off_and_resumed_is_read_once_a_step(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(
        "step,seconds,simcc,heatmap,nerpe\n1,2.0,9,9,9\n2,4.0,8,8,8\n3,6.0,7,"
        "\n2,2.1,5,5,5\nstep,seconds,simcc,heatmap,nerpe\n3,4.0,4,4,4\n4,6.0,3\n"
    )
    columns = read_log(path)
    assert columns["step"].tolist() == [1, 2, 3]
    assert columns["nerpe"].tolist() == [9, 5, 4]
    path.write_text("step,seconds,simcc\n")
    with pytest.raises(ValueError, match=r"log\.csv"):
        read_log(path)


def test_smoothing_keeps_level_and_length_and_lessens_noise() -> None:
    assert smoothed(np.full(500, 3.0)) == pytest.approx(np.full(500, 3.0))
    noise = np.random.default_rng(0).normal(0, 1, 1000)
    assert smoothed(noise).std() < 0.4
    assert smoothed(np.array([2.0])).tolist() == [2.0]


def test_charts_are_small_pictures_that_show_something(log: Path) -> None:
    for content in (chart_of_losses(read_log(log)), chart_of_thresholds([FIGURES])):
        shown = picture(content)
        assert len(content) < 100_000
        assert shown.width > 400
        assert len(shown.getcolors(1 << 24) or ()) > 20


def test_the_chart_of_thresholds_draws_each_head(log: Path) -> None:
    both = [FIGURES, changed(head="nerpe", by_threshold=(0.5,) * 10)]
    colours = {colour for _, colour in picture(chart_of_thresholds(both)).getcolors(1 << 24) or ()}
    assert {(0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)} <= colours


def test_report_is_whole(log: Path, manifest: PoseManifest, tmp_path: Path) -> None:
    simcc = manifest.heads.simcc
    assert simcc is not None
    folder = tmp_path / "report"
    sheet = chart_of_thresholds([FIGURES])
    row = changed(
        decode=simcc.decode,
        metrics={**FIGURES.metrics, "calibration_error": 0.021, "within_sigma": 0.68},
        reliability=((0.1, 0.15, 10), (0.9, 0.88, 200)),
    )
    written = write_report(folder, evaluation(row), manifest, log=log, sheet=sheet)
    assert {path.name for path in written} == {
        "report.md", "thresholds.png", "reliability.png", "losses.png", "examples.png",
    }  # fmt: skip
    assert sorted(written) == sorted(folder.iterdir())
    text = (folder / "report.md").read_text()
    assert "**0.612**" in text
    for path in written:
        if path.suffix == ".png":
            picture(path.read_bytes())
            assert f"]({path.name})" in text


@pytest.fixture
def split(tmp_path: Path) -> tuple[Truth, list[list[Person]]]:
    """Twenty photos of two people: those of photo n found n px off, the last with sides wrong."""
    random = np.random.default_rng(0)
    photos, people, rows = [], [], []
    for number in range(20):
        path = tmp_path / f"{number}.png"
        Image.new("RGB", (120, 160), (90, 120, 150)).save(path)
        labelled = []
        for second in range(2):
            points = random.uniform(20, 100, (17, 2))
            box = Box(10, 10, 100, 140)
            visible = np.full(17, 2, np.uint8)
            one = LabelledPerson(path, number, 2 * number + second, box, points, visible)
            labelled.append(one)
            rows.append({"id": one.annotation_id, "area": 5000.0})
        off = [one.points + np.array([number, 0]) for one in labelled]
        if number == 19:
            off = [one.points[list(COCO17.mirror)] for one in labelled]
        people.append([Person(box, {"simcc": Pose(points, np.ones(17))}) for points in off])
        photos.append(LabelledPhoto(path, number, tuple(labelled), True, None, ""))
    return Truth("coco/val", {"annotations": rows}, tuple(photos)), people


def test_examples_are_best_middling_and_worst_one_a_photo(
    split: tuple[Truth, list[list[Person]]],
) -> None:
    picked = pick_examples(*split, count=6)
    assert [example.photo.image_id for example in picked][:2] == [0, 1]
    assert {example.photo.image_id for example in picked[2:4]} <= {8, 9, 10, 11}
    assert {example.photo.image_id for example in picked[4:]} == {18, 19}
    assert picked[0].similarity == pytest.approx(1)
    assert picked[0].caption == "OKS 1.00"
    (swapped,) = (example for example in picked if example.photo.image_id == 19)
    assert swapped.caption.endswith("(1.00 with sides swapped)")
    assert pick_examples(*split, count=6, least_px=200) == []


def test_sheet_shows_labels_and_answers(split: tuple[Truth, list[list[Person]]]) -> None:
    picked = pick_examples(*split, count=5)
    sheet = picture(draw_sheet(picked, columns=3))
    assert sheet.height == pytest.approx(2 * sheet.width / 3 * 248 / 172, abs=2)
    pixels = np.asarray(sheet).reshape(-1, 3).astype(int)
    pink = (pixels[:, 0] > 200) & (pixels[:, 1] < 120) & (pixels[:, 2] > 150)
    green = (pixels[:, 1] > 160) & (pixels[:, 0] < 80) & (pixels[:, 2] < 140)
    assert pink.sum() > 500
    assert green.sum() > 100
