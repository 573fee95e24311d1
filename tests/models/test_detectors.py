import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from models.bundle import Bundle, BundleError
from models.detectors import Detector, load_detector
from models.detectors.decode import Outputs
from models.detectors.dense import DenseDetector, Pixels
from models.engines import EngineError
from models.geometry import Box
from models.manifest import DetectorManifest

PHOTOS = 40
"""Of val, a fixed part that keeps the tests quick."""


def _noise(width: int, height: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _read(path: Path) -> NDArray[np.uint8]:
    return np.asarray(cv2.imread(str(path), cv2.IMREAD_COLOR_RGB), np.uint8)


def _iou(box: Box, other: tuple[float, float, float, float]) -> float:
    x, y, width, height = other
    shared_x = min(box.x + box.width, x + width) - max(box.x, x)
    shared_y = min(box.y + box.height, y + height) - max(box.y, y)
    shared = max(0.0, shared_x) * max(0.0, shared_y)
    return shared / (box.area + width * height - shared)


def _hold_promises(detector: Detector, image: NDArray[np.uint8], boxes: list[Box]) -> None:
    height, width = image.shape[:2]
    scores = [box.score for box in boxes]
    assert scores == sorted(scores, reverse=True)
    for box in boxes:
        assert np.isfinite([box.x, box.y, box.width, box.height]).all()
        assert box.width > 0
        assert box.height > 0
        assert box.x >= 0
        assert box.y >= 0
        assert box.x + box.width <= width + 1e-9
        assert box.y + box.height <= height + 1e-9
        assert 0 <= box.score <= 1


@pytest.fixture(scope="module")
def person_n() -> Detector:
    return load_detector("person-n", threads=1)


@pytest.fixture(scope="module")
def demo(data: Path) -> list[NDArray[np.uint8]]:
    return [_read(path) for path in sorted((data / "demo").glob("*.jpg"))]


@pytest.mark.data
def test_person_n_finds_the_people_of_a_photo(person_n: Detector, data: Path) -> None:
    (found,) = person_n.detect([_read(data / "demo/coco_000000163118.jpg")])
    # Two people jump for a disc.
    for person in [(263, 69, 110, 357), (151, 65, 153, 307)]:
        assert max(_iou(box, person) for box in found[:2]) > 0.8


@pytest.mark.data
def test_a_batch_of_photos_of_any_sizes_answers_as_each_alone(
    person_n: Detector, demo: list[NDArray[np.uint8]]
) -> None:
    sizes = {image.shape for image in demo}
    assert len(sizes) > 3
    together = person_n.detect(demo)
    for image, boxes in zip(demo, together, strict=True):
        (alone,) = person_n.detect([image])
        assert len(alone) == len(boxes)
        for box, same in zip(boxes, alone, strict=True):
            np.testing.assert_allclose(
                [box.x, box.y, box.width, box.height, box.score],
                [same.x, same.y, same.width, same.height, same.score],
                rtol=1e-4,
                atol=1e-2,
            )
        _hold_promises(person_n, image, boxes)


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (4000, 1), (7, 5), (3000, 20), (321, 319)])
@pytest.mark.parametrize("least", [0.0, None])
def test_photos_of_any_shape_are_answered(
    person_n: Detector, size: tuple[int, int], least: float | None
) -> None:
    image = _noise(*size)
    (boxes,) = person_n.detect([image], min_box_score=least)
    _hold_promises(person_n, image, boxes)


def test_no_photos_no_answers(person_n: Detector) -> None:
    assert person_n.detect([]) == []


@pytest.mark.data
def test_a_higher_threshold_only_takes_boxes_away(
    person_n: Detector, demo: list[NDArray[np.uint8]]
) -> None:
    for image in demo:
        (many,) = person_n.detect([image], min_box_score=0.1)
        (few,) = person_n.detect([image], min_box_score=0.5)
        assert few == [box for box in many if box.score >= 0.5]
        assert person_n.detect([image])[0] == [
            box for box in many if box.score >= person_n.min_box_score
        ]


@pytest.mark.data
def test_it_finds_in_a_much_larger_photo_what_it_finds_in_the_photo(
    person_n: Detector, data: Path
) -> None:
    image = _read(data / "demo/coco_000000203864.jpg")
    large = cv2.resize(image, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)
    (found,), (found_large,) = (
        person_n.detect([image]),
        person_n.detect([np.asarray(large, np.uint8)]),
    )
    for box, scaled in zip(found[:2], found_large[:2], strict=True):
        assert _iou(box, (scaled.x / 4, scaled.y / 4, scaled.width / 4, scaled.height / 4)) > 0.9


def _recall(detector: Detector, coco: Path) -> tuple[float, float]:
    """Of people with keypoints, IoU 0.5, best 5 boxes; and how many boxes those are a photo."""
    content = json.loads((coco / "annotations/person_keypoints_val.json").read_text())
    people: dict[int, list[tuple[float, float, float, float]]] = {}
    for row in content["annotations"]:
        if row["num_keypoints"] and not row["iscrowd"]:
            people.setdefault(row["image_id"], []).append(tuple(row["bbox"]))
    images = [image for image in content["images"] if image["id"] in people][:PHOTOS]
    found = total = boxes = 0
    for image in images:
        best = detector.detect([_read(coco / "images" / image["file_name"])])[0][:5]
        boxes += len(best)
        for person in people[image["id"]]:
            total += 1
            found += any(_iou(box, person) >= 0.5 for box in best)
    return found / total, boxes / len(images)


@pytest.mark.data
def test_person_n_keeps_its_recall(person_n: Detector, data: Path) -> None:
    recall, boxes = _recall(person_n, data / "coco")
    assert recall >= 0.66
    assert boxes <= 3.8


def test_whole_takes_the_image_for_the_person() -> None:
    whole = load_detector("whole")
    assert whole.name == "whole"
    assert whole.detect([_noise(30, 20), _noise(1, 1)]) == [
        [Box(0, 0, 30, 20, 1)],
        [Box(0, 0, 1, 1, 1)],
    ]


def test_an_unknown_detector_is_refused_with_what_there_is() -> None:
    with pytest.raises(BundleError, match=r"no bundle 'person-x': give one of .*person-n.*whole"):
        load_detector("person-x")


def test_a_device_that_is_missing_is_refused() -> None:
    with pytest.raises(EngineError, match="device"):
        load_detector("person-n", device="tpu")


def _manifest(**changes: object) -> DetectorManifest:
    content = {
        "schema_version": 1,
        "kind": "detector",
        "name": "made-up",
        "graph": "x.onnx",
        "files": {"x.onnx": ""},
        "input": {"width": 64, "height": 64, "largest_batch": 2},
        "decoder": "rtmdet",
        "score_threshold": 0.5,
        "nms_threshold": 0.6,
        "licence": "none",
        "provenance": {"data": "", "start": "", "recipe": "", "date": "2026-11-21"},
        "accuracy": {},
    }
    return DetectorManifest.model_validate(content | changes)


class _Recorder:
    """A graph that finds one box at a place of its own choice and remembers what it was fed."""

    def __init__(self, *distances: float) -> None:
        self.fed: list[Pixels] = []
        self.distances = distances

    def __call__(self, pixels: Pixels) -> Outputs:
        self.fed.append(pixels)
        level = np.full((len(pixels), 2, 2, 5), -20, np.float32)
        level[:, 1, 0] = 2.0, *self.distances
        return [level]


def test_graphs_are_fed_as_the_manifest_says() -> None:
    spec = {
        "width": 64,
        "height": 64,
        "layout": "NCHW",
        "dtype": "float32",
        "channels": "BGR",
        "normalisation": {"mean": [1, 2, 3], "std": [2, 4, 8]},
        "largest_batch": 2,
    }
    graph = _Recorder(8, 8, 8, 8)
    image = np.zeros((64, 64, 3), np.uint8)
    image[:] = 10, 20, 30
    DenseDetector(_manifest(input=spec), graph, device="cpu").detect([image])
    (fed,) = graph.fed
    assert fed.shape == (1, 3, 64, 64)
    assert fed.dtype == np.float32
    assert fed[0, :, 5, 5].tolist() == [(30 - 1) / 2, (20 - 2) / 4, (10 - 3) / 8]


def test_photos_that_share_an_input_size_go_together_up_to_the_largest_batch() -> None:
    graph = _Recorder(8, 8, 8, 8)
    detector = DenseDetector(_manifest(further_sizes=[[96, 32]]), graph, device="cpu")
    images = [_noise(50, 50), _noise(90, 30), _noise(40, 41), _noise(64, 64), _noise(300, 99)]
    found = detector.detect(images)
    assert sorted(pixels.shape for pixels in graph.fed) == [
        (1, 64, 64, 3),
        (2, 32, 96, 3),
        (2, 64, 64, 3),
    ]
    assert found == [detector.detect([image])[0] for image in images]
    assert len(found[0]) == 1


def test_boxes_return_to_the_photo_clipped() -> None:
    # The cell's point is (0, 32) of the input; the photo is twice as large and half as high.
    detector = DenseDetector(_manifest(), _Recorder(4, 8, 16, 99), device="cpu")
    ((box,),) = detector.detect([_noise(128, 100)])
    assert (box.x, box.y, box.width, box.height) == (0, 48, 32, 52)
    assert box.score == pytest.approx(1 / (1 + np.exp(-2)))


@pytest.mark.parametrize("distances", [(-9, 1, 1, 1), (1, 1, np.inf, 1), (np.nan, 1, 1, 1)])
def test_boxes_without_area_or_not_finite_are_no_answer(distances: tuple[float, ...]) -> None:
    detector = DenseDetector(_manifest(), _Recorder(*distances), device="cpu")
    assert detector.detect([_noise(64, 64)]) == [[]]


@pytest.fixture(scope="module")
def published(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    from training.detector.reference import reference_bundles

    return reference_bundles(data / "models/detectors", tmp_path_factory.mktemp("published"))


@pytest.mark.data
@pytest.mark.parametrize(("name", "least"), [("rtmdet-nano", 0.66), ("yolox-nano", 0.64)])
def test_the_published_files_run_through_the_same_path(
    published: dict[str, Bundle], data: Path, name: str, least: float
) -> None:
    detector = load_detector(published[name], threads=1)
    recall, _ = _recall(detector, data / "coco")
    assert recall >= least
