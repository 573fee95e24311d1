import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.bundle import load_bundle
from models.geometry import Box
from training.data.split import is_dev
from training.detector.augment import Augmentation, augmented
from training.detector.config import Experiment
from training.detector.evaluate import measure, threshold_for
from training.detector.export import describe, export_graph, write_bundle
from training.detector.network import STRIDES, RtmdetNano
from training.detector.photos import Photo, read_photos
from training.detector.reference import RTMDET_FILE
from training.detector.train import network_input, train_detector
from training.errors import DataError, ExportError

EXPERIMENT = Path(__file__).parents[2] / "training/experiments/person-n.toml"


@pytest.fixture(scope="module")
def rtmdet_file(data: Path) -> Path:
    return data / "models/detectors" / RTMDET_FILE


@pytest.fixture(scope="module")
def network(rtmdet_file: Path) -> RtmdetNano:
    network = RtmdetNano().eval()
    network.load_onnx(rtmdet_file)
    return network


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    return Experiment.read(EXPERIMENT)


@pytest.mark.data
def test_the_network_is_the_published_one(
    network: RtmdetNano, rtmdet_file: Path, data: Path
) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(rtmdet_file, providers=["CPUExecutionProvider"])
    for photo in read_photos(data / "coco", "val")[:3]:
        pixels = photo.pixels()[:320, :320]
        pixels = np.pad(pixels, [(0, 320 - pixels.shape[0]), (0, 320 - pixels.shape[1]), (0, 0)])
        images = network_input(pixels[None])
        with torch.no_grad():
            found = network(images)
        wanted = session.run(None, {"images": images.numpy()})
        for stride, left, right in zip(STRIDES, found, wanted, strict=True):
            np.testing.assert_allclose(left[..., 0].numpy(), right[..., 0], rtol=0, atol=1e-3)
            # The last convolution emits distances in strides.
            edges = left[..., 1:].numpy() / stride, right[..., 1:] / stride
            np.testing.assert_allclose(*edges, rtol=0, atol=1e-3)


@pytest.mark.data
def test_a_file_of_another_network_is_refused(data: Path) -> None:
    with pytest.raises(ValueError, match=r"yolox_nano.* has \d+ convolutions, the network 123"):
        RtmdetNano().load_onnx(data / "models/detectors/yolox_nano_coco_416.onnx")


@pytest.mark.data
def test_a_convolution_of_another_shape_is_refused(rtmdet_file: Path, tmp_path: Path) -> None:
    model = onnx.load(rtmdet_file)
    for item in next(node for node in model.graph.node if node.op_type == "Conv").attribute:
        if item.name == "strides":
            item.ints[:] = [1, 1]
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(ValueError, match=r"other.onnx: .* the network's is"):
        RtmdetNano().load_onnx(tmp_path / "other.onnx")


@pytest.fixture(scope="module")
def graph(network: RtmdetNano, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("graph") / "detector.onnx"
    export_graph(network, path)
    return path


@pytest.mark.data
def test_what_is_exported_becomes_a_bundle_that_loads(
    graph: Path, experiment: Experiment, tmp_path: Path
) -> None:
    description = describe(experiment, threshold=0.25, accuracy={"coco_val_recall": 0.5})
    bundle = write_bundle(tmp_path / "person-t", graph, description)
    assert bundle == load_bundle(tmp_path / "person-t")
    assert bundle.detector.name == "person-t"
    assert bundle.detector.score_threshold == 0.25
    assert [path.name for path in graph.parent.iterdir()] == ["detector.onnx"]


@pytest.mark.data
def test_an_exported_graph_tells_nothing_of_the_machine_it_was_made_on(graph: Path) -> None:
    content = graph.read_bytes()
    assert b"site-packages" not in content
    assert str(Path.cwd()).encode() not in content


@pytest.mark.data
def test_a_graph_that_differs_from_the_network_is_not_written(
    network: RtmdetNano, graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = onnx.load(graph)
    kernel = next(item for item in model.graph.initializer if len(item.dims) == 4)
    damaged = onnx.numpy_helper.to_array(kernel) * np.float32(1.01)
    kernel.CopyFrom(onnx.numpy_helper.from_array(damaged, kernel.name))
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: SimpleNamespace(model_proto=model))
    with pytest.raises(ExportError, match="differ"):
        export_graph(network, tmp_path / "detector.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.data
def test_dev_is_a_part_of_train_and_photos_with_unboxed_people_are_in_neither(data: Path) -> None:
    splits = {split: read_photos(data / "coco", split) for split in ("train", "dev", "val")}
    ids = {split: {photo.image_id for photo in photos} for split, photos in splits.items()}
    assert not ids["train"] & ids["dev"]
    assert not (ids["train"] | ids["dev"]) & ids["val"]
    assert all(map(is_dev, ids["dev"]))
    assert len(ids["train"]) + len(ids["dev"]) == 2016 - 40
    assert sum(photo.posed.sum() for photo in splits["val"]) == 1085


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(40, 400), st.integers(40, 400))
def test_augmented_boxes_stay_on_what_they_frame(seed: int, width: int, height: int) -> None:
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 0.6, 2) * (width, height)
    corners = np.concatenate([low, low + rng.uniform(0.2, 0.4, 2) * (width, height)]).round()
    x1, y1, x2, y2 = corners.astype(int)
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[y1:y2, x1:x2] = 250
    # Padding is 114: neither the frame's black nor its white.
    plain = Augmentation(brightness=0, saturation=0, hue=0)
    sample = augmented(pixels, corners[None], np.zeros((0, 4)), (192, 160), plain, rng)
    rows, columns = np.nonzero(sample.pixels[..., 0] > 125)
    assert len(sample.people) + len(sample.ignored) == 1
    if len(sample.people) and len(rows):
        seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(sample.people[0], seen, atol=1.01)


def test_a_crowd_is_ignored_and_not_taught() -> None:
    crowd = np.array([[10.0, 10, 90, 90]])
    sample = augmented(
        np.zeros((100, 100, 3), np.uint8),
        np.zeros((0, 4)),
        crowd,
        (320, 320),
        Augmentation(scale=(1, 1.0001)),
        np.random.default_rng(0),
    )
    assert sample.people.shape == (0, 4)
    np.testing.assert_allclose(sample.ignored, [[32, 32, 288, 288]], atol=0.5)


def _photo(people: NDArray[np.float64], posed: list[bool]) -> Photo:
    return Photo(Path("none.jpg"), 0, people, np.array(posed), np.zeros((0, 4)))


def test_figures_of_a_case_worked_out_by_hand() -> None:
    photo = _photo(
        np.array([[0.0, 0, 200, 200], [300, 0, 340, 40], [0, 300, 50, 350]]), [True, True, False]
    )
    found = [
        Box(0, 0, 200, 190, 0.9),  # the large person
        Box(0, 10, 200, 190, 0.8),  # the same one again
        Box(0, 300, 50, 50, 0.7),  # the one without keypoints: no stray, but not counted either
        Box(500, 500, 9, 9, 0.6),  # nobody
        Box(300, 0, 40, 40, 0.3),  # the small one
    ]
    all_five = measure([found], [photo], 0.2)
    assert (all_five.recall, all_five.matched) == (1.0, 1.0)
    assert (all_five.large, all_five.small) == (1.0, 1.0)
    assert (all_five.boxes, all_five.boxes_all, all_five.false) == (5.0, 5.0, 1.0)
    fewer = measure([found], [photo], 0.5)
    assert (fewer.recall, fewer.large, fewer.small, fewer.boxes) == (0.5, 1.0, 0.0, 4.0)


def test_a_box_finds_one_person_at_most_where_it_is_matched() -> None:
    twins = _photo(np.array([[0.0, 0, 100, 100], [0, 20, 100, 120]]), [True, True])
    figures = measure([[Box(0, 10, 100, 100, 0.9)]], [twins], 0.1)
    assert (figures.recall, figures.matched) == (1.0, 0.5)


def test_only_the_best_five_boxes_count_for_recall() -> None:
    person = _photo(np.array([[0.0, 0, 100, 100]]), [True])
    strays = [Box(500, 500, 9, 9, 0.9 - index / 100) for index in range(5)]
    assert measure([[*strays, Box(0, 0, 100, 100, 0.5)]], [person], 0.1).recall == 0
    assert measure([[*strays[:4], Box(0, 0, 100, 100, 0.5)]], [person], 0.1).recall == 1


def test_the_threshold_is_the_least_that_keeps_to_the_boxes_allowed() -> None:
    person = _photo(np.array([[0.0, 0, 100, 100]]), [True])
    found = [[Box(0, 0, 100, 100, score) for score in (0.9, 0.405, 0.205)]]
    assert threshold_for(found, [person], 3) == 0.02
    assert threshold_for(found, [person], 2) == 0.21
    assert threshold_for(found, [person], 1.5) == 0.41


def test_a_damaged_photo_is_named(tmp_path: Path) -> None:
    path = tmp_path / "damaged.jpg"
    path.write_bytes(b"\xff\xd8")
    photo = replace(_photo(np.zeros((0, 4)), []), path=path)
    with pytest.raises(DataError, match=r"damaged\.jpg cannot be read as a picture"):
        photo.pixels()


@pytest.mark.data
def test_a_run_that_was_interrupted_ends_as_one_that_was_not(
    experiment: Experiment, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training.detector import train

    few = [photo for photo in read_photos(data / "coco", "train") if photo.posed.any()][:8]
    monkeypatch.setattr(train, "read_photos", lambda coco, split: few)
    monkeypatch.setattr(train, "measure_dev", lambda *_: {})
    monkeypatch.setattr(train, "_SAVE_EVERY", 1)
    quick = experiment.model_copy(update={"batch": 2, "epochs": 1, "sizes": ((96, 96), (128, 64))})
    train_detector(quick, data, tmp_path / "whole")

    class PowerCutError(Exception):
        pass

    step = train._step

    def step_once(run: train.Run, *rest: Any) -> tuple[float, float]:  # noqa: ANN401
        if run.step == 2:
            raise PowerCutError
        return step(run, *rest)

    monkeypatch.setattr(train, "_step", step_once)
    with pytest.raises(PowerCutError):
        train_detector(quick, data, tmp_path / "parts")
    monkeypatch.setattr(train, "_step", step)
    train_detector(quick, data, tmp_path / "parts")
    ends = [torch.load(tmp_path / name / "epoch-01.pt") for name in ("whole", "parts")]
    start = train.Run.start(quick, data).network.state_dict()
    for name, value in ends[0].items():
        assert torch.equal(value, ends[1][name])
    assert any(not torch.equal(value, start[name]) for name, value in ends[0].items())
    rows = [json.loads(line) for line in (tmp_path / "parts/log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
