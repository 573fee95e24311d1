from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from models.bundle import BUNDLES, load_bundle
from models.codecs import Decoded
from models.engines import Engine, load_engine
from models.engines.onnx import OnnxEngine
from models.features import Features
from models.geometry import Box, CropGeometry
from models.keypoints import COCO17
from models.pose import PoseModel
from models.predictor import HeadChoice, Person, Pose, Predictor, person_score, poses_of, suppress

Floats = NDArray[np.float32]


class Counting(Engine):
    """An engine that remembers what it was asked."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.name, self.device = engine, engine.name, engine.device
        self.batches: list[int] = []
        self.heads: list[str] = []

    def encode(self, crops: NDArray[np.uint8]) -> Floats:
        self.batches.append(len(crops))
        return np.asarray(self.engine.encode(crops))

    def head(self, name: str, features: Floats) -> tuple[Floats, ...]:
        self.heads.append(name)
        return self.engine.head(name, features)

    def field(self, cells: Floats, points: Floats) -> Floats:
        return np.asarray(self.engine.field(cells, points))


@dataclass
class Told:
    """A detector that finds what it is told."""

    boxes: list[Box]
    name: str = "told"
    device: str = "cpu"
    min_box_score: float = 0.3
    asked: list[float | None] = field(default_factory=list)

    def detect(
        self, images: Sequence[NDArray[np.uint8]], *, min_box_score: float | None = None
    ) -> list[list[Box]]:
        self.asked.append(min_box_score)
        return [list(self.boxes) for _ in images]


@pytest.fixture(scope="module")
def engine() -> Engine:
    return load_engine(load_bundle(BUNDLES / "pose-s"), threads=1)


@pytest.fixture
def counting(engine: OnnxEngine) -> Counting:
    return Counting(engine)


@pytest.fixture
def model(counting: Counting) -> PoseModel:
    return PoseModel(load_bundle(BUNDLES / "pose-s"), counting)


@pytest.fixture(scope="module")
def image() -> NDArray[np.uint8]:
    coarse = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (320, 240)), np.uint8)


BOXES = [
    Box(10, 20, 100, 150),
    Box(150, 30, 90, 200),
    Box(10, 20, 100, 150),
    Box(-30, 100, 60, 60),
    Box(400, 300, 50, 80),
]


def _same(found: Person, expected: Person) -> None:
    assert found.box == expected.box
    assert found.poses.keys() == expected.poses.keys()
    for head, pose in found.poses.items():
        np.testing.assert_allclose(pose.scores, expected.poses[head].scores, atol=1e-4)


def test_given_boxes_are_answered_all_and_in_order(
    model: PoseModel, image: NDArray[np.uint8]
) -> None:
    people = Predictor(model).predict(image, boxes=BOXES)
    # One is there twice, one lies half outside the image and one lies outside of it altogether.
    assert [person.box for person in people] == BOXES
    assert people[0].box.score == 1
    for person, box in zip(people, BOXES, strict=True):
        _same(person, Predictor(model).predict(image, boxes=[box])[0])
        assert person.pose.points.shape == (17, 2)
        assert np.isfinite(person.pose.points).all()
        assert list(person.poses) == [model.default_head]


def test_joints_are_pixels_of_the_image(model: PoseModel, image: NDArray[np.uint8]) -> None:
    (person,) = Predictor(model).predict(image, boxes=BOXES[:1], heads=["heatmap"])
    (geometry,), (crop,) = model.cut(image, BOXES[:1])
    decoded = model.decode(model.encode(crop[None]), "heatmap")
    np.testing.assert_allclose(geometry.to_crop(person.pose.points), decoded.points[0], atol=1e-3)
    moved = np.pad(image, ((40, 0), (70, 0), (0, 0)))
    (other,) = Predictor(model).predict(moved, boxes=[Box(80, 60, 100, 150)], heads=["heatmap"])
    clear = person.pose.scores > 0.1
    # The pixels left of and above the image are as black as those of the padding.
    np.testing.assert_allclose(
        other.pose.points[clear], person.pose.points[clear] + [70, 40], atol=0.05
    )


def test_nobody_found_is_an_answer(
    model: PoseModel, counting: Counting, image: NDArray[np.uint8]
) -> None:
    assert Predictor(model, Told([])).predict(image) == []
    assert Predictor(model).predict(image, boxes=[]) == []
    assert counting.batches == []


def test_without_a_detector_boxes_must_be_given(model: PoseModel, image: NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match="give boxes"):
        Predictor(model).predict(image)


@pytest.mark.parametrize("boxes", [[], [Box(0, 0, 50, 50)]])
def test_what_the_model_does_not_have_is_refused_even_where_nobody_is(
    model: PoseModel, image: NDArray[np.uint8], boxes: list[Box]
) -> None:
    predictor = Predictor(model, Told(boxes))
    with pytest.raises(ValueError, match="head 'paf'"):
        predictor.predict(image, heads=["simcc", "paf"])
    with pytest.raises(ValueError, match="decode 'dark' of head 'simcc'"):
        predictor.predict(image, heads=[HeadChoice("simcc", "dark")])
    with pytest.raises(ValueError, match="resolution 4 is not"):
        predictor.predict(image, heads=[HeadChoice("nerpe", "progressive", 4)])


def test_a_box_without_area_is_refused(model: PoseModel, image: NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match="no area"):
        Predictor(model).predict(image, boxes=[Box(5, 5, 0, 10)])


def test_a_detected_pose_is_answered_once_with_its_best_box(
    model: PoseModel, image: NDArray[np.uint8]
) -> None:
    thrice = [Box(10, 20, 100, 150, score) for score in (0.9, 0.8, 0.7)]
    apart = Box(180, 30, 90, 200, 0.95)
    people = Predictor(model, Told([apart, *thrice])).predict(image)
    assert sorted(person.box.score for person in people) == [0.9, 0.95]
    assert [person.score for person in people] == sorted(
        (person.score for person in people), reverse=True
    )


def test_the_people_and_their_order_are_the_same_under_every_head(
    model: PoseModel, image: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(features: Features, head: str, *_: object, **__: object) -> Decoded:
        """Each head is surer of one end of the row than of the other."""
        scores = np.linspace(0.3, 0.9, len(features))
        if head == model.default_head:
            scores = scores[::-1]
        shape = (len(features), 17)
        return Decoded(np.full((*shape, 2), 9.0), np.broadcast_to(scores[:, None], shape))

    monkeypatch.setattr(model, "decode", told)
    predictor = Predictor(model, Told([Box(40 * i, 20, 30, 60, 0.9) for i in range(4)]))
    for head in model.heads:
        people = predictor.predict(image, heads=[head])
        assert [person.box.x for person in people] == [0, 40, 80, 120]
        assert all(list(person.poses) == [head] for person in people)
        own = [person.score for person in people]
        assert own == sorted(own, reverse=head == model.default_head)


def test_the_detector_is_asked_as_the_caller_wishes(
    model: PoseModel, image: NDArray[np.uint8]
) -> None:
    found = [Box(40 * i, 20, 30, 60, 1 - i / 10) for i in range(7)]
    detector = Told(found)
    people = Predictor(model, detector).predict(image, max_people=2, min_box_score=0.05)
    assert {person.box for person in people} == set(found[:2])
    Predictor(model, detector).predict(image)
    assert detector.asked == [0.05, None]


def test_heads_share_one_encoder_pass(
    model: PoseModel, counting: Counting, image: NDArray[np.uint8]
) -> None:
    heads = ["nerpe", "heatmap", "simcc"]
    people = Predictor(model).predict(image, boxes=BOXES[:2], heads=heads, flip=False)
    assert counting.batches == [2]
    assert counting.heads == heads
    counting.batches.clear()
    Predictor(model).predict(image, boxes=BOXES[:2], heads=heads, flip=True)
    assert counting.batches == [2, 2]
    for i, head in enumerate(heads):
        alone = Predictor(model).predict(image, boxes=BOXES[:2], heads=[head])
        for person, other in zip(people, alone, strict=True):
            assert list(person.poses) == heads
            np.testing.assert_array_equal(
                person.poses[head].scores, other.pose.scores, err_msg=f"{i} {head}"
            )
        resolutions = {person.poses[head].resolution for person in people}
        assert resolutions == ({None} if head != "nerpe" else {alone[0].pose.resolution})


def test_more_people_than_the_largest_batch_are_answered_in_parts(
    model: PoseModel, counting: Counting, image: NDArray[np.uint8]
) -> None:
    spec = model.manifest.input.model_copy(update={"largest_batch": 2})
    small = PoseModel(model.bundle, counting)
    small.manifest = model.manifest.model_copy(update={"input": spec})
    # A head that is named twice is run once, and nobody gets another one's joints for it.
    found = Predictor(small).predict(image, boxes=BOXES, heads=["simcc", "heatmap", "simcc"])
    assert counting.batches == [2, 2, 1]
    assert counting.heads == ["simcc"] * 3 + ["heatmap"] * 3
    together = Predictor(model).predict(image, boxes=BOXES, heads=["simcc", "heatmap"])
    for part, whole in zip(found, together, strict=True):
        _same(part, whole)


# Scores and sameness


def _person(offset: tuple[float, float], scores: Sequence[float] = (0.9,) * 17) -> Person:
    points = np.arange(34.0).reshape(17, 2) * 5 + offset
    return Person(Box(0, 0, 10, 10, 0.8), {"simcc": Pose(points, np.array(scores))})


def _crop_of(area: float) -> CropGeometry:
    width = np.sqrt(area * 0.75)
    return CropGeometry.from_box(Box(0, 0, width, width / 0.75), (192, 256), padding=1)


@pytest.mark.parametrize(
    ("area", "kept"), [(20000, [0]), (5000, [0, 1]), (13000, [0, 1]), (14000, [0])]
)
def test_poses_are_the_same_above_the_published_similarity(area: float, kept: list[int]) -> None:
    people = [_person((0, 0)), _person((3, 4), (0.8,) * 17)]
    assert suppress(people, [_crop_of(area)] * 2, COCO17) == kept
    variances = (2 * np.array(COCO17.sigmas)) ** 2
    similarity = np.exp(-25 / (2 * area * variances)).mean()
    published = {20000: 0.930364, 5000: 0.776402}
    if area in published:
        assert similarity == pytest.approx(published[int(area)], abs=5e-7)
    assert (similarity > 0.9) == (kept == [0])


def test_the_area_is_the_mean_of_the_two_crops() -> None:
    people = [_person((0, 0)), _person((3, 4))]
    # They are the same from 13,400 square pixels on.
    assert suppress(people, [_crop_of(24000), _crop_of(2000)], COCO17) == [0, 1]
    assert suppress(people, [_crop_of(26000), _crop_of(2000)], COCO17) == [0]


def test_of_the_same_poses_the_best_stays_and_the_best_comes_first() -> None:
    people = [
        _person((0, 0), (0.5,) * 17),
        _person((500, 0), (0.6,) * 17),
        _person((1, 0), (0.9,) * 17),
        _person((500, 1), (0.55,) * 17),
    ]
    assert suppress(people, [_crop_of(20000)] * 4, COCO17) == [2, 1]
    assert suppress([], [], COCO17) == []


def test_a_person_s_score_counts_the_joints_above_the_threshold() -> None:
    person = _person((0, 0), (0.9, 0.15, 0.5, 0.2, 0.7))
    assert person.score == person_score(person.box, person.pose) == pytest.approx(0.56)
    assert _person((0, 0), (0.2,) * 17).score == 0


def test_decoded_crops_become_poses_of_the_image() -> None:
    geometries = [_crop_of(20000), _crop_of(5000)]
    points = np.random.default_rng(0).uniform(0, 190, (2, 17, 2))
    decoded = Decoded(points.astype(np.float32), np.full((2, 17), 0.5, np.float32), 128)
    poses = poses_of(decoded, geometries)
    for pose, geometry, own in zip(poses, geometries, points, strict=True):
        np.testing.assert_allclose(geometry.to_crop(pose.points), own, atol=1e-4)
        assert pose.points.dtype == pose.scores.dtype == np.float64
        assert pose.resolution == 128
        assert pose.sigmas is None


def test_sigmas_are_pixels_of_the_image() -> None:
    geometries = [_crop_of(20000), _crop_of(5000)]
    sigmas = np.array([[1.0, 2.0], [3.0, 4.0]])
    decoded = Decoded(np.zeros((2, 2, 2)), np.ones((2, 2)), None, sigmas)
    for pose, geometry, own in zip(poses_of(decoded, geometries), geometries, sigmas, strict=True):
        ends = geometry.to_image(np.array([[0.0, 0.0], [1.0, 0.0]]))
        assert pose.sigmas is not None
        np.testing.assert_allclose(pose.sigmas, own * np.linalg.norm(ends[1] - ends[0]), rtol=0.01)
    (second,) = poses_of(decoded[1:], geometries[1:])
    assert second.sigmas is not None
    assert second.sigmas.tolist() == (sigmas[1] * geometries[1].scale).tolist()
