"""Targets and losses of the three heads, with or without a teacher.

A joint that is labelled learns from its label, mixed with what the teachers saw; one that is not
learns from the teachers alone, or, without them, nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from models.codecs import HeatmapCodec, NerpeCodec
from models.geometry import Size, denormalise, normalise
from models.networks.pose import HeadName, PoseNetwork
from training.config import LossWeights, Sampling, SimccLoss
from training.precision import Precision, autocast
from training.teacher import teacher_codec

Batch = dict[str, Tensor]

OURS = SimccLoss()
"""SimCC's divergence as the served weights were trained with."""


def pose_losses(
    network: PoseNetwork,
    features: Tensor,
    batch: Batch,
    *,
    teacher_share: float,
    samples: int,
    generator: torch.Generator,
    near: int = 0,
    heads: Sequence[HeadName] | None = None,
    simcc: SimccLoss = OURS,
    sampling: Sampling = "uniform",
    precision: Precision = "fp32",
) -> dict[str, Tensor]:
    """Each head's loss on the same features, float32.

    Args:
        network: for its heads and codecs.
        features: (B, C, h, w).
        batch: points (B, K, 2) crop px, visible (B, K) bool, and with a teacher maps (B, K, r, c)
            on a grid of their own.
        teacher_share: of a labelled joint's target.
        samples: positions a cell for NerPE, fresh each step.
        near: further ones around each joint.
        generator: of the positions.
        heads: whose loss is wanted; None for all that the network has.
        simcc: its divergence's form.
        sampling: how NerPE's positions are drawn.
        precision: of the heads' arithmetic.
    """
    low = autocast(precision, features.device)
    heads = network.shape.heads if heads is None else heads
    losses = {}
    if "simcc" in heads:
        with low:
            x, y = network.simcc(features)
        losses["simcc"] = _simcc(network, (x.float(), y.float()), batch, teacher_share, simcc)
    if "heatmap" in heads:
        with low:
            maps = network.heatmap(features)
        losses["heatmap"] = _heatmap(network, maps.float(), batch, teacher_share)
    if "nerpe" in heads:
        size = network.nerpe.columns, network.nerpe.rows
        positions = sampled(len(features), size, samples, generator, features.device, sampling)
        if near:
            close = sampled_near(batch, network.shape.nerpe, near, generator)
            positions = torch.cat([positions, close], dim=1)
        with low:
            values, _ = network.nerpe.neighbours(network.nerpe.cells(features), positions)
        losses["nerpe"] = _nerpe(network, values.float(), batch, teacher_share, positions)
    return losses


def weighted(losses: dict[str, Tensor], weights: LossWeights) -> Tensor:
    """Their sum."""
    return torch.stack([getattr(weights, name) * loss for name, loss in losses.items()]).sum()


def _simcc(
    network: PoseNetwork,
    logits: tuple[Tensor, Tensor],
    batch: Batch,
    share: float,
    how: SimccLoss,
) -> Tensor:
    codec = network.shape.simcc
    x, y, weight = codec.encode(batch["points"], batch["visible"])
    if "maps" in batch:
        seen = _codec_of(batch["maps"], network.shape.size).decode(batch["maps"], "dark")
        teacher_x, teacher_y, inside = codec.encode(seen.points, seen.scores > 0)
        # Nothing seen is spread over the whole axis, so that a missing joint's peak is low.
        sure = ((seen.scores - 0.1) / 0.6).clamp(0, 1) * inside
        own = weight * (1 - share * sure)
        rest = torch.where(weight > 0, share * sure, sure)
        spread = torch.where(weight > 0, torch.zeros_like(sure), 1 - sure)
        x, y = (
            own[..., None] * label
            + rest[..., None] * teacher
            + (spread / label.shape[-1])[..., None]
            for label, teacher in ((x, teacher_x), (y, teacher_y))
        )
        # An unlabelled joint speaks softly: the teacher may be wrong about it. In the other heads'
        # losses it counts as a labelled one does; whether either is the better was not measured.
        weight = torch.where(weight > 0, torch.ones_like(weight), torch.full_like(weight, 0.3))
    axes = zip(logits, (x, y), strict=True)
    return torch.stack([divergence(axis, labels, weight, how) for axis, labels in axes]).sum()


def divergence(logits: Tensor, labels: Tensor, weight: Tensor, how: SimccLoss) -> Tensor:
    """Kullback-Leibler divergence of one axis of SimCC (MODELS 1.3).

    Args:
        logits: (B, K, N).
        labels: (B, K, N).
        weight: (B, K).
        how: which published form. `joints`, ours, first makes each label sum to 1 in the crop.
    """
    if how.form == "joints":
        labels = labels / labels.sum(-1, keepdim=True).clamp(min=1e-6)
    if how.label_beta:
        labels = (how.label_beta * labels).softmax(-1)
    bins = functional.kl_div((how.beta * logits).log_softmax(-1), labels, reduction="none")
    if how.form == "joints":
        return (bins.sum(-1) * weight).sum() / weight.sum().clamp(min=1)
    if how.form == "summed":
        return (bins.sum(-1) * weight).sum() / len(logits)
    each = bins.mean(-1) * weight
    return each.mean() if how.form == "mean" else each.sum() / logits.shape[1]


def _heatmap(network: PoseNetwork, answer: Tensor, batch: Batch, share: float) -> Tensor:
    """Half the mean square (MODELS 3.1)."""
    target, weight = network.heatmap_codec.encode(
        batch["points"], batch["visible"], rounded=network.shape.heatmap_rounded
    )
    if "maps" in batch:
        maps = resampled(batch["maps"], network.heatmap_codec)
        mixed = (1 - share) * target + share * maps
        target = torch.where((weight > 0)[..., None, None], mixed, maps)
        weight = torch.ones_like(weight)
    error = (answer - target).square().mean((-2, -1))
    return 0.5 * torch.mean(error * weight)


def _codec_of(maps: Tensor, size: Size) -> HeatmapCodec:
    rows, columns = maps.shape[-2:]
    return teacher_codec(size, (columns, rows))


def resampled(maps: Tensor, codec: HeatmapCodec) -> Tensor:
    """What the teachers saw, (B, K, r, c), on the grid of a codec of the same crop."""
    seen = _codec_of(maps, codec.size)
    if (seen.grid, seen.mapping) == (codec.grid, codec.mapping):
        return maps
    columns, rows = (torch.arange(count, dtype=maps.dtype) for count in codec.grid)
    cells = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1).to(maps.device)
    last = torch.tensor(seen.grid, dtype=maps.dtype, device=maps.device) - 1
    at = 2 * seen.to_grid(codec.to_crop(cells)) / last - 1
    return functional.grid_sample(
        maps, at.expand(len(maps), *at.shape), align_corners=True, padding_mode="zeros"
    )


def _nerpe(
    network: PoseNetwork, values: Tensor, batch: Batch, share: float, positions: Tensor
) -> Tensor:
    """Half the mean square of every neighbour's prediction at (B, Q, 2) (MODELS 2.1)."""
    target = network.shape.nerpe.encode(batch["points"], positions)  # (B, Q, K)
    weight = batch["visible"][:, None, :].to(target.dtype)
    if "maps" in batch:
        size = torch.tensor(network.shape.size, dtype=positions.dtype, device=positions.device)
        # The teacher's map at the positions: a UDP grid's outermost cells are the outermost pixels.
        at = 2 * denormalise(positions, network.shape.size) / (size - 1) - 1
        seen = functional.grid_sample(
            batch["maps"], at[:, :, None], align_corners=True, padding_mode="zeros"
        )[..., 0].transpose(1, 2)
        target = torch.where(weight > 0, (1 - share) * target + share * seen, seen)
        weight = torch.ones_like(weight)
    return 0.5 * torch.mean((values - target[:, None]).square() * weight[:, None])


def sampled(
    batch: int,
    cells: tuple[int, int],
    samples: int,
    generator: torch.Generator,
    device: torch.device,
    how: Sampling = "uniform",
) -> Tensor:
    """Random positions, `samples` in each cell.

    Args:
        batch: B.
        cells: (columns, rows).
        samples: NerPE's N_Z.
        generator: of the positions.
        device: of the result.
        how: `uniform` draws one in each of a cell's sub-squares, `random` anywhere in the cell.

    Returns:
        (B, columns * rows * samples, 2), normalised.

    Raises:
        ValueError: `uniform`, and `samples` is not a square.
    """
    side = round(samples**0.5)
    if how == "random":
        side, copies = 1, samples
    elif side * side == samples:
        copies = 1
    else:
        raise ValueError(f"samples {samples} is not a square number")
    columns, rows = cells[0] * side, cells[1] * side
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    corner = torch.stack([column, row], dim=-1).reshape(1, -1, 2).repeat(1, copies, 1)
    inside = torch.rand((batch, columns * rows * copies, 2), generator=generator)
    size = torch.tensor([columns, rows], dtype=torch.float32)
    positions: Tensor = (corner + inside - size / 2) / (max(columns, rows) / 2)
    return positions.to(device)


def sampled_near(batch: Batch, codec: NerpeCodec, near: int, generator: torch.Generator) -> Tensor:
    """Random positions around the joints, which those of a cell meet once in a hundred crops.

    Args:
        batch: points (B, K, 2) crop px and visible (B, K).
        codec: for the width of its targets: positions spread one and a half times as far.
        near: positions a joint.
        generator: of the positions.

    Returns:
        (B, K * near, 2), normalised and within the crop; of a joint that is not labelled, anywhere.
    """
    points = batch["points"]
    edge = normalise(torch.tensor(codec.size, dtype=points.dtype) - 0.5, codec.size)
    shape = (*points.shape[:2], near, 2)
    around = 1.5 * codec.sigma * torch.randn(shape, generator=generator)
    anywhere = (2 * torch.rand(shape, generator=generator) - 1) * edge
    centres, edge = normalise(points, codec.size)[:, :, None], edge.to(points.device)
    close = (centres + around.to(points.device)).clamp(-edge, edge)
    positions = torch.where(batch["visible"][..., None, None], close, anywhere.to(points.device))
    return positions.flatten(1, 2)
