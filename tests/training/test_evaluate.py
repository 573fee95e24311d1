from pathlib import Path

import numpy as np
import pytest

from models.detectors import load_detector
from models.geometry import Box
from models.keypoints import KeypointSet
from models.pose import PoseModel
from models.predictor import HeadChoice, Person, Pose
from training import sweep as sweeping
from training.comparison import match_people
from training.data.boxes import DetectorBoxes
from training.data.split import is_dev
from training.evaluate import evaluate, readings_of
from training.evaluation import Evaluation, record
from training.joint_errors import People
from training.metrics import KeypointMatches
from training.sweep import sweep
from training.truth import Truth, read_truth

pytestmark = pytest.mark.data

PHOTOS = 12


@pytest.fixture(scope="module")
def val(data: Path) -> Truth:
    return read_truth(data, "coco/val")


@pytest.fixture(scope="module")
def few(val: Truth) -> Truth:
    return val.of(val.with_people().photos[:PHOTOS])


def test_val_is_whole(val: Truth) -> None:
    assert len(val.photos) == len(val.content["images"]) == 440
    assert len(val.with_people().photos) == 400
    assert sum(len(photo.people) for photo in val.photos) == 1085


def test_dev_is_the_part_of_train_that_the_split_says(data: Path) -> None:
    dev = read_truth(data, "coco/dev")
    assert dev.photos
    assert all(is_dev(photo.image_id) for photo in dev.photos)
    assert {row["id"] for row in dev.content["images"]} == {p.image_id for p in dev.photos}
    # Photos in which only some people have a box are no measure of a detector.
    assert len(dev.complete().photos) < len(dev.photos)


def test_lsp_joints_go_where_the_reference_says(data: Path) -> None:
    lspet = read_truth(data, "lspet/val")
    # data/README.md: LSP's index to COCO's; neck and top of the head have no counterpart.
    counterpart = {0: 16, 1: 14, 2: 12, 3: 11, 4: 13, 5: 15, 6: 10, 7: 8, 8: 6, 9: 5, 10: 7, 11: 9}
    rows = {row["id"]: row for row in lspet.content["annotations"]}
    for photo in lspet.photos[:50]:
        (person,) = photo.people
        joints = np.array(rows[person.annotation_id]["keypoints"]).reshape(14, 3)
        for source, target in counterpart.items():
            if joints[source, 2]:
                assert person.points[target] == pytest.approx(joints[source, :2])
        assert not person.visibility[:5].any()


def test_perfect_joints_have_ap_one(val: Truth) -> None:
    truth = val.with_people()
    people = [
        [Person(p.box, {"simcc": Pose(p.points, np.ones(17))}) for p in photo.people]
        for photo in truth.photos
    ]
    assert match_people(truth, people).stats["AP"] == pytest.approx(1, abs=1e-6)


def test_every_head_and_decode_is_sane_on_a_few_photos(model: PoseModel, few: Truth) -> None:
    measured = [part.figures for part in evaluate(model, None, few)]
    assert [(row.head, row.decode) for row in measured] == [
        (reading.head, reading.decode) for reading in readings_of(model)
    ]
    for row in measured:
        assert row.found == row.people == sum(len(photo.people) for photo in few.photos)
        assert row.photos == PHOTOS
        assert row.main == row.metrics["AP"] == pytest.approx(np.mean(row.by_threshold))
        assert 0.35 < row.main < 0.95, (row.head, row.decode)
        assert row.interval[0] < row.main < row.interval[1]
        assert row.metrics["AP50"] > row.metrics["AP75"]
        assert 0.005 < row.metrics["error_median"] < 0.1
    by_decode = {(row.head, row.decode): row.metrics for row in measured}
    dark, coarse = by_decode["heatmap", "dark"], by_decode["heatmap", "argmax"]
    assert dark["error_median"] < coarse["error_median"]


def test_flip_reads_the_mirrored_crop_too(model: PoseModel, few: Truth) -> None:
    reading = [HeadChoice("heatmap", "dark")]
    (plain,) = evaluate(model, None, few, readings=reading, draws=2)
    (both,) = evaluate(model, None, few, readings=reading, flip=True, draws=2)
    assert both.figures.flip
    assert both.figures.main != plain.figures.main
    assert both.figures.main > plain.figures.main - 0.1


def test_the_whole_path_finds_the_people(model: PoseModel, few: Truth) -> None:
    detector = load_detector("person-n", threads=1)
    reading = [HeadChoice("heatmap", "dark")]
    (measured,) = evaluate(model, detector, few, readings=reading, draws=2)
    row = measured.figures
    assert row.boxes == "person-n"
    assert row.found >= PHOTOS
    assert all(len(people) <= 20 for people in measured.people)
    assert row.main > 0.25
    assert set(row.metrics).isdisjoint({"error_median", "error_mean"})


def test_lsp_is_measured_in_torsos_with_its_own_boxes(model: PoseModel, data: Path) -> None:
    lspet = read_truth(data, "lspet/val")
    few = lspet.of(lspet.photos[:PHOTOS])
    (measured,) = evaluate(model, None, few, readings=[HeadChoice("heatmap", "dark")])
    row = measured.figures
    assert list(row.metrics)[:3] == ["PCK@0.2", "error_median", "error_mean"]
    assert 0.3 < row.main <= 1
    assert row.interval[0] <= row.main <= row.interval[1]
    with pytest.raises(ValueError, match="lspet/val"):
        evaluate(model, load_detector("whole"), few)


def test_sweep_varies_one_field_of_the_manifest(model: PoseModel, few: Truth) -> None:
    own = model.manifest.heads.heatmap
    assert own is not None
    other = 1 if own.blur > 1 else 11
    choice = ("heatmap", "dark", "blur")
    trials = sweep(model, few, choices={choice: (own.blur, other)}, draws=2)
    (measured,) = evaluate(model, None, few, readings=[HeadChoice("heatmap", "dark")], draws=2)
    assert [trial.value for trial in trials] == [own.blur, other]
    assert trials[0].ap == measured.figures.main
    assert trials[1].ap != trials[0].ap


@pytest.mark.parametrize("decode", ["progressive", "gaussian"])
def test_sweep_reads_each_decode_of_nerpe_on_every_lattice_it_names(
    model: PoseModel, few: Truth, decode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = []

    def matched(truth: Truth, people: People) -> KeypointMatches:
        used.append({person.pose.resolution for photo in people for person in photo})
        return match_people(truth, people)

    monkeypatch.setattr(sweeping, "match_people", matched)
    sweep(model, few, choices={("nerpe", decode, "resolution"): (32, 128)}, draws=2)
    assert used == [{32}, {128}]


def test_standard_is_read_only_where_asked_for(model: PoseModel) -> None:
    assert all(reading.decode != "standard" for reading in readings_of(model))
    assert HeadChoice("nerpe", "standard", 64) in readings_of(model, standard=64)


def test_record_keeps_what_is_of_the_same_weights(
    model: PoseModel, few: Truth, tmp_path: Path
) -> None:
    path = tmp_path / "evaluation.json"
    decodes = [HeadChoice("heatmap", "dark"), HeadChoice("heatmap", "argmax")]
    dark, coarse = (part.figures for part in evaluate(model, None, few, readings=decodes, draws=2))
    record(path, model, [dark])
    record(path, model, [coarse])
    again = dark.model_copy(update={"seconds": 1e6})
    record(path, model, [again])
    kept = Evaluation.model_validate_json(path.read_bytes())
    assert kept.rows == (again, coarse)
    assert kept.bundle == model.name

    stale = kept.model_copy(update={"weights": "sha256:0"})
    path.write_text(stale.model_dump_json())
    assert record(path, model, [coarse]).rows == (coarse,)
    assert list(tmp_path.iterdir()) == [path]


def test_a_model_without_a_joint_of_the_split_is_refused(few: Truth) -> None:
    class Hands:
        keypoints = KeypointSet("hands", ("thumb",), (), (0.1,))

    with pytest.raises(ValueError, match="coco/val labels none of the model's joints"):
        evaluate(Hands(), None, few)  # type: ignore[arg-type]


def test_a_file_s_boxes_are_looked_at_as_a_detector_s(model: PoseModel, few: Truth) -> None:
    reading = HeadChoice("simcc", "argmax")
    (plain,) = evaluate(model, None, few, readings=[reading], draws=2)
    rows = {
        photo.image_id: [
            Box(box.x, box.y, box.width, box.height, 0.5)
            for person in photo.people
            for box in (person.box, person.box)
        ]
        for photo in few.photos[1:]
    }
    complete = few.of([photo for photo in few.photos if photo.complete])
    (found,) = evaluate(model, DetectorBoxes("theirs", rows), complete, readings=[reading], draws=2)
    assert found.figures.boxes == "theirs"
    by_image = dict(zip((photo.image_id for photo in few.photos), plain.people, strict=True))
    for photo, people in zip(complete.photos, found.people, strict=True):
        # Each box was there twice and its person is answered once; a photo without boxes has none.
        expected = by_image[photo.image_id] if photo.image_id in rows else []
        assert len(people) <= len(expected)
        assert bool(people) == bool(expected)
        for person in people:
            assert person.box.score == 0.5
            (match,) = {
                round(other.score, 6)
                for other in expected
                if other.box.x == person.box.x and other.box.width == person.box.width
            }
            assert person.score == pytest.approx(match / 2, abs=1e-6)
