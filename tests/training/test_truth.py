"""Sets in their official layouts, made of real photos and COCO's labels, measured as such."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.io import savemat

from models.bundle import BUNDLES, load_bundle
from models.engines import load_engine
from models.geometry import Box
from models.keypoints import COCO17, CROWDPOSE14, LSP14, MPII16, KeypointSet
from models.pose import PoseModel
from models.predictor import HeadChoice, Person, Pose
from tests.training.sets import row, write_set
from training import truth as module
from training.comparison import compare, named
from training.data.annotations import LabelledPerson
from training.data.boxes import DetectorBoxes
from training.detector.photos import read_photos
from training.evaluate import evaluate
from training.evaluation import Figures
from training.joint_errors import JointErrors
from training.protocols import pckh
from training.truth import LabelledPhoto, Split, Truth, read_truth

BOX = Box(0, 0, 100, 100)
READING = [HeadChoice("heatmap", "dark")]


@pytest.fixture(scope="module")
def coco(data: Path) -> Truth:
    """A few photos with people of some size."""
    val = read_truth(data, "coco/val").with_people()
    large = [photo for photo in val.photos if min(p.box.height for p in photo.people) > 120]
    return val.of(large[:10])


@pytest.fixture(scope="module")
def model() -> PoseModel:
    bundle = load_bundle(BUNDLES / "pose-s")
    return PoseModel(bundle, load_engine(bundle, threads=1))


def _joints(person: LabelledPerson, keypoints: KeypointSet) -> NDArray[np.float64]:
    """(K, 3) of another set: x, y, whether it is labelled."""
    result = np.zeros((len(keypoints), 3))
    for index, name in enumerate(keypoints.names):
        if name in COCO17.names:
            own = COCO17.index(name)
            if person.visibility[own]:
                result[index] = *person.points[own], 2
    return result


def _people(truth: Truth) -> list[tuple[LabelledPhoto, LabelledPerson]]:
    return [(photo, person) for photo in truth.photos for person in photo.people]


def _link(folder: Path, truth: Truth) -> Path:
    folder.mkdir(parents=True)
    for photo in truth.photos:
        (folder / photo.path.name).symlink_to(photo.path)
    return folder


def _crowdpose(folder: Path, coco: Truth) -> None:
    _link(folder / "crowdpose" / "images", coco)
    images = [
        {"id": row["id"], "file_name": row["file_name"], "width": row["width"],
         "height": row["height"], "crowdIndex": (number % 3) / 2}
        for number, row in enumerate(coco.content["images"])
    ]  # fmt: skip
    annotations = [
        {"id": person.annotation_id, "image_id": photo.image_id, "category_id": 1, "iscrowd": 0,
         "bbox": [person.box.x, person.box.y, person.box.width, person.box.height],
         "keypoints": _joints(person, CROWDPOSE14).ravel().tolist(),
         "num_keypoints": int((_joints(person, CROWDPOSE14)[:, 2] > 0).sum())}
        for photo, person in _people(coco)
    ]  # fmt: skip
    category = {"id": 1, "name": "person", "keypoints": list(CROWDPOSE14.names)}
    content = {"images": images, "annotations": annotations, "categories": [category]}
    (folder / "crowdpose" / "json").mkdir()
    (folder / "crowdpose" / "json" / "crowdpose_test.json").write_text(json.dumps(content))


def _mpii(folder: Path, coco: Truth) -> None:
    _link(folder / "mpii" / "images", coco)
    rows, heads = [], []
    for photo, person in _people(coco):
        joints = _joints(person, MPII16)
        side = max(person.box.width, person.box.height)
        x, y = person.box.center
        rows.append(
            {"image": photo.path.name, "center": [x + 1, y + 1 - 15 * side / 200],
             "scale": side / 200, "joints": (joints[:, :2] + 1).tolist(),
             "joints_vis": (joints[:, 2] > 0).astype(int).tolist()}
        )  # fmt: skip
        heads.append([[0, 0], [0.12 * side, 0.16 * side]])
    annot = folder / "mpii" / "annot"
    annot.mkdir()
    (annot / "valid.json").write_text(json.dumps(rows))
    people = np.array([row["joints"] for row in rows])
    missing = 1 - np.array([row["joints_vis"] for row in rows])
    savemat(
        annot / "gt_valid.mat",
        {"pos_gt_src": people.transpose(1, 2, 0), "jnt_missing": missing.T,
         "headboxes_src": np.array(heads).transpose(1, 2, 0)},
    )  # fmt: skip


def _lsp(folder: Path, coco: Truth) -> int:
    """A photo a person; returns how many there are."""
    images = folder / "lsp" / "images"
    images.mkdir(parents=True)
    joints: list[NDArray[np.float64]] = []
    for photo, person in _people(coco):
        labels = _joints(person, LSP14)
        if not (labels[:12, 2] > 0).all():
            continue
        labels[12:, :2] = labels[8:10, :2]  # nobody asks for neck and top of the head
        labels[:, 2] = 0
        (images / f"im{len(joints) + 1:04}.jpg").symlink_to(photo.path)
        joints.append(labels)
    savemat(folder / "lsp" / "joints.mat", {"joints": np.array(joints).transpose(2, 1, 0)})
    return len(joints)


def _figures(model: PoseModel, truth: Truth) -> Figures:
    (measured,) = evaluate(model, None, truth, readings=READING, draws=20)
    figures = measured.figures
    assert figures.interval[0] <= figures.main <= figures.interval[1]
    assert "error_median" in figures.metrics
    assert all(
        len(person.pose.points) == len(truth.keypoints)
        for people in measured.people for person in people
    )  # fmt: skip
    return figures


@pytest.mark.data
def test_crowdpose_is_measured_on_the_joints_that_it_shares_with_the_model(
    model: PoseModel, coco: Truth, tmp_path: Path
) -> None:
    _crowdpose(tmp_path, coco)
    truth = read_truth(tmp_path, "crowdpose/test")
    assert truth.keypoints == CROWDPOSE14
    figures = _figures(model, truth)
    names = ["AP", "AP50", "AP75", "AR", "AR50", "AR75", "APE", "APM", "APH"]
    assert list(figures.metrics)[:9] == names
    assert 0.4 < figures.metrics["AP"] < 1
    assert all(figures.metrics[name] > 0 for name in ("APE", "APM", "APH"))
    # Everyone in its photos is labelled, so another detector's boxes may be read.
    boxes = {photo.image_id: [p.box for p in photo.people] for photo in truth.photos}
    found = DetectorBoxes("theirs", boxes)
    (measured,) = evaluate(model, found, truth, readings=READING, draws=2)
    assert measured.figures.metrics["AP"] == pytest.approx(figures.metrics["AP"], abs=0.1)


@pytest.mark.data
def test_mpii_is_measured_in_heads(model: PoseModel, coco: Truth, tmp_path: Path) -> None:
    _mpii(tmp_path, coco)
    truth = read_truth(tmp_path, "mpii/val")
    assert truth.keypoints == MPII16
    assert len(truth.heads) == len(_people(coco))
    figures = _figures(model, truth)
    # The last is what some published tables call @0.1.
    assert list(figures.metrics)[:3] == ["PCKh@0.5", "PCKh@0.1", "PCKh@0.11"]
    half, tenth, more = list(figures.metrics.values())[:3]
    assert 0 < tenth < more < half
    assert 0.5 < half < 1
    with pytest.raises(ValueError, match="mpii/val labels not everyone"):
        evaluate(model, DetectorBoxes("theirs", {}), truth)
    few = json.loads((tmp_path / "mpii/annot/valid.json").read_text())
    (tmp_path / "mpii/annot/valid.json").write_text(json.dumps(few * 2))
    with pytest.raises(ValueError, match="are of other people"):
        read_truth(tmp_path, "mpii/val")


@pytest.mark.data
def test_lsp_is_measured_in_torsos_and_limbs(
    model: PoseModel, coco: Truth, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = _lsp(tmp_path, coco)
    assert count >= 3
    assert not read_truth(tmp_path, "lsp/test").photos  # its first thousand are for training
    monkeypatch.setattr(module, "LSP_TRAIN", 1)
    truth = read_truth(tmp_path, "lsp/test")
    assert len(truth.photos) == count - 1
    figures = _figures(model, truth)
    assert list(figures.metrics)[:2] == ["PCK@0.2", "PCP"]
    assert 0.4 < figures.metrics["PCK@0.2"] <= 1
    assert 0.3 < figures.metrics["PCP"] <= 1


@pytest.mark.parametrize(("split", "complete"), [("coco/val", True), ("lspet/val", False)])
def test_a_set_s_own_file_does_not_say_whether_everyone_is_labelled(
    tmp_path: Path, split: Split, complete: bool
) -> None:
    file, _ = write_set(tmp_path / split.split("/")[0], [row(1)])
    labels = tmp_path / module._FILES[split]
    labels.parent.mkdir()
    file.rename(labels)
    assert [photo.complete for photo in read_truth(tmp_path, split).photos] == [complete]
    if split == "coco/val":
        (photo,) = read_photos(tmp_path / "coco", "val")
        assert photo.path == tmp_path / "coco" / "images" / "1.png"


def _painted(keypoints: KeypointSet) -> Truth:
    random = np.random.default_rng(0)
    photos = []
    for number in range(4):
        points = random.uniform(0, 100, (len(keypoints), 2))
        person = LabelledPerson(
            Path("x"), number, 10 + number, BOX, points, np.full(len(keypoints), 2, np.uint8)
        )
        photos.append(LabelledPhoto(Path("x"), number, (person,), False, None, ""))
    content = {"images": [{"id": number} for number in range(4)], "annotations": []}
    heads = {10 + number: 30.0 for number in range(4)}
    return Truth("mpii/val", content, tuple(photos), keypoints, heads)


def test_pckh_of_a_split_is_the_protocol_s_and_its_interval_is_over_photos() -> None:
    truth = _painted(MPII16).asking(COCO17.names)
    assert all((photo.people[0].visibility > 0).sum() == 12 for photo in truth.photos)
    off = [0.0, 10.0, 16.0, 3.2]
    people = [
        [Person(BOX, {"simcc": Pose(photo.people[0].points + np.array([aside, 0]), np.ones(16))})]
        for photo, aside in zip(truth.photos, off, strict=True)
    ]
    metrics, (low, high), _ = compare(truth, people, JointErrors.of(truth, people), 50)
    assert metrics["PCKh@0.5"] == 0.75
    assert metrics["PCKh@0.1"] == 0.25
    assert metrics["PCKh@0.11"] == 0.5
    assert low < 0.75 < high
    visible = np.array([photo.people[0].visibility > 0 for photo in truth.photos])
    points = np.array([photo.people[0].points for photo in truth.photos])
    found = np.array([row[0].pose.points for row in people])
    assert metrics["PCKh@0.5"] == pckh(found, points, visible, np.full(4, 30.0))[0]


def test_joints_go_over_by_name_and_those_that_lack_score_nothing() -> None:
    points = np.arange(34, dtype=float).reshape(17, 2)
    pose = Pose(points, np.linspace(0.1, 0.9, 17), None, np.arange(17.0))
    (person,) = named([Person(BOX, {"simcc": pose})], COCO17, CROWDPOSE14)
    for index, name in enumerate(CROWDPOSE14.names):
        if name in COCO17.names:
            own = COCO17.index(name)
            assert person.pose.points[index].tolist() == points[own].tolist()
            assert person.pose.scores[index] == pose.scores[own]
            assert person.pose.sigmas is not None
            assert person.pose.sigmas[index] == own
        else:
            assert person.pose.scores[index] == 0
    people = [Person(BOX, {"simcc": pose})]
    assert named(people, COCO17, COCO17) is people


def test_labels_that_a_model_cannot_find_are_not_asked_for() -> None:
    row = {"image_id": 1, "keypoints": [1.0, 1.0, 2] * 14, "num_keypoints": 14}
    crowd = Truth("crowdpose/test", {"images": [], "annotations": [row]}, (), CROWDPOSE14)
    (asked,) = crowd.asking(COCO17.names).content["annotations"]
    assert asked["num_keypoints"] == 12
    assert asked["keypoints"][36:] == [0.0] * 6
    assert row["num_keypoints"] == 14
    assert crowd.asking(CROWDPOSE14.names) is crowd
