import csv
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from models.bundle import BUNDLES, load_bundle
from models.engines import load_engine
from models.pose import PoseModel
from training.calibrate import calibrate
from training.card import CardError, write_card
from training.equivariance import equivariance
from training.evaluate import evaluate, readings_of
from training.evaluation import Evaluation, record
from training.log import read_log, training_seconds
from training.truth import read_truth

pytestmark = pytest.mark.data

EXPERIMENT = Path(__file__).parents[2] / "training/experiments/pose-s.toml"


@pytest.fixture(scope="module")
def measured(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the committed bundle with figures of a few photos beside it."""
    folder = tmp_path_factory.mktemp("bundle") / "pose-s"
    folder.mkdir()
    for path in (BUNDLES / "pose-s").iterdir():
        if path.suffix in (".onnx", ".json") and path.stem != "evaluation":
            shutil.copy(path, folder)
    bundle = load_bundle(folder)
    raw = PoseModel(bundle, load_engine(bundle, threads=1))
    truth = read_truth(data, "coco/val")
    few = truth.of(truth.with_people().photos[:6])
    (folder / "manifest.json").write_text(calibrate(raw, few).model_dump_json())
    model = PoseModel(load_bundle(folder), raw.engine)
    for flip in (False, True):
        rows = evaluate(model, None, few, readings=readings_of(model), flip=flip, draws=20)
        record(folder / "evaluation.json", model, [row.figures for row in rows])
    deviations = equivariance(model, few, people=4)
    record(folder / "evaluation.json", model, equivariance=deviations)
    return folder


@pytest.fixture
def bundle(measured: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(measured, tmp_path / "pose-s"))


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return experiment(tmp_path)


@pytest.fixture(scope="module")
def card(measured: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a bundle with its card."""
    folder = tmp_path_factory.mktemp("card")
    bundle = Path(shutil.copytree(measured, folder / "pose-s"))
    assert {path.parent for path in write_card(experiment(folder), data, bundle)} == {bundle}
    return bundle


def experiment(folder: Path) -> Path:
    """The experiment, with a run of its own in a folder."""
    path = folder / "experiments" / "pose-s.toml"
    path.parent.mkdir()
    path.write_text(f'runs = "{folder}/runs"\n{EXPERIMENT.read_text()}')
    log = folder / "runs" / "pose-s" / "log.csv"
    log.parent.mkdir(parents=True)
    with log.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "seconds", "simcc", "heatmap", "nerpe"])
        # Resumed after step 60: the clock starts anew.
        for step in range(1, 101):
            writer.writerow([step, 60.0 * (step if step <= 60 else step - 60), 2, 1, 1])
    return path


def test_time_adds_up_over_a_run_that_resumed(config: Path) -> None:
    assert training_seconds(read_log(config.parents[1] / "runs/pose-s/log.csv")) == 6000


def test_card_says_what_was_measured(card: Path) -> None:
    text = (card / "CARD.md").read_text()
    evaluation = Evaluation.model_validate_json((card / "evaluation.json").read_bytes())
    for row in evaluation.rows:
        assert f"**{row.main:.3f}** | {row.interval[0]:.3f} to {row.interval[1]:.3f}" in text
    assert "$" not in text
    assert "1 h 40 min" in text
    assert "100\n  steps" in text

    pictures = re.findall(r"!\[.*?\]\((.+?)\)", text)
    assert sorted(pictures) == [
        "examples.png", "losses.png", "reliability.png", "thresholds.png",
    ]  # fmt: skip
    assert sum((card / name).stat().st_size for name in pictures) < 400_000
    for each in evaluation.equivariance:
        assert f"{each.median_px:.2f} / {each.p90_px:.2f}" in text
    for name in pictures:
        Image.open(card / name).verify()

    loaded = load_bundle(card)
    assert loaded.pose.accuracy
    assert evaluation.weights == loaded.digest
    best = max(loaded.pose.accuracy.values())
    assert any(round(row.main, 4) == best for row in evaluation.rows)
    assert {f"coco_val_{head}_ap" for head in loaded.pose.heads.names} <= set(loaded.pose.accuracy)


def test_the_photos_shown_are_credited(card: Path) -> None:
    text = (card / "CARD.md").read_text()
    assert re.findall(r"COCO \w+ image (\d+)", text) == ["281759", "790", "872"]
    assert text.count("https://www.flickr.com/photo.gne?id=") == 3


def test_card_refuses_figures_of_other_weights(bundle: Path, config: Path, data: Path) -> None:
    path = bundle / "evaluation.json"
    evaluation = Evaluation.model_validate_json(path.read_bytes())
    path.write_text(evaluation.model_copy(update={"weights": "sha256:0"}).model_dump_json())
    with pytest.raises(CardError, match="not of these weights"):
        write_card(config, data, bundle)

    path.write_text(evaluation.model_copy(update={"equivariance": ()}).model_dump_json())
    with pytest.raises(CardError, match="equivariance"):
        write_card(config, data, bundle)

    without = tuple(row for row in evaluation.rows if row.head != "nerpe")
    path.write_text(evaluation.model_copy(update={"rows": without}).model_dump_json())
    with pytest.raises(CardError, match="nerpe"):
        write_card(config, data, bundle)
    assert not (bundle / "CARD.md").exists()


def test_card_refuses_scores_that_mean_nothing_yet(bundle: Path, config: Path, data: Path) -> None:
    manifest = load_bundle(bundle).pose
    simcc = manifest.heads.simcc
    assert simcc is not None
    heads = manifest.heads.model_copy(
        update={"simcc": simcc.model_copy(update={"calibration": None})}
    )
    text = manifest.model_copy(update={"heads": heads}).model_dump_json()
    (bundle / "manifest.json").write_text(text)
    path = bundle / "evaluation.json"
    evaluation = Evaluation.model_validate_json(path.read_bytes())
    digest = load_bundle(bundle).digest
    path.write_text(evaluation.model_copy(update={"weights": digest}).model_dump_json())
    with pytest.raises(CardError, match=r"simcc of pose-s: not calibrated"):
        write_card(config, data, bundle)


def test_card_refuses_weights_that_learnt_from_research_data(
    bundle: Path, config: Path, data: Path
) -> None:
    text = config.read_text()
    config.write_text(text.replace("data/coco/annotations/", "data/lspet/annotations/", 1))
    with pytest.raises(CardError, match="LSPET"):
        write_card(config, data, bundle)
