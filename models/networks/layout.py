"""Convolutions from one arrangement of channels in memory to another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Layout:
    """What a map in memory means: the trunk's channel i is place `places[i]`."""

    places: tuple[int, ...]

    @classmethod
    def plain(cls, channels: int) -> Layout:
        """As the trunk itself has it."""
        return cls(tuple(range(channels)))

    @property
    def shuffled(self) -> Layout:
        """Once the two halves of the channels are interleaved."""
        half = len(self.places) // 2
        pairs = zip(self.places[:half], self.places[half:], strict=True)
        return Layout(tuple(place for pair in pairs for place in pair))


EVERY = slice(None)


def pointwise(
    block: nn.Module,
    read: Layout,
    write: Layout,
    *,
    inputs: slice = EVERY,
    outputs: slice = EVERY,
    gain: float = 1.0,
) -> nn.Conv2d:
    """A block's 1x1 convolution, from one layout to another.

    Args:
        block: the convolution, batch norm folded, and what follows it.
        read: of the map that it is given.
        write: of the map that it makes.
        inputs: which channels of `read` it convolves.
        outputs: which channels of `write` it makes; the places of the others are 0.
        gain: of what it makes.
    """
    source = convolution(block)
    rows, columns = torch.tensor(write.places[outputs]), torch.tensor(read.places[inputs])
    weight = torch.zeros(len(write.places), len(read.places), 1, 1)
    bias = torch.zeros(len(write.places))
    weight[rows[:, None], columns] = source.weight * gain
    bias[rows] = bias_of(source) * gain
    return filled(nn.Conv2d(len(read.places), len(write.places), 1), weight, bias)


def depthwise(block: nn.Module, layout: Layout) -> nn.Conv2d:
    """A block's depthwise convolution, within a layout."""
    source = convolution(block)
    channels = len(layout.places)
    places = torch.tensor(layout.places)
    weight, bias = torch.empty_like(source.weight), torch.empty(channels)
    weight[places] = source.weight
    bias[places] = bias_of(source)
    conv = nn.Conv2d(channels, channels, 3, source.stride[0], 1, groups=channels)
    return filled(conv, weight, bias)


def separable(
    block: nn.Module, read: Layout, write: Layout, *, relu: bool = True, gain: float = 1.0
) -> nn.Sequential:
    """A depthwise block and a 1x1 one; only the second changes the layout."""
    first, second = cast("nn.Sequential", block)
    layers = [depthwise(first, read), pointwise(second, read, write, gain=gain)]
    return nn.Sequential(*layers, nn.ReLU()) if relu else nn.Sequential(*layers)


def convolution(block: nn.Module) -> nn.Conv2d:
    """A block's first layer."""
    conv = cast("nn.Sequential", block)[0]
    assert isinstance(conv, nn.Conv2d)
    return conv


def bias_of(conv: nn.Conv2d) -> Tensor:
    """A convolution's bias.

    Raises:
        ValueError: a batch norm still stands in for it.
    """
    if conv.bias is None:
        raise ValueError("batch norm is to be folded into the trunk's convolutions first")
    return conv.bias


def filled(conv: nn.Conv2d, weight: Tensor, bias: Tensor) -> nn.Conv2d:
    """A convolution with these weights, not trained any more."""
    conv.weight = nn.Parameter(weight, requires_grad=False)
    conv.bias = nn.Parameter(bias, requires_grad=False)
    return conv


def rows_of(conv: nn.Conv2d, rows: slice) -> nn.Conv2d:
    """Some of the outputs of a 3x3 convolution that halves the map."""
    weight, bias = conv.weight[rows].clone(), bias_of(conv)[rows].clone()
    return filled(nn.Conv2d(conv.in_channels, len(bias), 3, 2, 1), weight, bias)
