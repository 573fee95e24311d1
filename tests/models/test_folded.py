"""The trunk as it is served against the trunk as it is trained."""

import copy
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from models.codecs import HeatmapCodec
from models.geometry import Box, CropGeometry
from models.networks.batch_norm import fold_batch_norm
from models.networks.folded import FoldedEncoder, FoldedExchange, FoldedTrunk
from models.networks.layout import Layout
from models.networks.normalise import Normalise
from models.networks.tinypose import TinyPoseTrunk, load_pp_tinypose
from tests.norms import shaken
from training.data.images import read_image
from training.graphs import export_graph

pytestmark = pytest.mark.usefixtures("one_thread")

WEIGHTS = "models/teacher/tinypose_256x192_convs_fp16.safetensors"


@pytest.fixture(scope="module")
def trunk() -> TinyPoseTrunk:
    """Random weights, every bias and norm other than its neighbours'."""
    torch.manual_seed(0)
    return shaken(TinyPoseTrunk())


def _folded(trunk: TinyPoseTrunk) -> TinyPoseTrunk:
    trunk = copy.deepcopy(trunk)
    fold_batch_norm(trunk)
    return trunk.requires_grad_(False)


@pytest.mark.parametrize("size", [(64, 64), (192, 256)])
def test_the_folded_trunk_is_the_same_map(trunk: TinyPoseTrunk, size: tuple[int, int]) -> None:
    image = torch.randn(2, 3, size[1], size[0], generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = trunk(image)
        found = FoldedTrunk(_folded(trunk))(image)
    scale = float(expected.abs().max())
    assert float(expected.std()) > 0.01 * scale
    np.testing.assert_allclose(found, expected, atol=1e-5 * scale)


def test_the_border_of_a_crop_is_as_far_from_the_mean_as_before(trunk: TinyPoseTrunk) -> None:
    # White to the edge: a mean folded into biases would show in the outermost cells.
    crops = torch.full((1, 64, 64, 3), 255, dtype=torch.uint8)
    normalise = Normalise()
    with torch.no_grad():
        expected = trunk(normalise(crops))
        found = FoldedEncoder(normalise, _folded(trunk))(crops)
    np.testing.assert_allclose(found, expected, atol=1e-5 * float(expected.abs().max()))


def test_folding_leaves_the_trunk_as_it_is(trunk: TinyPoseTrunk) -> None:
    ready = _folded(trunk)
    before = {name: value.clone() for name, value in ready.state_dict().items()}
    FoldedEncoder(Normalise(), ready)
    assert all(torch.equal(before[name], value) for name, value in ready.state_dict().items())


def test_a_trunk_with_batch_norm_is_refused(trunk: TinyPoseTrunk) -> None:
    with pytest.raises(ValueError, match="batch norm is to be folded"):
        FoldedTrunk(trunk)


def test_a_shuffle_interleaves_what_the_places_mean() -> None:
    assert Layout((3, 1, 0, 2)).shuffled == Layout((3, 0, 1, 2))


def test_weights_stay_as_large_as_they_were(trunk: TinyPoseTrunk) -> None:
    """What trains the dense trunk takes steps of one size for all weights."""
    plain = _folded(trunk)
    folded, source = (
        [float(p[p != 0].abs().mean()) for p in network.parameters() if p.ndim == 4]
        for network in (FoldedTrunk(plain), plain)
    )
    assert min(folded) > 0.5 * min(source)


def test_the_graph_holds_no_copy_of_channels(trunk: TinyPoseTrunk, tmp_path: Path) -> None:
    crops = torch.zeros((2, 64, 64, 3), dtype=torch.uint8)
    path = tmp_path / "encoder.onnx"
    batch = torch.export.Dim("batch", min=1, max=64)
    encoder = FoldedEncoder(Normalise(), _folded(trunk))
    export_graph(encoder, encoder.forward, path, {"crops": crops}, ["features"], ({0: batch},))
    kinds = Counter(node.op_type for node in onnx.load(path).graph.node)
    copies = {"Split", "Slice", "Reshape", "Mul", "Gather", "BatchNormalization", "Unsqueeze"}
    assert not copies & set(kinds)
    assert kinds["Transpose"] == 1
    # Of the three sizes that the fusion's maps are brought to, next to the batch's.
    assert kinds["Concat"] == kinds["Resize"] - _doublings(encoder)


def _doublings(encoder: FoldedEncoder) -> int:
    """Upsamplings by two: one for each map that goes up in an exchange."""
    exchanges = [module for module in encoder.modules() if isinstance(module, FoldedExchange)]
    return sum(len(list(ups.children())) for exchange in exchanges for ups in exchange.up)


@pytest.mark.data
def test_joints_of_a_photo_stay_where_they_are(data: Path) -> None:
    trunk = TinyPoseTrunk().eval()
    head = load_pp_tinypose(trunk, data / WEIGHTS)
    pixels = read_image(data / "demo" / "astronaut.jpg")
    box = Box(0, 0, pixels.shape[1], pixels.shape[0])
    crops = torch.from_numpy(CropGeometry.from_box(box, (192, 256)).cut(pixels))[None]

    def joints(features: Tensor) -> tuple[np.ndarray, np.ndarray]:
        maps = nn.functional.conv2d(features, head["weight"], head["bias"]).numpy()
        decoded = HeatmapCodec((192, 256), (48, 64), 2.0, "udp", 9).decode(maps, "dark")
        return maps, np.asarray(decoded.points)

    with torch.no_grad():
        expected_maps, expected = joints(trunk(Normalise()(crops)))
        maps, points = joints(FoldedEncoder(Normalise(), _folded(trunk))(crops))
    assert expected_maps.max() > 0.5
    np.testing.assert_allclose(maps, expected_maps, atol=1e-4)
    np.testing.assert_allclose(points, expected, atol=1e-2)
