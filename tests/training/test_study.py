"""The comparison of the systems, on a set and networks small enough for seconds."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from models.keypoints import COCO17
from models.networks.pose import HEADS, PoseNetwork, PoseShape
from models.predictor import Person, Pose
from tests.norms import shaken
from tests.training.sets import row, write_set
from training.config import DataSource, HeadPhase, Schedule, Serving
from training.data.examples import Augmentation
from training.joint_errors import JointErrors
from training.start import start_network
from training.study import run as module
from training.study import starts
from training.study.config import Study, StudySize, System, load_study
from training.study.fields import SAMPLES, line_through, typical_person
from training.study.papers import FINEST, papers_table
from training.study.report import compare, row_of
from training.study.results import Result, Row, read_results, result_file, write_result
from training.study.run import run_study
from training.train import training_data
from training.truth import read_truth

# Its fixture exports seven graphs: seconds, but minutes where others have the processor.
pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.timeout(1200)]

TRUNK = "mobilenetv2_035"
SHAPE = PoseShape(
    encoder=f"timm:{TRUNK}:4", matrix="legacy", simcc_maps=2, heatmap_sigma=1, cells=(8, 8),
    nerpe_width=16, nerpe_hidden=(16, 8),
)  # fmt: skip


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Every head at 32 px, two steps each."""
    folder = tmp_path_factory.mktemp("study")
    file, images = write_set(folder / "coco", [row(n, area=28800.0) for n in range(1, 6)], photos=5)
    labels = folder / "coco" / "annotations"
    labels.mkdir()
    shutil.copy(file, labels / "person_keypoints_val.json")
    torch.manual_seed(0)
    state = shaken(timm.create_model(TRUNK)).state_dict()
    save_file(state, folder / "trunk.safetensors")
    return Study(
        name="tiny",
        runs=folder / "runs",
        report=folder / "report",
        start=folder / "trunk.safetensors",
        held=1,
        threads=1,
        seeds=(3,),
        train=[DataSource(annotations=file, images=images, split="all")],
        data=folder,
        shape=SHAPE,
        sizes=[
            StudySize(
                pixels=32,
                simcc_split=2,
                simcc_sigma=2,
                trunk=Schedule(steps=3, batch=4, ramp=1),
                schedule=Schedule(steps=2, batch=4, ramp=1),
            )
        ],
        warm_up=HeadPhase(epochs=1, batch=4),
        serving=Serving(data="painted", start="nothing", blur=3),
        standard=(32,),
        progressive=(64,),
        swept=(16,),
        swept_progressive=(),
        swept_gaussian=(32,),
        swept_photos=1,
        drawn=(16, 32),
    )


@pytest.fixture(scope="module")
def results(plan: Study) -> list[Result]:
    run_study(plan, "tiny.toml")
    return read_results(plan)


def test_every_system_is_trained_alone_and_read_with_every_decode(
    plan: Study, results: list[Result]
) -> None:
    assert [result.system for result in results] == plan.systems
    read = {r.system.head: [(x.decode, x.resolution) for x in r.rows] for r in results}
    assert read == {
        "heatmap": [("argmax", None), ("quarter", None), ("dark", None)],
        "simcc": [("argmax", None), ("expectation", None)],
        "nerpe": [("standard", 32), ("progressive", 64), ("gaussian", 64)],
    }
    for result in results:
        assert (result.crops, result.people) == (8, 5)
        assert all(0 < x.error < 10 and 0 <= x.pck05 <= x.pck10 <= 1 for x in result.rows)
        swept = plan.swept_readings(result.system.head)
        assert [cost.decode for cost in result.costs] == [reading.decode for reading in swept]
        assert all(cost.relative > 0 for cost in result.costs)
        folder = plan.folder / result.system.name / "bundle"
        manifest = json.loads((folder / "manifest.json").read_text())
        held = [head for head, spec in manifest["heads"].items() if spec is not None]
        assert held == [result.system.head]


def test_the_report_holds_every_system_and_picture(plan: Study, results: list[Result]) -> None:
    text = (plan.report / "README.md").read_text()
    for how in ("heatmap | dark", "simcc | argmax", "nerpe | standard, 32"):
        assert f"| 32 x 32 | {how} | " in text
    (claim,) = (line for line in text.splitlines() if "NerPE ≥ SimCC | published | AP |" in line)
    aps = {r.system.name: r.rows[0].ap for r in results}
    assert f"| {aps['32-nerpe-3'] - aps['32-simcc-3']:+.3f} |  | cannot be told from one" in claim
    finest = {r.system.head: row_of(r, FINEST).decode for r in results}
    assert finest == {"simcc": "expectation", "heatmap": "dark", "nerpe": "gaussian"}
    for picture in ("sizes", "costs", "fields", "seam"):
        assert f"({picture}.png)" in text
        pixels = cv2.imread(str(plan.report / f"{picture}.png"))
        assert pixels is not None
        assert pixels.std() > 5
    assert len(json.loads((plan.report / "results.json").read_text())) == len(results)


def test_only_what_is_missing_is_done_again(
    plan: Study, results: list[Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = System(pixels=32, head="simcc", seed=3)
    result_file(plan, lost).unlink()
    (nerpe,) = (result for result in results if result.system.head == "nerpe")
    # As it was before there was a decode that the study now reads with.
    write_result(plan, nerpe.model_copy(update={"rows": nerpe.rows[:-1]}))
    exported = []
    # Its bundle is there already, and an export takes seconds.
    monkeypatch.setattr(module, "export_bundle", lambda *_, name, **__: exported.append(name))
    run_study(plan, "tiny.toml")
    assert exported == [lost.name, nerpe.system.name]
    again = {result.system: result.rows for result in read_results(plan)}
    # Its checkpoint was there, so its figures are the same ones.
    assert again == {result.system: result.rows for result in results}


def test_systems_of_a_seed_differ_in_their_head_alone(plan: Study) -> None:
    runs = [plan.experiment(system) for system in plan.systems]
    fields = [
        run.model_dump(exclude={"name": True, "shape": {"heads"}, "serving": {"default_head"}})
        for run in runs
    ]
    for run, field in zip(runs, fields, strict=True):
        assert run.shape.heads == (run.serving.default_head,)
        field["shape"] = {k: v for k, v in field["shape"].items() if k != "heads"}
    assert fields[0] == fields[1] == fields[2]
    crops = [training_data(run)[3]["crop"] for run in runs]
    assert torch.equal(crops[0], crops[1])
    other = plan.experiment(plan.systems[0].model_copy(update={"seed": 4}))
    assert not torch.equal(crops[0], training_data(other)[3]["crop"])


def test_the_trunk_starts_from_the_classifier_and_its_first_stages_stay(
    plan: Study, results: list[Result]
) -> None:
    assert results
    experiment = plan.trunk(32)
    start = start_network(experiment).state_dict()
    trained = torch.load(experiment.final, weights_only=True)["network"]
    assert plan.start
    classifier = load_file(plan.start)
    for name in ("conv_stem.weight", "blocks.0.0.conv_dw.weight", "blocks.1.0.conv_pw.weight"):
        before, after = start[f"encoder.body.{name}"], trained[f"encoder.body.{name}"]
        assert torch.equal(before, classifier[name])
        assert torch.equal(before, after) == (not name.startswith("blocks.1"))


def test_systems_start_from_their_sizes_trunk_and_their_seeds_heads(
    plan: Study, results: list[Result]
) -> None:
    assert results
    trunk = torch.load(plan.trunk(32).final, weights_only=True)["ema"]
    for system in plan.systems:
        start = start_network(plan.experiment(system)).state_dict()
        heads = torch.load(plan.beginning(32, system.seed).final, weights_only=True)["ema"]
        for name, tensor in start.items():
            of_trunk = name.startswith("encoder.")
            assert torch.equal(tensor, (trunk if of_trunk else heads)[name]), name
            # Heads of the trunk's own run would be ahead of a seed, and the same for all.
            if name.endswith("weight") and not of_trunk:
                assert not torch.equal(tensor, trunk[name]), name


def test_trunks_are_made_from_the_largest_down(
    plan: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    (size,) = plan.sizes
    two = plan.model_copy(
        update={"name": "two", "sizes": [size, size.model_copy(update={"pixels": 64})]}
    )
    assert two.trunk(64).start == plan.start
    assert two.trunk(32).start == two.trunk(64).final
    made, devices = [], []
    monkeypatch.setattr(starts, "train", lambda run, _: made.append(run.name))
    monkeypatch.setattr(starts, "start_network", lambda run: PoseNetwork(run.shape))
    monkeypatch.setattr(starts, "training_device", lambda: torch.device("cuda"))
    monkeypatch.setattr(starts, "train_heads", lambda *given: devices.append(given[-1].type))
    for _ in range(2):  # the second time all is there
        starts.make_start(two, two.systems[0], training_data)
        assert made == ["64-trunk", "32-trunk"]
    assert two.beginning(32, 3).final.exists()
    assert devices == ["cuda"]


def test_a_study_of_many_photos_does_not_keep_them_all() -> None:
    assert module._picture.cache_info().maxsize


def test_seeds_differ_in_their_heads_from_the_start(plan: Study) -> None:
    first, second = (plan.beginning(32, seed) for seed in (0, 1))
    assert first.final != second.final
    assert first.start == second.start == plan.trunk(32).final
    assert plan.trunk(32).seed not in plan.seeds


def _results(head: str, values: list[float]) -> list[Result]:
    return [
        Result(
            system=System.model_validate({"pixels": 64, "head": head, "seed": seed}),
            parameters=1,
            crops=1,
            people=1,
            rows=(
                Row(decode="argmax", resolution=None, ap=value, ap50=0, pck05=0, pck10=0, error=1),
            ),
        )
        for seed, value in enumerate(values)
    ]


@pytest.mark.parametrize(
    ("nerpe", "simcc", "words", "interval"),
    [
        # Student's t of two degrees of freedom: 4.3027 * deviation / sqrt(3).
        ([0.31, 0.22, 0.33], [0.29, 0.20, 0.30], "holds", (0.00899, 0.03768)),
        ([0.29, 0.20, 0.30], [0.31, 0.22, 0.33], "the opposite holds", (-0.03768, -0.00899)),
        ([0.31, 0.20, 0.33], [0.29, 0.22, 0.30], "cannot be told from this", (-0.05572, 0.07572)),
        ([0.31], [0.29, 0.2], "cannot be told from one seed", None),
    ],
)
def test_a_claim_is_held_against_the_spread_of_the_seeds(
    nerpe: list[float],
    simcc: list[float],
    words: str,
    interval: tuple[float, float] | None,
) -> None:
    results = _results("nerpe", nerpe) + _results("simcc", simcc)
    verdict = compare(results, 64, ("nerpe", "simcc"), lambda result: result.rows[0].ap)
    assert verdict is not None
    assert verdict.words.startswith(words)
    assert verdict.interval == (None if interval is None else pytest.approx(interval, abs=1e-5))
    assert compare(results, 64, ("nerpe", "heatmap"), lambda result: 0.0) is None


def test_the_papers_gains_stand_beside_their_figures() -> None:
    small, large = papers_table([64]).splitlines()[2:], papers_table([64, 128]).splitlines()[5:]
    assert small[1] == "| 64 x 64 | HRNet-W48 | 0.485 | 0.597 | 0.625 | +0.112 | +0.028 |"
    assert large[0] == "| 128 x 128 | ResNet-50 | 0.603 | 0.626 | 0.633 | +0.023 | +0.007 |"
    assert len(papers_table([32]).splitlines()) == 2


def test_an_error_is_relative_to_the_box_and_of_labelled_joints_alone(plan: Study) -> None:
    truth = read_truth(plan.data, "coco/val")
    people = []
    for photo in truth.photos:
        (label,) = photo.people
        label.visibility[5:] = 0
        side = np.sqrt(label.box.area)
        points = label.points + np.array([0, 0.1 * side])
        points[5:] = 1e6
        people.append([Person(label.box, {"nerpe": Pose(points, np.ones(17))})])
    assert JointErrors.of(truth, people).relative == pytest.approx([0.1] * 25)


def test_the_ensemble_leaves_no_seam_between_cells() -> None:
    torch.manual_seed(0)
    network = shaken(PoseNetwork(replace(SHAPE, size=(32, 32), heads=("nerpe",))))
    crop = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    line = line_through(network, crop, 0, 0.1)
    assert network.nerpe.ensemble
    steps = np.abs(np.diff(np.stack([line.with_ensemble, line.without])))
    # A sample lies on each of the 7 borders and belongs to the cell on one of its sides.
    border = np.arange(1, 8) * (SAMPLES // 8)
    at_borders = np.maximum(steps[:, border - 1], steps[:, border])
    within = np.delete(steps, np.concatenate([border - 1, border]), axis=1)
    assert at_borders[1].min() > 3 * within[1].max()
    assert at_borders[0].max() <= 2 * within[0].max()


def test_the_person_who_is_drawn_has_the_joint_and_most_others(plan: Study) -> None:
    truth = read_truth(plan.data, "coco/val")
    people = [person for photo in truth.photos for person in photo.people]
    joint = COCO17.index("left_wrist")
    for person in people[:2]:
        person.visibility[joint] = 0
    people[3].visibility[0] = people[4].visibility[0] = 0
    assert typical_person(truth, joint) is people[2]


def test_the_studys_own_file_compares_all_heads_with_three_seeds_at_both_sizes() -> None:
    study = load_study(Path("training/experiments/study.toml"))
    assert [size.pixels for size in study.sizes] == [64, 128]
    assert len(study.systems) == 2 * 3 * len(HEADS)
    assert study.start == Path(
        "../shared/data/models/teacher/tinypose_256x192_convs_fp16.safetensors"
    )
    assert not study.augmentation.cutout
    assert study.augmentation != Augmentation()
