"""RTMDet-nano (Lyu et al., 2022) for one class: CSPNeXt trunk, PAFPN neck, a head per stride.

Batch norms are folded into the convolutions, as in the weights training starts from. Modules are
declared in the order in which they run, and `load_onnx` relies on it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional

from training.errors import DataError

STRIDES = (8, 16, 32)
BLOCKS = (1, 2, 2, 1)
"""CSPNeXt blocks in each of the trunk's four stages."""


class Conv(nn.Module):
    """A convolution with SiLU that keeps the size, but for its stride."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / stride, W / stride)."""
        return functional.silu(self.conv(x))


def separable(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """A depthwise convolution, then a 1x1."""
    return nn.Sequential(
        Conv(inputs, inputs, kernel, stride, groups=inputs), Conv(inputs, outputs, 1)
    )


class Block(nn.Module):
    """CSPNeXt's block: 3x3, then 5x5."""

    def __init__(self, channels: int, *, residual: bool) -> None:
        super().__init__()
        self.small = separable(channels, channels, 3)
        self.large = separable(channels, channels, 5)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W), the same out."""
        y: Tensor = self.large(self.small(x))
        return x + y if self.residual else y


class Attention(nn.Module):
    """Weighs the channels by what the whole map shows."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W), the same out."""
        return x * functional.hardsigmoid(self.fc(functional.adaptive_avg_pool2d(x, 1)))


class Csp(nn.Module):
    """Half of the channels through blocks, half past them."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        blocks: int = 1,
        *,
        residual: bool = False,
        attention: bool = False,
    ) -> None:
        super().__init__()
        half = outputs // 2
        self.short = Conv(inputs, half, 1)
        self.main = Conv(inputs, half, 1)
        self.blocks = nn.Sequential(*(Block(half, residual=residual) for _ in range(blocks)))
        self.attention = Attention(outputs) if attention else nn.Identity()
        self.final = Conv(outputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H, W)."""
        joined = torch.cat([self.blocks(self.main(x)), self.short(x)], dim=1)
        result: Tensor = self.final(self.attention(joined))
        return result


class Pyramid(nn.Module):
    """Spatial pyramid pooling: maxima of windows of 5, 9 and 13 beside the map itself."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = Conv(channels, channels // 2, 1)
        self.expand = Conv(channels * 2, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W), the same out."""
        x = self.reduce(x)
        pools = [functional.max_pool2d(x, size, 1, size // 2) for size in (5, 9, 13)]
        result: Tensor = self.expand(torch.cat([x, *pools], dim=1))
        return result


class Trunk(nn.Module):
    """CSPNeXt of width 0.25."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(Conv(3, 8, 3, 2), Conv(8, 8, 3), Conv(8, 16, 3))
        self.stages = nn.ModuleList()
        for index, blocks in enumerate(BLOCKS):
            inputs, outputs, last = 16 << index, 32 << index, index == len(BLOCKS) - 1
            self.stages.append(
                nn.Sequential(
                    separable(inputs, outputs, 3, 2),
                    Pyramid(outputs) if last else nn.Identity(),
                    Csp(outputs, outputs, blocks, residual=not last, attention=True),
                )
            )

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> maps of 64, 128 and 256 channels at strides 8, 16 and 32."""
        x = self.stem(x)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps[1:]


class Neck(nn.Module):
    """A path aggregation network: coarse maps into fine ones, then back."""

    def __init__(self) -> None:
        super().__init__()
        self.reduce_32 = Conv(256, 128, 1)
        self.down_16 = Csp(256, 128)
        self.reduce_16 = Conv(128, 64, 1)
        self.down_8 = Csp(128, 64)
        self.shrink_8 = separable(64, 64, 3, 2)
        self.up_16 = Csp(128, 128)
        self.shrink_16 = separable(128, 128, 3, 2)
        self.up_32 = Csp(256, 256)
        self.out = nn.ModuleList(separable(channels, 64, 3) for channels in (64, 128, 256))

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """The trunk's maps -> three of 64 channels."""
        fine, middle, coarse = maps
        reduced_32 = self.reduce_32(coarse)
        middle = self.down_16(torch.cat([_doubled(reduced_32), middle], dim=1))
        reduced_16 = self.reduce_16(middle)
        fine = self.down_8(torch.cat([_doubled(reduced_16), fine], dim=1))
        middle = self.up_16(torch.cat([self.shrink_8(fine), reduced_16], dim=1))
        coarse = self.up_32(torch.cat([self.shrink_16(middle), reduced_32], dim=1))
        return [out(x) for out, x in zip(self.out, (fine, middle, coarse), strict=True)]


class Head(nn.Module):
    """Of one stride: is a person here, and how far away are the edges of the box."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.score_convs = nn.Sequential(separable(64, 64, 3), separable(64, 64, 3))
        self.score = nn.Conv2d(64, 1, 1)
        self.edge_convs = nn.Sequential(separable(64, 64, 3), separable(64, 64, 3))
        self.edges = nn.Conv2d(64, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 64, h, w) -> (B, h, w, 5): logit; distances left, top, right, bottom in px."""
        score = self.score(self.score_convs(x))
        edges = self.edges(self.edge_convs(x)) * self.stride
        return torch.cat([score, edges], dim=1).permute(0, 2, 3, 1)


class RtmdetNano(nn.Module):
    """The detector, 0.99 M parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = Trunk()
        self.neck = Neck()
        self.heads = nn.ModuleList(Head(stride) for stride in STRIDES)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Normalised BGR (B, 3, H, W), sides multiples of 32 -> per stride (B, h, w, 5)."""
        maps = self.neck(self.trunk(images))
        return [head(x) for head, x in zip(self.heads, maps, strict=True)]

    def load_onnx(self, path: Path) -> None:
        """Take the weights of an ONNX file of the same network.

        Convolution by convolution in the order of the graph.

        Raises:
            DataError: the file has more, fewer or other convolutions than the network.
        """
        graph = onnx.load(str(path)).graph
        values = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
        nodes = [node for node in graph.node if node.op_type == "Conv"]
        convs = [module for module in self.modules() if isinstance(module, nn.Conv2d)]
        if len(nodes) != len(convs):
            raise DataError(f"{path.name} has {len(nodes)} convolutions, the network {len(convs)}")
        for node, conv in zip(nodes, convs, strict=True):
            attributes = {
                item.name: onnx.helper.get_attribute_value(item) for item in node.attribute
            }
            found = (values[node.input[1]].shape, attributes["strides"], attributes["group"])
            wanted = (tuple(conv.weight.shape), list(conv.stride), conv.groups)
            if found != wanted:
                raise DataError(f"{path.name}: {node.name} is {found}, the network's is {wanted}")
            with torch.no_grad():
                conv.weight.copy_(torch.from_numpy(np.array(values[node.input[1]])))
                assert conv.bias is not None
                conv.bias.copy_(torch.from_numpy(np.array(values[node.input[2]])))


def _doubled(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2.0, mode="nearest")
