from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch")

import torch

from models.bundle import BUNDLES, load_bundle
from models.engines.auto import SCORED, sample_crops
from models.pose import PoseModel
from models.predictor import HeadChoice
from service.catalog import load_catalog
from service.settings import Settings
from service.work import Crop, CropBatch, CropResult, FieldQuery, run_crops, run_field


@pytest.fixture(scope="module")
def models() -> tuple[PoseModel, PoseModel]:
    """On torch, and on ONNX Runtime."""
    ours, theirs = (
        load_catalog(Settings(engine=name, threads=1)) for name in ("torch", "onnxruntime")
    )
    assert ours.model(None).engine.name == "torch"
    return ours.model(None), theirs.model(None)


@pytest.fixture(scope="module")
def crops() -> NDArray[np.uint8]:
    return sample_crops(load_bundle(BUNDLES / "pose-s"))


def _served(model: PoseModel, crops: NDArray[np.uint8]) -> Sequence[CropResult]:
    """Three crops in a batch filled up to four, not all with the same heads."""
    heads = tuple(HeadChoice(head, model.decodes[head][0], None) for head in model.heads)
    items = [Crop(crops[0], heads), Crop(crops[1], heads[:1]), Crop(crops[2], heads)]
    results = run_crops(model, CropBatch(items, crops))
    assert all(isinstance(result, CropResult) for result in results), results
    return [result for result in results if isinstance(result, CropResult)]


def test_a_served_batch_and_its_kept_features_answer_as_on_onnx_runtime(
    models: tuple[PoseModel, PoseModel], crops: NDArray[np.uint8]
) -> None:
    results = [_served(model, crops) for model in models]
    for ours, theirs in zip(*results, strict=True):
        assert ours.decoded.keys() == theirs.decoded.keys()
        for head, joints in theirs.decoded.items():
            sure = np.asarray(joints.scores) > SCORED
            np.testing.assert_allclose(
                ours.decoded[head].points[sure], joints.points[sure], atol=0.01
            )
        kept = ours.features.half()
        assert isinstance(kept.plain, np.ndarray)
        assert kept.plain.dtype == np.float16
        columns, rows = np.linspace(0, 191, 24), np.linspace(0, 255, 32)
        for head in models[0].heads:
            query = FieldQuery(kept, head, columns, rows, (0, 5), False, False)
            found, expected = (np.asarray(run_field(model, query)) for model in models)
            np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_crop_without_numbers_fails_alone(
    models: tuple[PoseModel, PoseModel],
    crops: NDArray[np.uint8],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = models[0]
    encode = model.engine.encode

    def spoilt(pixels: NDArray[np.uint8]) -> object:
        features = encode(pixels).clone()
        features[1] = torch.nan
        return features

    monkeypatch.setattr(model.engine, "encode", spoilt)
    heads = (HeadChoice("heatmap", "dark", None),)
    results = run_crops(model, CropBatch([Crop(x, heads) for x in crops], crops))
    assert [isinstance(x, CropResult) for x in results] == [True, False, True, True]
