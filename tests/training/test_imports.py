"""A network of this package, exported as mmdeploy does, answers through either path alike."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from models.bundle import file_digest, load_bundle
from models.codecs import SimccLabels
from models.engines import load_engine
from models.geometry import Box
from models.imports import Told, import_network
from models.manifest import PoseManifest
from models.networks.pose import PoseNetwork, PoseShape
from models.pixels import IMAGENET
from models.pose import PoseModel
from service.doctor import SAMPLE
from tests.norms import shaken
from training.graphs import export_graph

pytestmark = pytest.mark.usefixtures("one_thread")

# RTMPose-t's head and input on a smaller trunk of the same stride.
SHAPE = PoseShape(
    encoder="timm:resnet10t:32",
    matrix="legacy",
    heads=("simcc",),
    simcc_attention=True,
    simcc_labels=SimccLabels(normalised=False),
)


class Mmdeploy(nn.Module):
    """(n, 3, 256, 192) normalised to `simcc_x`, `simcc_y`."""

    def __init__(self, network: PoseNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        x, y = self.network.simcc(self.network.encoder(pixels))
        return x, y


@pytest.fixture(scope="module")
def network() -> PoseNetwork:
    torch.manual_seed(0)
    network = shaken(PoseNetwork(SHAPE)).eval()
    network.requires_grad_(False)
    crops = torch.randint(0, 256, (2, 256, 192, 3), dtype=torch.uint8)
    for axis, logits in zip(
        (network.simcc.x, network.simcc.y), network.simcc(network.encode(crops)), strict=True
    ):
        axis.weight *= 0.7 / logits.max()  # as high as a trained one's
    return network


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bundles")


def loaded(folder: Path) -> PoseModel:
    bundle = load_bundle(folder)
    return PoseModel(bundle, load_engine(bundle, threads=1))


@pytest.fixture(scope="module")
def imported(network: PoseNetwork, folder: Path) -> PoseModel:
    file = folder / "end2end.onnx"
    pixels = torch.randn(2, 3, 256, 192)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the older exporter, which mmdeploy uses, is deprecated
        torch.onnx.export(
            Mmdeploy(network).eval(),
            (pixels,),
            file,
            input_names=["input"],
            output_names=["simcc_x", "simcc_y"],
            dynamic_axes={name: {0: "batch"} for name in ("input", "simcc_x", "simcc_y")},
            opset_version=11,
            dynamo=False,
        )
    told = Told(name="imported", licence="Apache-2.0", source="this package")
    return loaded(import_network(file, folder, told).path)


@pytest.fixture(scope="module")
def native(network: PoseNetwork, folder: Path) -> PoseModel:
    """The same network as this package's own bundles are: bytes to features to logits."""
    own = folder / "native"
    own.mkdir()
    crops = torch.randint(0, 256, (2, 256, 192, 3), dtype=torch.uint8)
    features = network.encode(crops)
    batch: tuple[dict[int, object], ...] = ({0: torch.export.Dim("batch", min=1, max=64)},)
    export_graph(
        network, network.encode, own / "encoder.onnx", {"crops": crops}, ["features"], batch
    )
    export_graph(
        network, network.simcc, own / "simcc.onnx", {"features": features}, ["x", "y"], batch
    )
    manifest = {
        "schema_version": 1, "name": "native", "kind": "pose", "keypoint_set": "coco17",
        "input": {"width": 192, "height": 256, "largest_batch": 32},
        "crop": {"matrix": "legacy", "padding": 1.25},
        "encoder": "encoder.onnx", "feature_shape": list(features.shape[1:]),
        "heads": {
            "simcc": {
                "graph": "simcc.onnx", "split": 2, "sigma": [4.9, 5.66], "beta": 10,
                "decode": "argmax",
            }
        },
        "default_head": "simcc",
        "files": {name: file_digest(own / name) for name in ("encoder.onnx", "simcc.onnx")},
        "licence": "Apache-2.0", "accuracy": {},
        "provenance": {"data": "", "start": "", "recipe": "", "date": "2026-01-01"},
    }  # fmt: skip
    text = PoseManifest.model_validate(manifest).model_dump_json()
    (own / "manifest.json").write_text(text)
    return loaded(own)


@pytest.fixture(scope="module")
def crops(imported: PoseModel) -> NDArray[np.uint8]:
    image = np.asarray(Image.open(SAMPLE).convert("RGB"))
    boxes = [Box(95, 98, 102, 303), Box(200, 110, 95, 300), Box(0, 0, *image.shape[1::-1])]
    return np.stack(imported.cut(image, boxes)[1])


def test_import_finds_the_heads_own_settings(imported: PoseModel, native: PoseModel) -> None:
    ours, theirs = native.manifest.heads.simcc, imported.manifest.heads.simcc
    assert ours is not None
    assert theirs is not None
    assert theirs == ours.model_copy(update={"graph": theirs.graph})
    assert (imported.size, imported.keypoints) == (native.size, native.keypoints)
    assert imported.manifest.crop == native.manifest.crop


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("decode", ["argmax", "expectation"])
def test_both_paths_decode_alike(
    imported: PoseModel, native: PoseModel, crops: NDArray[np.uint8], decode: str, flip: bool
) -> None:
    ours, theirs = (
        model.decode(model.encode(crops, flip=flip), "simcc", decode)
        for model in (native, imported)
    )
    np.testing.assert_allclose(theirs.points, ours.points, atol=1e-3)
    np.testing.assert_allclose(theirs.scores, ours.scores, atol=1e-4)
    # The network says different things of different people.
    assert len(np.unique(np.round(theirs.points[..., 0]))) > 20
    assert np.ptp(theirs.scores) > 0.05


def test_it_is_what_torch_answers_decoded_as_published(
    network: PoseNetwork, imported: PoseModel, crops: NDArray[np.uint8]
) -> None:
    x, y = Mmdeploy(network)(torch.from_numpy(IMAGENET(crops)))
    decoded = imported.decode(imported.encode(crops), "simcc", "argmax")
    for axis, logits in enumerate((x, y)):
        np.testing.assert_allclose(decoded.points[..., axis], logits.argmax(-1) / 2)
    peaks = torch.minimum(x.amax(-1), y.amax(-1)).clamp(0, 1)
    np.testing.assert_allclose(decoded.scores, peaks, atol=1e-4)
