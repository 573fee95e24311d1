"""Which point of the maps answers for which person, and how wrong it is (RTMDet, section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import box_iou, generalized_box_iou_loss

from training.detector.network import STRIDES

_CANDIDATES = 13
_IOU_WEIGHT = 3.0
_GIOU_WEIGHT = 2.0
_EPSILON = 1e-7


@dataclass(frozen=True, slots=True)
class Predictions:
    """The outputs of all strides in one row of points.

    Attributes:
        logits: (B, N).
        corners: (B, N, 4) x1 y1 x2 y2 px.
        points: (N, 2) px.
        strides: (N,) px.
    """

    logits: Tensor
    corners: Tensor
    points: Tensor
    strides: Tensor

    @classmethod
    def of(cls, levels: Sequence[Tensor]) -> Predictions:
        """From the network's outputs, per stride (B, h, w, 5)."""
        points, strides = [], []
        for stride, level in zip(STRIDES, levels, strict=True):
            height, width = level.shape[1:3]
            rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
            points.append(torch.stack([columns, rows], dim=-1).reshape(-1, 2) * float(stride))
            strides.append(torch.full((height * width,), float(stride)))
        values = torch.cat([level.flatten(1, 2) for level in levels], dim=1)
        place = torch.cat(points).to(values.device)
        corners = torch.cat([place - values[..., 1:3], place + values[..., 3:5]], dim=-1)
        return cls(values[..., 0], corners, place, torch.cat(strides).to(values.device))


@torch.no_grad()
def assign(
    logits: Tensor, corners: Tensor, points: Tensor, strides: Tensor, people: Tensor
) -> tuple[Tensor, Tensor]:
    """Choose the points that answer for each person: those that do so cheapest already.

    Each person gets as many points as the sum of its best overlaps says; a point that several
    people want goes to the cheapest.

    Args:
        logits: (N,).
        corners: (N, 4).
        points: (N, 2).
        strides: (N,).
        people: (G, 4).

    Returns:
        (N,) index of the point's person, -1 for none, and (N,) its overlap with that person.
    """
    count = len(points)
    person = torch.full((count,), -1, dtype=torch.long, device=points.device)
    overlap = torch.zeros(count, device=points.device)
    low, high = people[:, None, :2], people[:, None, 2:]
    inside = ((points > low) & (points < high)).all(dim=-1)
    near = inside.any(dim=0).nonzero()[:, 0]
    if not len(near):
        return person, overlap
    inside, points, strides = inside[:, near], points[near], strides[near]
    ious = box_iou(people, corners[near])
    centers = (people[:, :2] + people[:, 2:]) / 2
    distance = (points - centers[:, None]).norm(dim=-1) / strides
    score = logits[near].expand(len(people), -1)
    cost = (
        _IOU_WEIGHT * -(ious + _EPSILON).log()
        + functional.binary_cross_entropy_with_logits(score, ious, reduction="none")
        * (ious - score.sigmoid()).square()
        + 10 ** (distance - 3)
    )
    cost = torch.where(inside, cost, torch.inf)
    chosen = torch.zeros_like(inside)
    best = torch.where(inside, ious, 0).topk(min(_CANDIDATES, len(near)), dim=1).values
    for index, number in enumerate(best.sum(dim=1).long().clamp(min=1).tolist()):
        chosen[index, cost[index].topk(number, largest=False).indices] = True
    cost = torch.where(chosen & inside, cost, torch.inf)
    least, cheapest = cost.min(dim=0)
    taken = least.isfinite()
    person[near[taken]] = cheapest[taken]
    overlap[near[taken]] = ious[cheapest[taken], taken.nonzero()[:, 0]]
    return person, overlap


def detection_loss(
    levels: Sequence[Tensor], people: Sequence[Tensor], ignored: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Quality focal loss of the scores and GIoU loss of the boxes.

    Args:
        levels: the network's outputs, per stride (B, h, w, 5).
        people: per image (G, 4) px.
        ignored: per image (M, 4) px; points inside that answer for nobody are left out.

    Returns:
        Both, each over the sum of the overlaps of the points that answer for someone.
    """
    found = Predictions.of(levels)
    targets, counted, answers, wanted = [], [], [], []
    for index, (boxes, regions) in enumerate(zip(people, ignored, strict=True)):
        person, overlap = assign(
            found.logits[index], found.corners[index], found.points, found.strides, boxes
        )
        targets.append(overlap)
        low, high = regions[:, None, :2], regions[:, None, 2:]
        masked = ((found.points >= low) & (found.points <= high)).all(dim=-1).any(dim=0)
        counted.append(~masked | (person >= 0))
        answers.append(person >= 0)
        wanted.append(boxes[person[person >= 0]])
    target, count, answer = torch.stack(targets), torch.stack(counted), torch.stack(answers)
    total = target.sum().clamp(min=1)
    focal = functional.binary_cross_entropy_with_logits(found.logits, target, reduction="none")
    focal = focal * (target - found.logits.sigmoid()).square()
    score_loss = focal[count].sum() / total
    apart = generalized_box_iou_loss(found.corners[answer], torch.cat(wanted), reduction="none")
    box_loss = _GIOU_WEIGHT * (apart * target[answer]).sum() / total
    return score_loss, box_loss
