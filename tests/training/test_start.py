"""Networks that start from the weights of a bundle."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.bundle import BUNDLES, load_bundle
from models.codecs import Decoded
from models.engines import load_engine
from models.geometry import Box, CropGeometry, Size
from models.networks.pose import PoseNetwork, PoseShape
from models.pose import PoseModel
from training.config import DataSource, Experiment, Schedule, Serving
from training.data.images import read_image
from training.errors import DataError
from training.start import start_network

pytestmark = pytest.mark.usefixtures("one_thread")

NAME = "pose-t"
SAMPLE = Path("service/page/sample.jpg")
BOXES = (Box(170, 90, 160, 300), Box(350, 110, 150, 290))

Configure = Callable[..., Experiment]


@pytest.fixture
def configure(tmp_path: Path) -> Configure:
    """An experiment on a shape that starts from a committed bundle."""
    source = DataSource(annotations=tmp_path / "none.json", images=tmp_path)

    def build(
        shape: PoseShape, start: Path = BUNDLES / NAME, *, fresh_heads: bool = False
    ) -> Experiment:
        return Experiment(
            name="further", runs=tmp_path, start=start, train=[source], dev=source, shape=shape,
            schedule=Schedule(steps=1), serving=Serving(data="", start=""),
            fresh_heads=fresh_heads,
        )  # fmt: skip

    return build


def _shape(size: Size) -> PoseShape:
    return PoseShape(encoder="tinypose-dense", size=size, cells=(size[0] // 16, size[1] // 16))


def _own_size() -> Size:
    entry = load_bundle(BUNDLES / NAME).pose.input
    return entry.width, entry.height


def _crops(size: Size) -> NDArray[np.uint8]:
    photo = read_image(SAMPLE)
    return np.stack([CropGeometry.from_box(box, size, matrix="udp").cut(photo) for box in BOXES])


def _joints(network: PoseNetwork, size: Size) -> tuple[Decoded, Decoded]:
    """What the heads find, as shares of the crop."""
    with torch.no_grad():
        features = network.eval().encode(torch.from_numpy(_crops(size)))
        shape = network.shape
        x, y = network.simcc(features)
        simcc = shape.simcc.decode(x, y)
        heatmap = network.heatmap_codec.decode(network.heatmap(features), "dark")
    return simcc, heatmap


def test_a_network_of_the_bundles_size_answers_as_the_bundle(configure: Configure) -> None:
    size = _own_size()
    network = start_network(configure(_shape(size))).eval()
    bundle = load_bundle(BUNDLES / NAME)
    engine = load_engine(bundle, threads=1)
    crops = _crops(size)
    with torch.no_grad():
        features = network.encode(torch.from_numpy(crops))
        found = [features, network.heatmap(features), *network.simcc(features)]
    served = engine.encode(crops)
    expected = [served, *engine.head("heatmap", served), *engine.head("simcc", served)]
    for own, other in zip(found, map(np.asarray, expected), strict=True):
        np.testing.assert_allclose(own, other, atol=1e-4 * float(np.abs(other).max()))


def test_on_larger_crops_it_finds_the_same_joints(configure: Configure) -> None:
    size = _own_size()
    larger = size[0] + 32, size[1] + 32
    before = _joints(start_network(configure(_shape(size))), size)
    after = _joints(start_network(configure(_shape(larger))), larger)
    for old, new in zip(before, after, strict=True):
        sure = np.asarray(old.scores) > np.median(np.asarray(old.scores))
        shares = [np.asarray(d.points)[sure] / s for d, s in ((old, size), (new, larger))]
        # Trained further it gets used to the larger people; now it is about right.
        assert np.median(np.abs(shares[0] - shares[1])) < 0.02


def test_all_of_the_dense_trunk_is_trained(configure: Configure) -> None:
    # It was not trained so itself, and has the zeros that folding puts there.
    network = start_network(configure(_shape((64, 64)), start=BUNDLES / "pose-s"))
    assert all(parameter.requires_grad for parameter in network.parameters())
    zeros = [p for p in network.encoder.parameters() if p.ndim == 4 and bool((p == 0).any())]
    crops: Tensor = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    torch.autograd.backward(network.encode(crops).square().mean())
    # Also what the shuffle units had no weight for.
    moved = [p for p in zeros if p.grad is not None and bool((p.grad[p == 0] != 0).any())]
    assert len(moved) > 20


def test_fresh_heads_take_the_trunk_alone(configure: Configure) -> None:
    torch.manual_seed(0)
    first = start_network(configure(_shape(_own_size()))).state_dict()
    fresh = start_network(configure(_shape(_own_size()), fresh_heads=True)).state_dict()
    same = {name for name in first if torch.equal(first[name], fresh[name])}
    assert {name for name in first if name.startswith("encoder.")} <= same
    assert not {"heatmap.joints.weight", "simcc.joints.weight", "simcc.x.weight"} & same


def test_another_trunk_is_refused(configure: Configure) -> None:
    shape = replace(_shape((64, 64)), encoder="tinypose")
    with pytest.raises(DataError, match="only the encoder `tinypose-dense`"):
        start_network(configure(shape))


def test_weights_of_pp_tinypose_are_no_start_of_the_dense_trunk(
    configure: Configure, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="checkpoint or a bundle"):
        start_network(configure(_shape((64, 64)), start=tmp_path / "weights.safetensors"))


def test_the_committed_bundles_can_be_gone_on_from(model: PoseModel, configure: Configure) -> None:
    entry = model.bundle.pose.input
    shape = _shape((entry.width, entry.height))
    start_network(configure(shape, start=model.bundle.path))
