import csv
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.codecs import SimccLabels
from models.formats import CocoRow, coco
from models.networks.pose import PoseNetwork, PoseShape
from models.pose import PoseModel
from models.predictor import Predictor
from tests.training.sets import BOX, JOINTS, row, write_set
from training.config import DataSource, Experiment, HeadPhase, Schedule, Serving, SimccLoss
from training.evaluate import encoded_photos
from training.log import begin_log, read_log
from training.metrics import STATS, KeypointMatches, quick_stats
from training.train import train
from training.truth import read_truth
from training.validation import Validation

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPE = PoseShape(size=(64, 64), cells=(4, 4), nerpe_sigma=0.25)


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    """Four people who differ in size, the last of them small."""
    rows = []
    for number, scale in enumerate((1.0, 0.9, 0.7, 0.1), 1):
        joints = JOINTS * scale
        rows.append(
            row(
                number,
                bbox=[side * scale for side in BOX],
                area=0.5 * BOX[2] * BOX[3] * scale**2,
                keypoints=[value for x, y in joints.tolist() for value in (x, y, 2)],
            )
        )
    file, images = write_set(tmp_path, rows, photos=4)
    source = DataSource(annotations=file, images=images, split="all")
    return Experiment(
        name="tiny", runs=tmp_path / "runs", threads=1, workers=0, train=[source], dev=source,
        shape=SHAPE, warm_up=HeadPhase(passes=0),
        schedule=Schedule(steps=3, batch=2, ramp=1, validate_every=2),
        serving=Serving(data="painted", start="nothing"), checkpoint_every=1,
    )  # fmt: skip


class _ByHeart(nn.Module):
    """Heads that answer each person's labels, moved aside by some pixels of the crop."""

    def __init__(self, network: PoseNetwork, points: Tensor, aside: float) -> None:
        super().__init__()
        self.points, self.shape, self.network = points + aside, network.shape, network
        self.seen = 0

    def encode(self, crops: Tensor) -> Tensor:
        chosen = self.points[self.seen : self.seen + len(crops)]
        self.seen += len(crops)
        return chosen

    def simcc(self, points: Tensor) -> tuple[Tensor, Tensor]:
        x, y, _ = self.shape.simcc.encode(points, torch.ones(points.shape[:2]) > 0)
        return (x + 1e-30).log(), (y + 1e-30).log()

    @property
    def heatmap_codec(self) -> Any:  # noqa: ANN401
        return self.network.heatmap_codec

    def heatmap(self, points: Tensor) -> Tensor:
        maps, _ = self.heatmap_codec.encode(points, torch.ones(points.shape[:2]) > 0)
        return torch.as_tensor(maps)

    @property
    def nerpe(self) -> "_ByHeart":
        return self

    def cells(self, points: Tensor) -> Tensor:
        return points

    def field(self, points: Tensor, positions: Tensor) -> Tensor:
        return torch.as_tensor(self.shape.nerpe.encode(points, positions))


def test_a_network_that_knows_the_labels_has_ap_one_and_one_that_errs_has_less(
    experiment: Experiment,
) -> None:
    validation = Validation(experiment, torch.device("cpu"))
    assert len(validation.people) == 4  # the smallest too, whom training leaves out
    points = torch.stack([batch for part in validation.crops for batch in part["points"]])
    network = PoseNetwork(SHAPE)
    perfect = validation.measure(_ByHeart(network, points, 0))  # type: ignore[arg-type]
    assert list(perfect) == list(SHAPE.heads)
    assert min(perfect.values()) > 0.99
    rough = validation.measure(_ByHeart(network, points, 2.5))  # type: ignore[arg-type]
    lost = validation.measure(_ByHeart(network, points, 20))  # type: ignore[arg-type]
    for head in SHAPE.heads:
        assert perfect[head] > rough[head] > lost[head]


def test_a_run_logs_ap_when_it_is_due_and_at_its_end(
    experiment: Experiment, capfd: pytest.CaptureFixture[str]
) -> None:
    train(experiment)
    with (experiment.folder / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    columns = [f"ap_{head}" for head in SHAPE.heads]
    assert list(rows[0]) == ["step", "seconds", *SHAPE.heads, *columns]
    for line in rows:
        taken = [line[name] for name in columns]
        assert all(taken) == (line["step"] in "23") == any(taken)
    log = read_log(experiment.folder / "log.csv")
    assert np.isfinite(log["simcc"]).all()
    assert np.isnan(log["ap_simcc"]).tolist() == [True, False, False]
    assert "simcc 0.0" in capfd.readouterr().err
    # A resumed run that has begun to validate finds room for it in the log.
    begin_log(experiment.folder / "log.csv", 2, [*SHAPE.heads, *columns, "more"])
    assert np.isnan(read_log(experiment.folder / "log.csv")["more"]).tolist() == [True, True]


def test_validation_is_no_part_of_the_seconds_that_steps_took(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]

    def monotonic() -> float:
        clock[0] += 1
        return clock[0]

    def measure(self: Validation, network: PoseNetwork) -> dict[str, float]:
        clock[0] += 1000
        return dict.fromkeys(SHAPE.heads, 0.5)

    monkeypatch.setattr(Validation, "measure", measure)
    monkeypatch.setattr("training.run.time", SimpleNamespace(monotonic=monotonic))
    train(experiment)
    assert read_log(experiment.folder / "log.csv")["seconds"].max() < 1000
    assert clock[0] > 2000


def test_a_run_that_goes_on_without_validation_keeps_the_log_s_columns(
    experiment: Experiment,
) -> None:
    train(experiment)
    plan = experiment.schedule.model_copy(update={"validate_every": 0, "steps": 4})
    train(experiment.model_copy(update={"schedule": plan}))
    log = read_log(experiment.folder / "log.csv")
    assert np.isnan(log["ap_simcc"]).tolist() == [True, False, False, True]
    with (experiment.folder / "log.csv").open() as file:
        assert {len(line) for line in csv.reader(file)} == {2 + 2 * len(SHAPE.heads)}


def _moved(content: dict[str, Any], people: list[int]) -> list[CocoRow]:
    """Each labelled person, and a second time, astray, with a lower score."""
    random = np.random.default_rng(0)
    rows: list[CocoRow] = []
    for person in content["annotations"]:
        joints = np.array(person["keypoints"], float).reshape(17, 3)
        for score, off in ((random.uniform(0.5, 1), random.uniform(0, 8)), (0.3, 60)):
            moved = joints + np.array([off, -off, 0])
            rows.append(
                {
                    "image_id": person["image_id"], "category_id": 1, "bbox": person["bbox"],
                    "keypoints": moved.ravel().tolist(), "score": score,
                }
            )  # fmt: skip
    return [line for line in rows if line["image_id"] in people]


def _agree(content: dict[str, Any], rows: list[CocoRow]) -> dict[str, float]:
    slow, quick = KeypointMatches(content, rows).stats, quick_stats(content, rows)
    assert list(slow) == list(quick) == list(STATS)
    for name, value in slow.items():
        assert quick[name] == pytest.approx(value, abs=1e-9), name
    return slow


def test_both_tools_agree_on_people_who_are_missed_doubled_and_astray(tmp_path: Path) -> None:
    rows = []
    for number in range(1, 13):
        joints = [value for x, y in JOINTS.tolist() for value in (x, y, 2 if number % 3 else 1)]
        area = 900.0 if number < 3 else 5000.0 if number < 8 else 14000.0
        rows.append(row(number, id=number, image_id=1 + number // 2, area=area, keypoints=joints))
    rows[4] |= {"iscrowd": 1, "keypoints": [0] * 51, "num_keypoints": 0}
    content = {
        "images": [{"id": n, "width": 240, "height": 320} for n in range(1, 9)],
        "categories": [{"id": 1, "name": "person"}],
        "annotations": rows,
    }
    stats = _agree(content, _moved(content, people=[1, 2, 3, 4, 6]))
    assert 0.1 < stats["AP"] < 0.9
    assert _agree(content, _moved(content, people=list(range(1, 9))))["AP"] > stats["AP"]


def test_nobody_found_is_ap_zero() -> None:
    assert quick_stats({"images": [], "annotations": [], "categories": []}, [])["AP"] == 0


@pytest.mark.data
def test_both_tools_agree_on_what_the_served_weights_find(model: PoseModel, data: Path) -> None:
    dev = read_truth(data, "coco/dev").with_people()
    few = dev.of(dev.photos[:20])
    predictor = Predictor(model, None)
    rows: list[CocoRow] = []
    for photo, encoded in zip(few.photos, encoded_photos(predictor, few, flip=False), strict=True):
        rows += coco(predictor.read(encoded), image_id=photo.image_id)
    stats = _agree(few.content, rows)
    assert 0.35 < stats["AP"] < 0.95
    # And where some photos have no one found in them.
    _agree(few.content, rows[len(rows) // 2 :])


def test_a_shape_of_one_head_is_validated_alone(experiment: Experiment) -> None:
    shape = replace(SHAPE, heads=("heatmap",))
    only = experiment.model_copy(update={"shape": shape})
    network = PoseNetwork(shape).eval()
    assert list(Validation(only, torch.device("cpu")).measure(network)) == ["heatmap"]


def test_logits_are_read_with_the_beta_that_they_were_trained_with(experiment: Experiment) -> None:
    shape = replace(SHAPE, heads=("simcc",), simcc_labels=SimccLabels(normalised=False))
    changes = {"shape": shape, "simcc_loss": SimccLoss(form="mmpose", beta=10, label_beta=10)}
    validation = Validation(experiment.model_copy(update=changes), torch.device("cpu"))
    network = PoseNetwork(shape)
    points = torch.full((1, 17, 2), 20.3)
    x, y, _ = shape.simcc.encode(points, torch.ones(1, 17) > 0)
    network.simcc.forward = lambda features: (x, y)  # type: ignore[method-assign]
    decoded = validation._decoded(network, "simcc", points)
    np.testing.assert_allclose(decoded.points, points, atol=0.05)
    np.testing.assert_allclose(decoded.scores, 1, atol=0.01)
