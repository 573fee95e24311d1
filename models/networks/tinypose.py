"""The trunk of PP-TinyPose: a wider naive Lite-HRNet with an iterative fusion head.

Four branches at strides 4, 8, 16 and 32 exchange what they see; the fusion head then brings the
coarse ones down to stride 4. Its published weights (Apache-2.0, PaddleDetection) come with batch
norm folded into the convolutions; `load_pp_tinypose` puts it back.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

CHANNELS = (40, 80, 160, 320)
STEM = 32
STAGES = ((2, 2), (4, 3), (2, 4))
"""(modules, branches) of each stage."""
BLOCKS = 2


def _conv(
    inputs: int, outputs: int, kernel: int = 1, *, stride: int = 1, groups: int = 1, relu: bool
) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*layers, nn.ReLU()) if relu else nn.Sequential(*layers)


def _depthwise(channels: int, stride: int = 1) -> nn.Sequential:
    return _conv(channels, channels, 3, stride=stride, groups=channels, relu=False)


def _separable(inputs: int, outputs: int, *, stride: int = 1, relu: bool = True) -> nn.Sequential:
    return nn.Sequential(_depthwise(inputs, stride), _conv(inputs, outputs, relu=relu))


def _shuffled(left: Tensor, right: Tensor) -> Tensor:
    """Two halves of the channels, interleaved."""
    return torch.stack((left, right), dim=2).flatten(1, 2)


class Stem(nn.Module):
    """Image to stride 4."""

    def __init__(self) -> None:
        super().__init__()
        half = STEM // 2
        self.reduce = _conv(3, STEM, 3, stride=2, relu=True)
        self.left = _separable(half, half, stride=2)
        self.right = nn.Sequential(
            _conv(half, STEM, relu=True), _depthwise(STEM, 2), _conv(STEM, half, relu=True)
        )

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, 32, H/4, W/4)."""
        left, right = self.reduce(image).chunk(2, dim=1)
        return _shuffled(self.left(left), self.right(right))


class ShuffleUnit(nn.Module):
    """Half of the channels pass, half are convolved; then they are interleaved."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.branch = nn.Sequential(
            _conv(half, half, relu=True), _depthwise(half), _conv(half, half, relu=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        """One map to one of the same shape."""
        left, right = x.chunk(2, dim=1)
        return _shuffled(left, self.branch(right))


class Exchange(nn.Module):
    """One module of a stage: each branch on its own, then each receives all others.

    The sums follow the published network to the letter: what comes from the first branch counts
    twice, and the other branches receive the first one after it has received its own sum.
    """

    def __init__(self, branches: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(*(ShuffleUnit(CHANNELS[i]) for _ in range(BLOCKS)))
            for i in range(branches)
        )
        self.paths = nn.ModuleList(
            nn.ModuleList(self._path(source, target) for source in range(branches))
            for target in range(branches)
        )

    @staticmethod
    def _path(source: int, target: int) -> nn.Module:
        if source == target:
            return nn.Identity()
        if source > target:
            up = 2 ** (source - target)
            return nn.Sequential(
                _conv(CHANNELS[source], CHANNELS[target], relu=False),
                nn.Upsample(scale_factor=up, mode="nearest"),
            )
        keep = CHANNELS[source]
        steps = [_separable(keep, keep, stride=2) for _ in range(target - source - 1)]
        return nn.Sequential(*steps, _separable(keep, CHANNELS[target], stride=2, relu=False))

    def forward(self, xs: list[Tensor]) -> list[Tensor]:
        """One map a branch, in and out."""
        xs = [branch(x) for branch, x in zip(self.branches, xs, strict=True)]
        outputs = []
        for target, paths in enumerate(self.paths):
            assert isinstance(paths, nn.ModuleList)
            total = 2 * paths[0](xs[0])
            for path, x in zip(paths[1:], xs[1:], strict=True):
                total = total + path(x)
            if target == 0:
                xs[0] = total
            outputs.append(functional.relu(total))
        return outputs


class Stage(nn.Module):
    """A new branch at half the last one's size, then the stage's modules."""

    def __init__(self, modules: int, branches: int, *, first: bool) -> None:
        super().__init__()
        self.first = first
        if first:
            self.enter = nn.ModuleList(
                _separable(STEM, CHANNELS[i], stride=i + 1) for i in range(branches)
            )
        else:
            self.enter = nn.ModuleList([_separable(*CHANNELS[branches - 2 : branches], stride=2)])
        self.exchanges = nn.ModuleList(Exchange(branches) for _ in range(modules))

    def forward(self, xs: list[Tensor]) -> list[Tensor]:
        """The last stage's maps to this one's, a branch more."""
        entered = [enter(xs[-1]) for enter in self.enter]
        xs = entered if self.first else [*xs, *entered]
        for exchange in self.exchanges:
            xs = exchange(xs)
        return xs


class Fusion(nn.Module):
    """From the coarsest branch to the finest, each added to the next."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = nn.ModuleList(
            _separable(CHANNELS[i], CHANNELS[max(i - 1, 0)]) for i in reversed(range(len(CHANNELS)))
        )

    def forward(self, xs: list[Tensor]) -> Tensor:
        """One map a branch to (B, 40, H/4, W/4)."""
        fused: Tensor = self.steps[0](xs[-1])
        for step, x in zip(self.steps[1:], reversed(xs[:-1]), strict=True):
            up = functional.interpolate(fused, x.shape[2:], mode="bilinear", align_corners=True)
            fused = step(x + up)
        return fused


class TinyPoseTrunk(nn.Module):
    """(B, 3, H, W) normalised RGB to (B, 40, H/4, W/4)."""

    channels = CHANNELS[0]
    stride = 4

    def __init__(self) -> None:
        super().__init__()
        self.stem = Stem()
        self.stages = nn.ModuleList(
            Stage(modules, branches, first=index == 0)
            for index, (modules, branches) in enumerate(STAGES)
        )
        self.fusion = Fusion()

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, 40, H/4, W/4)."""
        xs = [self.stem(image)]
        for stage in self.stages:
            xs = stage(xs)
        fused: Tensor = self.fusion(xs)
        return fused


def load_pp_tinypose(trunk: TinyPoseTrunk, path: Path) -> dict[str, Tensor]:
    """Put the published weights into the trunk, with batch norm back in place.

    A convolution's output with bias had `mean` and `var` on person crops; a batch norm with
    running_mean = mean - bias, running_var = var, weight = sqrt(var + eps), bias = mean on the
    convolution without bias is the same map, and training may start from it in either mode.

    Args:
        trunk: to fill.
        path: safetensors of `NNN.weight`, `.bias`, `.mean`, `.var`, NNN in the order of execution.

    Returns:
        `weight` (17, 40, 1, 1) and `bias` (17) of the last convolution, PP-TinyPose's own
        heatmap head, which is not part of the trunk.

    Raises:
        ValueError: the file does not hold this network.
    """
    stored = {name: tensor.float() for name, tensor in load_file(path).items()}
    modules = list(trunk.modules())
    convs = [module for module in modules if isinstance(module, nn.Conv2d)]
    norms = [module for module in modules if isinstance(module, nn.BatchNorm2d)]
    if sum(name.endswith(".weight") for name in stored) != len(convs) + 1:
        raise ValueError(
            f"{path.name} does not hold the {len(convs) + 1} convolutions of PP-TinyPose"
        )
    with torch.no_grad():
        for index, (conv, norm) in enumerate(zip(convs, norms, strict=True)):
            weight, bias, mean, var = (
                stored[f"{index:03d}.{part}"] for part in ("weight", "bias", "mean", "var")
            )
            if weight.shape != conv.weight.shape:
                raise ValueError(
                    f"{path.name}: convolution {index} has shape {tuple(weight.shape)}"
                )
            assert norm.running_mean is not None
            assert norm.running_var is not None
            conv.weight.copy_(weight)
            norm.running_mean.copy_(mean - bias)
            norm.running_var.copy_(var)
            norm.weight.copy_((var + norm.eps).sqrt())
            norm.bias.copy_(mean)
    return {part: stored[f"{len(convs):03d}.{part}"] for part in ("weight", "bias")}
