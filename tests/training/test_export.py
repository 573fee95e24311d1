import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from models.bundle import Bundle, BundleError, load_bundle
from models.codecs import SimccLabels
from models.engines import Engine, load_engine
from models.networks.pose import PoseNetwork, PoseShape
from models.pose import PoseModel
from tests.norms import shaken
from training import export
from training.config import Serving, SimccLoss
from training.describable import indescribable
from training.errors import ExportError
from training.export import export_bundle
from training.losses import OURS

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPE = PoseShape(size=(64, 64), cells=(4, 4), nerpe_width=16, nerpe_hidden=(16, 8), sinusoids=1)
SERVING = Serving(
    data="painted", start="nothing", default_head="nerpe", simcc="argmax", heatmap="quarter",
    blur=5, nerpe="standard", resolution=64, largest_batch=4,
)  # fmt: skip

RTMPOSE = SimccLoss(form="mmpose", beta=10, label_beta=10)


@pytest.fixture(scope="module")
def network() -> PoseNetwork:
    torch.manual_seed(0)
    network = shaken(PoseNetwork(SHAPE))
    nn.init.normal_(network.simcc.x.weight)
    return network


def _export(network: PoseNetwork, folder: Path) -> None:
    export_bundle(
        network, folder, name="tiny", recipe="tiny.toml", serving=SERVING, accuracy={"AP": 0.25}
    )


@pytest.fixture(scope="module")
def bundle(network: PoseNetwork, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("bundles") / "tiny"
    folder.mkdir()
    (folder / "CARD.md").write_text("a card")
    (folder / "stale.onnx").write_bytes(b"of an older export")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    _export(network, folder)
    after = network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    return load_bundle(folder)


@pytest.fixture(scope="module")
def engine(bundle: Bundle) -> Engine:
    return load_engine(bundle, threads=1)


def test_the_manifest_says_what_was_trained_and_measured(bundle: Bundle) -> None:
    manifest = bundle.pose
    assert (manifest.name, manifest.keypoint_set) == ("tiny", "coco17")
    assert (manifest.input.width, manifest.input.height) == SHAPE.size
    assert manifest.input.largest_batch == 4
    assert manifest.feature_shape == (40, 16, 16)
    assert manifest.crop.matrix == SHAPE.matrix
    assert manifest.accuracy == {"AP": 0.25}
    assert manifest.provenance.recipe == "tiny.toml"
    simcc, nerpe, heatmap = manifest.heads.simcc, manifest.heads.nerpe, manifest.heads.heatmap
    assert simcc
    assert nerpe
    assert heatmap
    assert (simcc.split, simcc.sigma, simcc.decode) == (2, SHAPE.simcc_sigma, "argmax")
    assert (nerpe.width, nerpe.height, nerpe.sigma) == (4, 4, SHAPE.nerpe_sigma)
    assert (nerpe.decode, nerpe.resolution) == ("standard", 64)
    assert (heatmap.width, heatmap.height, heatmap.grid) == (16, 16, "udp")
    assert (heatmap.sigma, heatmap.blur, heatmap.decode) == (2.0, 5, "quarter")
    assert manifest.default_head == "nerpe"


def test_only_graphs_and_the_manifest_are_replaced(bundle: Bundle) -> None:
    found = {path.name for path in bundle.path.iterdir()}
    assert found == {*bundle.manifest.files, "manifest.json", "CARD.md"}
    assert (bundle.path / "CARD.md").read_text() == "a card"
    assert [path.name for path in bundle.path.parent.iterdir()] == ["tiny"]


@pytest.mark.parametrize(("batch", "queries"), [(1, 1), (2, 7), (3, 40), (5, 1000)])
def test_graphs_answer_as_torch_does_on_any_batch(
    network: PoseNetwork, engine: Engine, batch: int, queries: int
) -> None:
    random = np.random.default_rng(batch)
    crops = random.integers(0, 256, (batch, 64, 64, 3), dtype=np.uint8)
    # Within, on the border of, and beyond the crop.
    points = random.uniform(-1.3, 1.3, (batch, queries, 2)).astype(np.float32)
    points[0, 0], points[-1, -1] = (0.75, 1.0), (0.75, 0.75)
    with torch.no_grad():
        features = network.encode(torch.from_numpy(crops))
        cells = network.nerpe.cells(features)
        expected = [
            features,
            *network.simcc(features),
            network.heatmap(features),
            cells,
            network.nerpe.field(cells, torch.from_numpy(points)),
        ]
    encoded = engine.encode(crops)
    (grid,) = engine.head("nerpe", encoded)
    found = [
        encoded,
        *engine.head("simcc", encoded),
        *engine.head("heatmap", encoded),
        grid,
        engine.field(grid, points),
    ]
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        scale = max(1.0, float(theirs.abs().max()))
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * scale)


def test_a_bundle_is_ready_to_be_served(bundle: Bundle, engine: Engine) -> None:
    model = PoseModel(bundle, engine)
    crops = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    features = model.encode(crops, flip=True)
    for head in model.heads:
        assert model.decode(features, head).points.shape == (2, 17, 2)
    assert model.decode(features, "nerpe").resolution == 64


@pytest.fixture
def copied(bundle: Bundle, tmp_path: Path) -> Iterator[Path]:
    """A bundle that an export must leave as it is."""
    folder = tmp_path / "tiny"
    shutil.copytree(bundle.path, folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    yield folder
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert load_bundle(folder).digest == bundle.digest
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


@pytest.fixture
def quick() -> PoseNetwork:
    """A network whose first graph, the encoder's, is exported in no time."""
    torch.manual_seed(0)
    return PoseNetwork(replace(SHAPE, encoder="timm:resnet18:4"))


def test_a_graph_that_differs_is_not_written(
    quick: PoseNetwork, copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "TOLERANCE", -1.0)
    with pytest.raises(ExportError, match=r"encoder\.onnx differs from torch by .*; not written"):
        _export(quick, copied)


@pytest.mark.parametrize(
    ("changes", "loss", "message"),
    [
        ({"heads": ("simcc",)}, OURS, "the default head nerpe is not one of simcc"),
        ({"simcc_labels": SimccLabels("equal")}, OURS, "this network has equal ones"),
        ({"nerpe_target": "laplace"}, OURS, "this network has laplace ones"),
        ({}, RTMPOSE, "beta 10, label_beta 10, the form mmpose and normalised = True"),
    ],
)
def test_what_no_manifest_describes_is_not_exported(
    changes: Any,  # noqa: ANN401
    loss: SimccLoss,
    message: str,
    tmp_path: Path,
) -> None:
    network = PoseNetwork(replace(SHAPE, **changes))
    with pytest.raises(ExportError, match=message):
        export_bundle(
            network, tmp_path / "b", name="b", recipe="r", serving=SERVING, accuracy={},
            simcc_loss=loss,
        )  # fmt: skip
    assert not list(tmp_path.iterdir())


def test_the_beta_that_logits_were_trained_with_is_in_the_manifest(tmp_path: Path) -> None:
    shape = replace(
        SHAPE, encoder="timm:resnet10t:32", heads=("simcc",),
        simcc_labels=SimccLabels(normalised=False),
    )  # fmt: skip
    manifest = export_bundle(
        PoseNetwork(shape), tmp_path / "b", name="b", recipe="r", accuracy={},
        serving=SERVING.model_copy(update={"default_head": "simcc"}), simcc_loss=RTMPOSE,
    )  # fmt: skip
    assert manifest.heads.simcc
    assert manifest.heads.simcc.beta == 10


@pytest.mark.parametrize(
    ("changes", "describable"),
    [({}, True), ({"form": "joints"}, False), ({"beta": 1}, False), ({"label_beta": 0}, False)],
)
def test_logits_that_are_neither_a_distribution_s_nor_labels_are_told(
    changes: dict[str, object], describable: bool
) -> None:
    shape = replace(SHAPE, simcc_labels=SimccLabels(normalised=False))
    assert indescribable(shape, OURS) is None
    reason = indescribable(shape, RTMPOSE.model_copy(update=changes))
    assert (reason is None) == describable


def test_weights_that_are_not_finite_are_not_written(quick: PoseNetwork, copied: Path) -> None:
    with torch.no_grad():
        quick.get_parameter("encoder.body.conv1.weight")[0, 0, 0, 0] = torch.nan
    with pytest.raises(ExportError, match=r"encoder\.onnx differs from torch by nan"):
        _export(quick, copied)


def test_a_bundle_half_replaced_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    # Cut off after some of the new graphs have come, before the new manifest has.
    folder = tmp_path / "tiny"
    shutil.copytree(bundle.path, folder)
    (folder / "encoder.onnx").write_bytes((folder / "simcc.onnx").read_bytes())
    with pytest.raises(BundleError, match=r"encoder\.onnx has sha256"):
        load_bundle(folder)
