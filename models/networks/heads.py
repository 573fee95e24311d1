"""Heads on shared features: SimCC, NerPE, heatmap."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from models.geometry import Size


def deconvolutions(channels: int, count: int, width: int = 256) -> nn.Sequential:
    """SimpleBaseline's: each doubles the map (4x4, stride 2, batch norm, ReLU)."""
    layers: list[nn.Module] = []
    for index in range(count):
        layers += [
            nn.ConvTranspose2d(channels if index == 0 else width, width, 4, 2, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers)


class SimccHead(nn.Module):
    """1x1 convolution to the joints, then two linear layers that all joints share (SimCC 3.1)."""

    def __init__(
        self, channels: int, grid: Size, joints: int, bins: tuple[int, int], *, deconvs: int = 0
    ) -> None:
        """Build it.

        Args:
            channels: of the features.
            grid: of the features (columns, rows).
            joints: K.
            bins: (Nx, Ny).
            deconvs: how many deconvolutions come first.
        """
        super().__init__()
        self.deconvs = deconvolutions(channels, deconvs)
        self.joints = nn.Conv2d(256 if deconvs else channels, joints, 1)
        cells = grid[0] * grid[1] * 4**deconvs
        self.x = nn.Linear(cells, bins[0])
        self.y = nn.Linear(cells, bins[1])
        # A whole map of inputs a bin: the default start would drown the labels.
        for linear in (self.x, self.y):
            nn.init.normal_(linear.weight, std=0.001)
            nn.init.zeros_(linear.bias)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, h, w) to logits (B, K, Nx) and (B, K, Ny)."""
        maps = self.joints(self.deconvs(features)).flatten(2)
        return self.x(maps), self.y(maps)


class HeatmapHead(nn.Module):
    """SimpleBaseline: deconvolutions where the features are coarse, then a 1x1 convolution."""

    def __init__(self, channels: int, joints: int, *, deconvs: int = 0) -> None:
        super().__init__()
        self.deconvs = deconvolutions(channels, deconvs)
        self.joints = nn.Conv2d(256 if deconvs else channels, joints, 1)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) to (B, K, rows, columns)."""
        maps: Tensor = self.joints(self.deconvs(features))
        return maps


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
    ) -> None:
        """Build it.

        Args:
            channels: of the features.
            grid: of the features (columns, rows).
            cells: of the cells (columns, rows): the grid's size divided by a power of 2.
            joints: K.
            hidden: widths of the MLP; the default is the paper's lower variant.
            width: channels of a cell's feature.
            sinusoids: L, octaves of sine and cosine of the relative position.

        Raises:
            ValueError: the cells cannot be reached from the grid.
        """
        super().__init__()
        factor = grid[0] // cells[0]
        if (cells[0] * factor, cells[1] * factor) != grid or factor & (factor - 1):
            raise ValueError(f"cells {cells} are not the grid {grid} divided by a power of 2")
        layers: list[nn.Module] = []
        steps = factor.bit_length() - 1
        for step in range(max(steps, 1)):
            inputs = channels if step == 0 else width
            stride = 2 if step < steps else 1
            layers += [
                nn.Conv2d(inputs, width, 3, stride, 1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            ]
        self.zoom = nn.Sequential(*layers, nn.Conv2d(width, width, 1))
        self.feature = nn.Conv2d(width, hidden[0], 1)
        self.sinusoids = sinusoids
        self.position = nn.Linear(2 + 4 * sinusoids, hidden[0], bias=False)
        mlp: list[nn.Module] = []
        for inputs, outputs in pairwise((*hidden, joints)):
            mlp += [nn.ReLU(), nn.Linear(inputs, outputs)]
        self.mlp = nn.Sequential(*mlp)
        self.columns, self.rows = cells

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
        """
        longer = max(self.columns, self.rows)
        size = torch.tensor([self.columns, self.rows], dtype=points.dtype, device=points.device)
        # Positions in cells, 0 at the first cell's centre.
        at = points * (longer / 2) + (size - 1) / 2
        low = torch.floor(at)
        corners = torch.tensor(
            [[0, 0], [0, 1], [1, 0], [1, 1]], dtype=points.dtype, device=points.device
        )
        corner = low[:, None] + corners[:, None]  # (B, 4, Q, 2)
        index = torch.minimum(corner.clamp(min=0), size - 1)
        relative = 2 * (at[:, None] - index)
        # Beyond the outermost centres the two cells of an axis are one and the same: an even share.
        # No sum of areas is divided by: it vanishes on the last centres, and a small term that
        # prevents it does not survive the export.
        beyond = (low < 0) | (low >= size - 1)
        fraction = torch.where(beyond, 0.5, at - low)
        weights = (1 - corners[:, None] - fraction[:, None]).abs().prod(-1)
        flat = cells.flatten(2).transpose(1, 2).flatten(0, 1)  # (B * cells, C)
        batch = torch.arange(cells.shape[0], device=cells.device)[:, None, None]
        number = (index[..., 1] * self.columns + index[..., 0]).long()
        hidden = flat[batch * (self.columns * self.rows) + number]  # (B, 4, Q, C)
        return self.mlp(hidden + self.position(self._encoded(relative))), weights

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
