"""Targets and losses of the three heads, with or without a teacher.

A joint that is labelled learns from its label, mixed with what the teachers saw; one that is not
learns from the teachers alone, or, without them, nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from models.geometry import denormalise
from models.networks.pose import PoseNetwork
from training.config import HEADS, HeadName, LossWeights

Batch = dict[str, Tensor]


def pose_losses(
    network: PoseNetwork,
    features: Tensor,
    batch: Batch,
    *,
    teacher_share: float,
    samples: int,
    generator: torch.Generator,
    heads: Sequence[HeadName] = HEADS,
) -> dict[str, Tensor]:
    """Each head's loss on the same features.

    Args:
        network: for its heads and codecs.
        features: (B, C, h, w).
        batch: points (B, K, 2) crop px, visible (B, K) bool, and with a teacher maps (B, K, r, c).
        teacher_share: of a labelled joint's target.
        samples: positions a cell for NerPE, fresh each step.
        generator: of the positions.
        heads: whose loss is wanted.
    """
    losses = {}
    if "simcc" in heads:
        losses["simcc"] = _simcc(network, features, batch, teacher_share)
    if "heatmap" in heads:
        losses["heatmap"] = _heatmap(network, features, batch, teacher_share)
    if "nerpe" in heads:
        losses["nerpe"] = _nerpe(network, features, batch, teacher_share, samples, generator)
    return losses


def weighted(losses: dict[str, Tensor], weights: LossWeights) -> Tensor:
    """Their sum."""
    return torch.stack([getattr(weights, name) * loss for name, loss in losses.items()]).sum()


def _simcc(network: PoseNetwork, features: Tensor, batch: Batch, share: float) -> Tensor:
    """Kullback-Leibler divergence, summed over bins and axes, mean over joints (SimCC 3.1)."""
    codec = network.shape.simcc
    x, y, weight = codec.encode(batch["points"], batch["visible"])
    if "maps" in batch:
        seen = network.heatmap_codec.decode(batch["maps"], "dark")
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
        # An unlabelled joint speaks softly: the teacher may be wrong about it.
        weight = torch.where(weight > 0, torch.ones_like(weight), torch.full_like(weight, 0.3))
    total = features.new_zeros(())
    for logits, target in zip(network.simcc(features), (x, y), strict=True):
        target = target / target.sum(-1, keepdim=True).clamp(min=1e-6)
        divergence = functional.kl_div(logits.log_softmax(-1), target, reduction="none").sum(-1)
        total = total + (divergence * weight).sum() / weight.sum().clamp(min=1)
    return total


def _heatmap(network: PoseNetwork, features: Tensor, batch: Batch, share: float) -> Tensor:
    """Half the mean square (MODELS 3.1)."""
    target, weight = network.heatmap_codec.encode(batch["points"], batch["visible"])
    if "maps" in batch:
        maps = batch["maps"]
        mixed = (1 - share) * target + share * maps
        target = torch.where((weight > 0)[..., None, None], mixed, maps)
        weight = torch.ones_like(weight)
    error = (network.heatmap(features) - target).square().mean((-2, -1))
    return 0.5 * torch.mean(error * weight)


def _nerpe(
    network: PoseNetwork,
    features: Tensor,
    batch: Batch,
    share: float,
    samples: int,
    generator: torch.Generator,
) -> Tensor:
    """Half the mean square of all four neighbours' predictions (MODELS 2.1)."""
    head, codec = network.nerpe, network.shape.nerpe
    positions = stratified(
        len(features), (head.columns, head.rows), samples, generator, features.device
    )
    target = codec.encode(batch["points"], positions)  # (B, Q, K)
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
    values, _ = head.neighbours(head.cells(features), positions)
    return 0.5 * torch.mean((values - target[:, None]).square() * weight[:, None])


def stratified(
    batch: int,
    cells: tuple[int, int],
    samples: int,
    generator: torch.Generator,
    device: torch.device,
) -> Tensor:
    """Random positions, `samples` (a square number) in each cell, one in each sub-square.

    Returns:
        (B, columns * rows * samples, 2), normalised.

    Raises:
        ValueError: `samples` is not a square.
    """
    side = round(samples**0.5)
    if side * side != samples:
        raise ValueError(f"samples {samples} is not a square number")
    columns, rows = cells[0] * side, cells[1] * side
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    corner = torch.stack([column, row], dim=-1).reshape(1, -1, 2)
    inside = torch.rand((batch, columns * rows, 2), generator=generator)
    size = torch.tensor([columns, rows], dtype=torch.float32)
    positions: Tensor = (corner + inside - size / 2) / (max(columns, rows) / 2)
    return positions.to(device)
