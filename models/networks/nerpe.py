"""NerPE's head: a field that answers at any position (NeurIPS 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from models.geometry import Size

Doubling = Literal["nearest", "deconv"]
"""Of a map that is coarser than the cells: nearest and a convolution, or a deconvolution."""


def zoom(
    channels: int, width: int, grid: Size, cells: Size, *, entry: bool, doubling: Doubling
) -> nn.Sequential:
    """Features on their grid to features of the cells.

    Args:
        channels: of the features.
        width: of a cell's feature.
        grid: of the features (columns, rows).
        cells: (columns, rows): the grid's size times or divided by a power of 2.
        entry: a 3x3 convolution comes before any halving, as published; without it the first
            halving takes the features as they are.
        doubling: how each doubling is made.

    Raises:
        ValueError: the cells cannot be reached from the grid.
    """
    larger, smaller = (cells, grid) if cells[0] > grid[0] else (grid, cells)
    factor = larger[0] // smaller[0]
    if (smaller[0] * factor, smaller[1] * factor) != larger or factor & (factor - 1):
        raise ValueError(f"cells {cells} are not the grid {grid} times or divided by a power of 2")
    halving = larger is grid
    layers: list[nn.Module] = []
    if entry or not halving or factor == 1:
        layers += [nn.Conv2d(channels, width, 3, 1, 1, bias=False), *_normed(width)]
        channels = width
    for _ in range(factor.bit_length() - 1):
        if halving:
            layers.append(nn.Conv2d(channels, width, 3, 2, 1, bias=False))
        elif doubling == "deconv":
            layers.append(nn.ConvTranspose2d(width, width, 4, 2, 1, bias=False))
        else:
            layers += [nn.Upsample(scale_factor=2), nn.Conv2d(width, width, 3, 1, 1, bias=False)]
        layers += _normed(width)
        channels = width
    return nn.Sequential(*layers, nn.Conv2d(width, width, 1))


def _normed(width: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(width), nn.ReLU()]


class NerpeHead(nn.Module):
    """Features to a grid of cells, cells and a position to values (NerPE 3.2).

    A value is that of the MLP on [cell's feature, position relative to the cell]. The first layer
    is split: W_f * feature, once a cell, is what `cells` returns; `field` adds W_p * position.
    The sum is the same to the last bit of arithmetic order, for a fraction of the operations.
    """

    def __init__(
        self,
        channels: int,
        grid: Size,
        cells: Size,
        joints: int,
        *,
        hidden: Sequence[int] = (256, 128, 128, 128, 64),
        width: int = 256,
        sinusoids: int = 0,
        entry: bool = False,
        doubling: Doubling = "nearest",
        ensemble: bool = True,
    ) -> None:
        """Build it.

        Args:
            channels: of the features.
            grid: of the features (columns, rows).
            cells: of the cells (columns, rows): the grid's size times or divided by a power of 2.
            joints: K.
            hidden: widths of the MLP; the default is the paper's lower variant.
            width: channels of a cell's feature.
            sinusoids: L, octaves of sine and cosine of the relative position.
            entry: as `zoom` has it.
            doubling: as `zoom` has it.
            ensemble: blend the four nearest cells' predictions; else the nearest cell's alone.

        Raises:
            ValueError: the cells cannot be reached from the grid.
        """
        super().__init__()
        self.zoom = zoom(channels, width, grid, cells, entry=entry, doubling=doubling)
        self.feature = nn.Conv2d(width, hidden[0], 1)
        self.sinusoids = sinusoids
        self.position = nn.Linear(2 + 4 * sinusoids, hidden[0], bias=False)
        mlp: list[nn.Module] = []
        for inputs, outputs in pairwise((*hidden, joints)):
            mlp += [nn.ReLU(), nn.Linear(inputs, outputs)]
        self.mlp = nn.Sequential(*mlp)
        self.columns, self.rows = cells
        self.ensemble = ensemble

    def cells(self, features: Tensor) -> Tensor:
        """(B, C, h, w) to (B, hidden[0], rows, columns)."""
        grid: Tensor = self.feature(self.zoom(features))
        return grid

    def neighbours(self, cells: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """The values that the four nearest cells predict, and their weights.

        Args:
            cells: (B, hidden[0], rows, columns).
            points: (B, Q, 2), normalised.

        Returns:
            (B, 4, Q, K) values; (B, 4, Q) weights that sum to 1, each the area of the rectangle
            to the diagonally opposite cell: bilinear interpolation of the four (NerPE eq. 8).
            Without the ensemble one cell in place of the four.
        """
        longer = max(self.columns, self.rows)
        size = torch.tensor([self.columns, self.rows], dtype=points.dtype, device=points.device)
        # Positions in cells, 0 at the first cell's centre.
        at = points * (longer / 2) + (size - 1) / 2
        if not self.ensemble:
            nearest = torch.minimum(torch.round(at).clamp(min=0), size - 1)[:, None]
            return self._values(cells, nearest, at), torch.ones_like(nearest[..., 0])
        low = torch.floor(at)
        corners = torch.tensor(
            [[0, 0], [0, 1], [1, 0], [1, 1]], dtype=points.dtype, device=points.device
        )
        corner = low[:, None] + corners[:, None]  # (B, 4, Q, 2)
        index = torch.minimum(corner.clamp(min=0), size - 1)
        # Beyond the outermost centres the two cells of an axis are one and the same: an even share.
        # No sum of areas is divided by: it vanishes on the last centres, and a small term that
        # prevents it does not survive the export.
        beyond = (low < 0) | (low >= size - 1)
        fraction = torch.where(beyond, 0.5, at - low)
        weights = (1 - corners[:, None] - fraction[:, None]).abs().prod(-1)
        return self._values(cells, index, at), weights

    def _values(self, cells: Tensor, index: Tensor, at: Tensor) -> Tensor:
        """What cells (B, n, Q, 2) predict at positions (B, Q, 2), both counted in cells."""
        flat = cells.flatten(2).transpose(1, 2).flatten(0, 1)  # (B * cells, C)
        batch = torch.arange(cells.shape[0], device=cells.device)[:, None, None]
        number = (index[..., 1] * self.columns + index[..., 0]).long()
        hidden = flat[batch * (self.columns * self.rows) + number]  # (B, n, Q, C)
        relative = 2 * (at[:, None] - index)
        values: Tensor = self.mlp(hidden + self.position(self._encoded(relative)))
        return values

    def _encoded(self, relative: Tensor) -> Tensor:
        parts = [relative]
        for octave in range(self.sinusoids):
            angle = 2**octave * torch.pi * relative
            parts += [angle.sin(), angle.cos()]
        return torch.cat(parts, dim=-1)

    def field(self, cells: Tensor, points: Tensor) -> Tensor:
        """(B, hidden[0], rows, columns), (B, Q, 2) normalised to (B, Q, K): the local ensemble."""
        values, weights = self.neighbours(cells, points)
        return (values * weights[..., None]).sum(1)
