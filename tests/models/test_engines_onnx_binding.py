from pathlib import Path

import numpy as np
import pytest

from models.bundle import BUNDLES, Bundle, load_bundle
from models.engines import Floats, load_engine
from models.engines.auto import sample_crops
from models.engines.graphs import GraphEngine, Run
from models.engines.onnx import handed_on, open_session
from models.engines.onnx_binding import OnDevice, _Buffer, bound
from models.features import Features
from models.pose import PoseModel
from models.predictor import HeadChoice
from service.work import Crop, CropBatch, CropResult, run_crops


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundle(BUNDLES / "pose-s")


@pytest.fixture(scope="module")
def model(bundle: Bundle) -> PoseModel:
    """On an engine that hands arrays on as one on a GPU does, in the host's own memory."""
    stay = handed_on(bundle)

    def open_graph(path: Path) -> Run:
        return bound(open_session(path, threads=1), "cpu", stays=path in stay)

    return PoseModel(bundle, GraphEngine(bundle, open_graph, name="bound", device="cuda:0"))


@pytest.fixture(scope="module")
def plain(bundle: Bundle) -> PoseModel:
    return PoseModel(bundle, load_engine(bundle, threads=1))


@pytest.mark.parametrize("flip", [False, True])
def test_features_and_cells_stay_on_the_device_until_there_are_joints(
    model: PoseModel, plain: PoseModel, monkeypatch: pytest.MonkeyPatch, flip: bool
) -> None:
    crops = sample_crops(model.bundle)
    expected = plain.encode(crops, flip=flip)
    monkeypatch.setattr(_Buffer, "host", property(lambda _: pytest.fail("they came to the host")))
    features = model.encode(crops, flip=flip)
    assert isinstance(features.plain, OnDevice)
    for head in model.heads:
        ours, theirs = model.decode(features, head), plain.decode(expected, head)
        np.testing.assert_allclose(ours.points, theirs.points, atol=1e-3)
        np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-5)


def test_some_rows_of_a_batch_are_taken_from_where_they_are(
    model: PoseModel, plain: PoseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    crops = sample_crops(model.bundle)
    expected = plain.encode(crops).plain
    monkeypatch.setattr(_Buffer, "host", property(lambda _: pytest.fail("they came to the host")))
    features = model.engine.encode(crops)
    for rows in (slice(1, 3), slice(3), slice(-1, None), slice(2, 99)):
        (ours,) = model.engine.head("heatmap", features[1:][rows])
        (theirs,) = plain.engine.head("heatmap", expected[1:][rows])
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_on_the_host_they_are_arrays_like_others(model: PoseModel, plain: PoseModel) -> None:
    crops = sample_crops(model.bundle)
    features, expected = model.encode(crops), plain.encode(crops)
    array = features.plain
    assert (array.shape, array.nbytes, len(array)) == (
        expected.plain.shape, expected.plain.nbytes, 4
    )  # fmt: skip
    np.testing.assert_array_equal(array[1:3], expected.plain[1:3])
    np.testing.assert_array_equal(features[2:].half().plain, expected[2:].half().plain)
    joined = Features.stack([features[:1], features[3:]])
    np.testing.assert_array_equal(joined.plain, expected.plain[[0, 3]])
    assert features.finite.tolist() == [True] * 4
    assert array.astype(np.float32, copy=False) is array
    with pytest.raises(IndexError, match="one after the other"):
        array[::2]
    with pytest.raises(ValueError, match="only as a copy"):
        np.asarray(array, copy=False)


def test_a_served_batch_comes_to_the_host_once(
    model: PoseModel, plain: PoseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def host(self: _Buffer) -> Floats:
        seen.append(id(self))
        return np.asarray(self.value.numpy())

    # Of features alone: the heads' answers come to the host without it.
    monkeypatch.setattr(_Buffer, "host", property(host))
    crops = sample_crops(model.bundle)
    heads = tuple(HeadChoice(head, model.decodes[head][0], None) for head in model.heads)
    items = [Crop(crops[0], heads), Crop(crops[1], heads[:1]), Crop(crops[2], heads)]
    ours, theirs = (run_crops(one, CropBatch(items, crops)) for one in (model, plain))
    assert len(set(seen)) == 1
    for a, b in zip(ours, theirs, strict=True):
        assert isinstance(a, CropResult)
        assert isinstance(b, CropResult)
        assert a.decoded.keys() == b.decoded.keys()
        np.testing.assert_array_equal(a.features.half().plain, b.features.half().plain)
