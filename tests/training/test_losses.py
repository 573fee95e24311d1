import math
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.codecs import HeatmapCodec, NerpeCodec
from models.geometry import normalise
from models.networks.pose import PoseNetwork, PoseShape
from training.config import LossWeights, SimccLoss
from training.losses import (
    Batch,
    divergence,
    pose_losses,
    resampled,
    sampled,
    sampled_near,
    weighted,
)
from training.teacher import teacher_codec

pytestmark = pytest.mark.usefixtures("one_thread")

# NerPE's bump as wide as the heatmap's, in px.
SHAPE = PoseShape(size=(64, 64), cells=(4, 4), nerpe_sigma=0.25)
FEATURES = torch.zeros((2, 40, 16, 16))


class Simcc(nn.Module):
    """Answers what it holds."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        super().__init__()
        self.x, self.y = nn.Parameter(x), nn.Parameter(y)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return self.x, self.y


class Heatmap(nn.Module):
    def __init__(self, maps: Tensor) -> None:
        super().__init__()
        self.maps = nn.Parameter(maps)

    def forward(self, features: Tensor) -> Tensor:
        return self.maps


class Nerpe(nn.Module):
    """All four neighbours answer a perfect field of some joints, plus what it holds."""

    columns, rows = SHAPE.cells

    def __init__(self, points: Tensor) -> None:
        super().__init__()
        self.points = points
        self.wrong = nn.Parameter(torch.zeros(17))

    def cells(self, features: Tensor) -> Tensor:
        return features

    def neighbours(self, cells: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        values = SHAPE.nerpe.encode(self.points, positions) + self.wrong
        four = values[:, None].expand(-1, 4, -1, -1)
        return four, torch.full(four.shape[:3], 0.25)


@pytest.fixture
def batch() -> Batch:
    random = torch.Generator().manual_seed(0)
    points = 12 + 40 * torch.rand((2, 17, 2), generator=random)
    visible = torch.ones((2, 17), dtype=torch.bool)
    visible[:, 3] = False
    return {"points": points, "visible": visible}


def _perfect(batch: Batch) -> PoseNetwork:
    """A network that answers the labels by heart."""
    network = PoseNetwork(SHAPE)
    everyone = torch.ones_like(batch["visible"])
    x, y, _ = SHAPE.simcc.encode(batch["points"], everyone)
    network.simcc = Simcc((x + 1e-30).log(), (y + 1e-30).log())  # type: ignore[assignment]
    maps, _ = network.heatmap_codec.encode(batch["points"], everyone)
    network.heatmap = Heatmap(maps)  # type: ignore[assignment]
    network.nerpe = Nerpe(batch["points"])  # type: ignore[assignment]
    return network


def _losses(
    network: PoseNetwork, batch: Batch, share: float = 0.5, near: int = 0
) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return pose_losses(
        network, FEATURES, batch, teacher_share=share, samples=4, generator=generator, near=near
    )


def _gradients(network: PoseNetwork, losses: dict[str, Tensor]) -> dict[str, Tensor]:
    """(K,) by head: whether a joint's own outputs have a gradient."""
    torch.autograd.backward(list(losses.values()))
    simcc: Any = network.simcc
    heatmap: Any = network.heatmap
    nerpe: Any = network.nerpe
    return {
        "simcc": simcc.x.grad.abs().sum((0, 2)) + simcc.y.grad.abs().sum((0, 2)),
        "heatmap": heatmap.maps.grad.abs().sum((0, 2, 3)),
        "nerpe": nerpe.wrong.grad.abs(),
    }


def test_perfect_answers_cost_nothing(batch: Batch) -> None:
    for name, loss in _losses(_perfect(batch), batch).items():
        assert loss.item() == pytest.approx(0, abs=1e-6), name


def test_every_head_s_mistakes_cost_it_and_no_other(batch: Batch) -> None:
    right = {name: loss.item() for name, loss in _losses(_perfect(batch), batch).items()}
    for head in ("simcc", "heatmap", "nerpe"):
        network = _perfect(batch)
        with torch.no_grad():
            for parameter in getattr(network, head).parameters():
                parameter.add_(torch.linspace(0, 5, parameter.shape[-1]))
        wrong = {name: loss.item() for name, loss in _losses(network, batch).items()}
        assert wrong[head] > right[head] + 1e-3
        assert {n: v for n, v in wrong.items() if n != head} == {
            n: v for n, v in right.items() if n != head
        }


def test_a_joint_that_nobody_labelled_moves_nothing(batch: Batch) -> None:
    network = _perfect(batch)
    with torch.no_grad():
        for head in (network.simcc, network.heatmap, network.nerpe):
            for parameter in head.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape))
    for name, gradient in _gradients(network, _losses(network, batch)).items():
        assert gradient[3] == 0, name
        assert (np.delete(gradient.numpy(), 3) > 0).all(), name


def test_what_the_points_of_an_unlabelled_joint_are_does_not_matter(batch: Batch) -> None:
    network = _perfect(batch)
    before = _losses(network, batch)
    points = batch["points"].clone()
    points[:, 3] = 1e4
    after = _losses(network, batch | {"points": points})
    for name, loss in before.items():
        assert torch.equal(loss, after[name]), name
        assert torch.isfinite(after[name])


def test_a_joint_far_outside_the_crop_teaches_no_bin(batch: Batch) -> None:
    points = batch["points"].clone()
    points[:, 5] = torch.tensor([500.0, -300.0])
    network = _perfect(batch)
    gradients = _gradients(network, _losses(network, batch | {"points": points}))
    assert gradients["simcc"][5] == 0
    assert gradients["heatmap"][5] == 0
    # NerPE has no border: a joint outside is a field of nearly 0 inside.
    assert gradients["nerpe"][5] > 0


def test_simcc_s_loss_is_the_divergence_summed_over_bins_and_axes(batch: Batch) -> None:
    network = _perfect(batch)
    with torch.no_grad():
        for parameter in network.simcc.parameters():
            parameter.zero_()
    x, y, _ = SHAPE.simcc.encode(batch["points"].double(), batch["visible"])
    expected = 0.0
    for label in (x, y):
        p = label / label.sum(-1, keepdim=True)
        divergence = math.log(p.shape[-1]) + (p * (p + 1e-300).log()).sum(-1)
        expected += divergence[batch["visible"]].mean().item()
    assert _losses(network, batch)["simcc"].item() == pytest.approx(expected, rel=1e-4)


def test_heatmap_s_loss_is_half_the_mean_square_over_all_joints(batch: Batch) -> None:
    network = _perfect(batch)
    with torch.no_grad():
        for parameter in network.heatmap.parameters():
            parameter.add_(0.2)
    # 16 of 17 joints are labelled; the mean is over all of them.
    assert _losses(network, batch)["heatmap"].item() == pytest.approx(0.5 * 0.04 * 16 / 17)


def test_nerpe_s_loss_is_half_the_mean_square_of_all_four_neighbours(batch: Batch) -> None:
    network = _perfect(batch)
    nerpe: Any = network.nerpe
    with torch.no_grad():
        nerpe.wrong.fill_(0.2)
    assert _losses(network, batch)["nerpe"].item() == pytest.approx(0.5 * 0.04 * 16 / 17, rel=1e-4)


def test_losses_are_added_by_their_weights() -> None:
    losses = {name: torch.tensor(float(i)) for i, name in enumerate(("simcc", "heatmap", "nerpe"))}
    weights = LossWeights(simcc=10, heatmap=100, nerpe=1000)
    assert weighted(losses, weights) == 0 * 10 + 1 * 100 + 2 * 1000


# With a teacher


def _taught(batch: Batch, offset: float) -> Batch:
    """A teacher that saw every joint, `offset` px to the right of its label."""
    seen = batch["points"] + torch.tensor([offset, 0])
    maps, _ = PoseNetwork(SHAPE).heatmap_codec.encode(seen, torch.ones_like(batch["visible"]))
    return batch | {"maps": maps}


def test_an_unlabelled_joint_learns_from_the_teacher(batch: Batch) -> None:
    network = _perfect(batch)
    with torch.no_grad():
        for head in (network.simcc, network.heatmap, network.nerpe):
            for parameter in head.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape))
    for name, gradient in _gradients(network, _losses(network, _taught(batch, 0))).items():
        assert (gradient > 0).all(), name


def test_a_teacher_that_sees_the_labels_changes_no_perfect_answer(batch: Batch) -> None:
    losses = _losses(_perfect(batch), _taught(batch, 0))
    # The heatmap's grid is read between its cells, and its decode is right to a part of a bin.
    assert losses["heatmap"].item() == pytest.approx(0, abs=1e-6)
    assert losses["nerpe"].item() < 1e-3
    assert losses["simcc"].item() < 0.05


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_labelled_joint_s_target_is_mixed_by_the_teacher_s_share(
    batch: Batch, share: float
) -> None:
    taught = _taught(batch, 6)
    network = _perfect(batch)
    heatmap: Any = network.heatmap
    labels = heatmap.maps.detach().clone()
    with torch.no_grad():
        heatmap.maps.copy_((1 - share) * labels + share * taught["maps"])
        heatmap.maps[:, 3] = taught["maps"][:, 3]
    assert _losses(network, taught, share)["heatmap"].item() == pytest.approx(0, abs=1e-9)


def test_a_teacher_that_saw_nothing_leaves_the_labels(batch: Batch) -> None:
    batch["visible"][:] = True
    blind = batch | {"maps": torch.zeros((2, 17, 16, 16))}
    losses = _losses(_perfect(batch), blind, 0.5)
    assert losses["simcc"].item() == pytest.approx(0, abs=1e-5)


def test_a_joint_that_nobody_saw_is_spread_over_the_axis(batch: Batch) -> None:
    blind = batch | {"maps": torch.zeros((2, 17, 16, 16))}
    network = _perfect(batch)
    simcc: Any = network.simcc
    before = _losses(network, blind)["simcc"].item()
    with torch.no_grad():
        simcc.x[:, 3] = 0
        simcc.y[:, 3] = 0
    assert _losses(network, blind)["simcc"].item() < before - 0.01
    assert _losses(network, blind)["simcc"].item() == pytest.approx(0, abs=1e-5)


# NerPE's positions


@pytest.mark.parametrize(("cells", "samples"), [((4, 4), 1), ((6, 8), 4), ((12, 16), 9)])
def test_every_sub_square_of_every_cell_is_asked_once(cells: tuple[int, int], samples: int) -> None:
    generator = torch.Generator().manual_seed(0)
    positions = sampled(3, cells, samples, generator, torch.device("cpu"))
    side = math.isqrt(samples)
    assert positions.shape == (3, cells[0] * cells[1] * samples, 2)
    size = torch.tensor(cells) * side
    index = ((positions * max(cells) / 2 * side) + size / 2).floor().long()
    for crop in index:
        assert len({tuple(at) for at in crop.tolist()}) == len(crop)
        assert crop.min() >= 0
        assert (crop < size).all()
    other = sampled(3, cells, samples, generator, torch.device("cpu"))
    assert not torch.equal(positions, other)


def test_samples_that_fill_no_square_are_refused() -> None:
    with pytest.raises(ValueError, match="samples 3 is not a square number"):
        sampled(1, (4, 4), 3, torch.Generator(), torch.device("cpu"))


def test_random_positions_fill_their_cells_with_any_number() -> None:
    generator = torch.Generator().manual_seed(0)
    positions = sampled(50, (2, 4), 6, generator, torch.device("cpu"), "random")
    assert positions.shape == (50, 2 * 4 * 6, 2)
    cell = ((positions + torch.tensor([0.5, 1.0])) / 0.5).floor()
    counts = (cell[..., 1] * 2 + cell[..., 0]).flatten().long().bincount()
    assert counts.tolist() == [50 * 6] * 8
    # In no square of its own: some quarter of a cell stays empty, which `uniform` never leaves.
    quarters = ((positions[0] + torch.tensor([0.5, 1.0])) / 0.25).floor()
    assert len(np.unique(quarters.numpy(), axis=0)) < 32


def test_positions_near_joints_are_around_those_that_are_labelled() -> None:
    codec = NerpeCodec((96, 128), sigma=0.06)
    points = torch.tensor([[[30.0, 40.0], [95.0, 127.0], [-500.0, 60.0], [0.0, 0.0]]])
    batch = {"points": points, "visible": torch.tensor([[True, True, True, False]])}
    found = sampled_near(batch, codec, 500, torch.Generator().manual_seed(0))
    assert found.shape == (1, 4 * 500, 2)
    inner, corner, outside, hidden = found.reshape(4, 500, 2)
    # All lie in the crop, whose longer side spans [-1, 1].
    assert float((found.abs() - torch.tensor([0.75, 1.0])).max()) <= 1e-6
    centre = normalise(points[0], codec.size)
    assert float((inner.mean(0) - centre[0]).abs().max()) < 0.02
    np.testing.assert_allclose(inner.std(0), [0.09, 0.09], rtol=0.15)
    assert float((corner - centre[1]).abs().max()) < 0.5
    assert set(outside[:, 0].tolist()) == {-0.75}
    # Nobody said where it is: anywhere.
    np.testing.assert_allclose(hidden.std(0), [0.75 / 3**0.5, 1 / 3**0.5], rtol=0.1)


def test_positions_near_joints_tell_more_of_a_missing_peak(batch: Batch) -> None:
    """A field that is 0 everywhere is hardly wrong where nobody is."""
    network = _perfect(batch)
    assert _losses(network, batch, near=8)["nerpe"].item() < 1e-10
    network.nerpe = Nerpe(torch.full_like(batch["points"], -1e4))  # type: ignore[assignment]
    losses = [_losses(network, batch, near=near)["nerpe"] for near in (0, 8)]
    assert losses[1].item() > 1.2 * losses[0].item()


# SimCC's divergence in its published forms

Z, T = torch.tensor([1.0, 2.0, 3.0, 0.0]), torch.tensor([0.1, 0.2, 0.6, 0.1])


@pytest.mark.parametrize(
    ("form", "one", "batch"),
    # One axis of one joint; then x and y of two joints of two people, one of the four hidden.
    [("summed", 0.05129, None), ("mean", 0.012822, 0.019234), ("mmpose", 0.012822, 0.038467)],
)
def test_the_divergence_is_each_publication_s(form: Any, one: float, batch: float | None) -> None:  # noqa: ANN401
    how = SimccLoss(form=form)
    found = divergence(Z[None, None], T[None, None], torch.ones((1, 1)), how)
    assert found.item() == pytest.approx(one, abs=2e-6)
    if batch is not None:
        weight = torch.tensor([[1.0, 1.0], [1.0, 0.0]])
        axis = divergence(Z.expand(2, 2, 4), T.expand(2, 2, 4), weight, how)
        assert 2 * axis.item() == pytest.approx(batch, abs=2e-6)


def test_equal_labels_summed_divergence_is_the_published_one() -> None:
    label = torch.tensor([0.1 / 3, 0.1 / 3, 0.9, 0.1 / 3])
    weight = torch.ones((1, 1))
    for form, expected in (("summed", 0.205245), ("mean", 0.051311)):
        found = divergence(Z[None, None], label[None, None], weight, SimccLoss(form=form))
        assert found.item() == pytest.approx(expected, abs=2e-6)


def test_rtmpose_s_loss_sharpens_labels_and_logits() -> None:
    logits, label = torch.tensor([0.1, 0.2, 0.3, 0.0]), torch.tensor([0.0, 0.5, 1.0, 0.5])
    how = SimccLoss(form="mmpose", beta=10, label_beta=10)
    found = divergence(logits[None, None], label[None, None], torch.ones((1, 1)), how)
    assert found.item() == pytest.approx(0.096628, abs=2e-6)


def test_a_network_with_one_head_has_one_loss(batch: Batch) -> None:
    network = PoseNetwork(replace(SHAPE, heads=("nerpe",)))
    assert list(_losses(network, batch)) == ["nerpe"]
    assert not hasattr(network, "simcc")


@pytest.mark.parametrize("mapping", ["udp", "legacy"])
@pytest.mark.parametrize("size", [(192, 256), (96, 128), (144, 192)])
def test_what_teachers_saw_lies_at_the_same_place_on_any_grid(
    size: tuple[int, int], mapping: Literal["udp", "legacy"]
) -> None:
    """A bump two of the teachers' cells wide, resampled, is the label of an own grid as wide."""
    seen = teacher_codec(size)
    own = HeatmapCodec(size, (size[0] // 4, size[1] // 4), 1.0, mapping)
    points = torch.tensor(size) * torch.tensor([[[0.31, 0.42], [0.5, 0.7], [0.25, 0.8]]])
    everyone = torch.ones((1, 3), dtype=torch.bool)
    maps = resampled(seen.encode(points, everyone)[0], own)
    assert maps.shape[-2:] == (own.grid[1], own.grid[0])
    columns, rows = (torch.arange(count, dtype=torch.float32) for count in own.grid)
    weight = maps / maps.sum((-2, -1), keepdim=True)
    centre = torch.stack([(weight.sum(-2) * columns).sum(-1), (weight.sum(-1) * rows).sum(-1)], -1)
    off = (own.to_crop(centre) - points).abs() / torch.tensor(seen.pitch)
    assert off.max() < 0.1
