"""The trunk of PP-TinyPose as it is served: the same map, and no channel is ever shuffled.

On the CPU the copies that shuffling takes cost more than its convolutions (`tests/bench/fold.py`).

Channels keep their place in memory. A shuffle only changes which channel a place means, so it
moves into the weights of whoever reads it; what a unit lets pass is added to what it convolves,
which a runtime does within the convolution. Nothing is split, joined or transposed. What is counted
twice is made twice as large by the weights that make it, not by one more pass over it.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.networks.batch_norm import fold_batch_norm
from models.networks.layout import Layout, convolution, depthwise, pointwise, rows_of, separable
from models.networks.normalise import Normalise
from models.networks.tinypose import Exchange, Fusion, ShuffleUnit, Stage, Stem, TinyPoseTrunk


class FoldedStem(nn.Module):
    """The stem's two branches side by side, summed into one map."""

    def __init__(self, stem: Stem) -> None:
        super().__init__()
        whole = convolution(stem.reduce)
        half = whole.out_channels // 2
        plain, self.layout = Layout.plain(half), Layout.plain(2 * half).shuffled
        first, second = slice(half), slice(half, None)
        ends = [rows_of(whole, first), rows_of(whole, second)]
        self.left = nn.Sequential(ends[0], nn.ReLU(), depthwise(stem.left[0], plain))
        self.left_end = pointwise(stem.left[1], plain, self.layout, outputs=slice(0, None, 2))
        expand, middle, end = stem.right
        wide = Layout.plain(2 * half)
        self.right = nn.Sequential(
            ends[1], nn.ReLU(), pointwise(expand, plain, wide), nn.ReLU(),
            depthwise(middle, wide),
        )  # fmt: skip
        self.right_end = pointwise(end, wide, self.layout, outputs=slice(1, None, 2))

    def forward(self, image: Tensor) -> Tensor:
        """As the stem's."""
        left = self.left_end(self.left(image))
        return functional.relu(self.right_end(self.right(image)) + left)


class FoldedUnit(nn.Module):
    """A shuffle unit as a residual block: half of the places are kept, the others replaced.

    Its input is a sum after ReLU, so that the kept half passes the last ReLU unchanged.
    """

    def __init__(self, unit: ShuffleUnit, read: Layout, gain: float = 1.0) -> None:
        """Fold; it makes `gain` times what the unit makes."""
        super().__init__()
        channels = len(read.places)
        passed, convolved = slice(channels // 2), slice(channels // 2, None)
        reduce, middle, expand = unit.branch
        inner = Layout.plain(channels // 2)
        self.layout = read.shuffled
        self.branch = nn.Sequential(
            pointwise(reduce, read, inner, inputs=convolved), nn.ReLU(),
            depthwise(middle, inner), pointwise(expand, inner, read, outputs=convolved, gain=gain),
        )  # fmt: skip
        mask = torch.zeros(channels, 1, 1, 1)
        mask[torch.tensor(read.places[passed])] = gain
        self.keep = nn.Conv2d(channels, channels, 1, groups=channels, bias=False)
        self.keep.weight = nn.Parameter(mask, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to the same, all at least 0."""
        return functional.relu(self.branch(x) + self.keep(x))


class FoldedExchange(nn.Module):
    """A module of a stage. Coarse maps are summed on their way up, one doubling after the other."""

    def __init__(self, exchange: Exchange, layouts: Sequence[Layout]) -> None:
        super().__init__()
        layouts = list(layouts)
        self.branches = nn.ModuleList()
        for number, units in enumerate(exchange.branches):
            folded = []
            *_, last = cast("nn.Sequential", units)
            for unit in cast("nn.Sequential", units):
                # The finest branch's own map counts twice; only its sum reads it.
                gain = 2 if number == 0 and unit is last else 1
                folded.append(FoldedUnit(cast("ShuffleUnit", unit), layouts[number], gain))
                layouts[number] = folded[-1].layout
            self.branches.append(nn.Sequential(*folded))
        self.up, self.down = nn.ModuleList(), nn.ModuleList()
        for target, write in enumerate(layouts):
            paths = cast("nn.ModuleList", exchange.paths[target])
            above = range(target + 1, len(layouts))
            ups = [pointwise(_block(paths[s]), layouts[s], write) for s in above]
            downs = [
                _downward(paths[s], layouts[s], write, gain=2 if s == 0 else 1)
                for s in range(target)
            ]
            self.up.append(nn.ModuleList(ups))
            self.down.append(nn.ModuleList(downs))
        self.layouts = tuple(layouts)

    def forward(self, xs: list[Tensor]) -> list[Tensor]:
        """One map a branch, in and out."""
        xs = [branch(x) for branch, x in zip(self.branches, xs, strict=True)]
        outputs = []
        for target, (ups, downs) in enumerate(zip(self.up, self.down, strict=True)):
            risen: Tensor | None = None
            for up, x in zip(reversed(cast("nn.ModuleList", ups)), reversed(xs), strict=False):
                here = up(x) if risen is None else up(x) + risen
                risen = functional.interpolate(here, scale_factor=2.0, mode="nearest")
            total = xs[target] if risen is None else xs[target] + risen
            for down, x in zip(cast("nn.ModuleList", downs), xs, strict=False):
                total = down(x) + total
            if target == 0:
                xs[0] = total
            outputs.append(functional.relu(total))
        return outputs


def _block(path: nn.Module) -> nn.Module:
    """The convolution of a path upward; the doublings are the module's."""
    return cast("nn.Sequential", path)[0]


def _downward(path: nn.Module, read: Layout, write: Layout, *, gain: float) -> nn.Sequential:
    *steps, last = cast("nn.Sequential", path)
    between = Layout.plain(len(read.places))
    layers: list[nn.Module] = []
    for step in steps:
        layers.append(separable(step, read, between))
        read = between
    return nn.Sequential(*layers, separable(last, read, write, relu=False, gain=gain))


class FoldedStage(nn.Module):
    """A stage: its new branch, then its modules."""

    def __init__(self, stage: Stage, layouts: Sequence[Layout]) -> None:
        super().__init__()
        self.first = stage.first
        self.enter, entered = nn.ModuleList(), []
        for block in stage.enter:
            last = convolution(cast("nn.Sequential", block)[1])
            entered.append(Layout.plain(last.out_channels))
            self.enter.append(separable(block, layouts[-1], entered[-1]))
        self.layouts = tuple(entered if self.first else [*layouts, *entered])
        self.exchanges = nn.ModuleList()
        for exchange in stage.exchanges:
            folded = FoldedExchange(cast("Exchange", exchange), self.layouts)
            self.exchanges.append(folded)
            self.layouts = folded.layouts

    forward = Stage.forward


class FoldedFusion(nn.Module):
    """From the coarsest branch to the finest, which ends as the trunk itself has it."""

    def __init__(self, fusion: Fusion, layouts: Sequence[Layout]) -> None:
        super().__init__()
        writes = [*reversed(layouts[:-1]), Layout.plain(len(layouts[0].places))]
        pairs = zip(fusion.steps, reversed(layouts), writes, strict=True)
        self.steps = nn.ModuleList(separable(step, read, write) for step, read, write in pairs)

    forward = Fusion.forward


class FoldedTrunk(nn.Module):
    """(B, 3, H, W) normalised RGB to (B, 40, H/4, W/4), as the trunk that it is made of."""

    channels = TinyPoseTrunk.channels
    stride = TinyPoseTrunk.stride

    def __init__(self, trunk: TinyPoseTrunk) -> None:
        """Fold.

        Args:
            trunk: its batch norm folded into its convolutions already.

        Raises:
            ValueError: it is not.
        """
        super().__init__()
        self.stem = FoldedStem(trunk.stem)
        layouts: Sequence[Layout] = (self.stem.layout,)
        self.stages = nn.ModuleList()
        for stage in trunk.stages:
            folded = FoldedStage(cast("Stage", stage), layouts)
            self.stages.append(folded)
            layouts = folded.layouts
        self.fusion = FoldedFusion(trunk.fusion, layouts)

    forward = TinyPoseTrunk.forward


def dense_trunk() -> FoldedTrunk:
    """The folded trunk as one that is trained: its zeros too, which are computed with anyway.

    A shuffle unit convolves half of its channels. Folded it reads and writes all of them, with
    weights of 0 where the unit had none; training those as well costs no time when it serves.
    """
    trunk = TinyPoseTrunk()
    fold_batch_norm(trunk)
    return FoldedTrunk(trunk).requires_grad_(True)


class FoldedEncoder(nn.Module):
    """(B, H, W, 3) uint8 RGB to features: normalisation's scale is in the first weights too."""

    mean: Tensor

    def __init__(self, normalise: Normalise, trunk: TinyPoseTrunk | FoldedTrunk) -> None:
        """Fold both; the trunk as `FoldedTrunk` takes it, or folded already."""
        super().__init__()
        self.register_buffer("mean", normalise.mean[:, None, None].clone(), persistent=False)
        if isinstance(trunk, FoldedTrunk):
            self.trunk = copy.deepcopy(trunk)
        else:
            self.trunk = FoldedTrunk(trunk)
        with torch.no_grad():
            for side in (self.trunk.stem.left, self.trunk.stem.right):
                cast("nn.Conv2d", side[0]).weight.mul_(normalise.scale[:, None, None])

    def forward(self, crops: Tensor) -> Tensor:
        """The mean stays a subtraction: the border that the convolution adds lies at the mean."""
        # Bytes are turned around before they become four times as many.
        features: Tensor = self.trunk(crops.permute(0, 3, 1, 2).float() - self.mean)
        return features
