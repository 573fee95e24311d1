"""TokenPose-S: a token a joint among those of the picture's patches (Li et al., ICCV 2021)."""

from __future__ import annotations

import math

import torch
from timm.models.resnet import Bottleneck
from torch import Tensor, nn

from models.geometry import Size

WIDTH = 192
"""Of a token."""


class TokenPoseEncoder(nn.Module):
    """Joints' tokens and patches' tokens, as one row of a map: (B, 192, 1, K + patches).

    Two strided convolutions and ResNet's first stage, then 12 layers of attention. As published:
    a patch's position is a sine, added again before every layer. Attention is scaled by its own
    heads' width, as everywhere else, where the published code takes the whole token's.
    """

    channels = WIDTH
    stride = 4

    def __init__(self, joints: int, patch: Size, *, layers: int = 12) -> None:
        """Build it.

        Args:
            joints: K.
            patch: (width, height) in cells of the stem's map, which is a quarter of the crop.
            layers: of attention.
        """
        super().__init__()
        self.patch = patch
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 3, 2, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
            nn.Conv2d(64, 64, 3, 2, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
            Bottleneck(64, 64, downsample=nn.Sequential(
                nn.Conv2d(64, 256, 1, bias=False), nn.BatchNorm2d(256)
            )),
            *(Bottleneck(256, 64) for _ in range(3)),
        )  # fmt: skip
        self.patches = nn.Conv2d(256, WIDTH, patch[::-1], patch[::-1])
        self.joints = nn.Parameter(torch.zeros(1, joints, WIDTH))
        nn.init.trunc_normal_(self.joints, std=0.02)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                WIDTH, 8, 3 * WIDTH, 0.0, "gelu", batch_first=True, norm_first=True
            )
            for _ in range(layers)
        )

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, 192, 1, K + patches), joints first."""
        patches = self.patches(self.stem(image))
        position = _sines(patches.shape[-1], patches.shape[-2], patches)
        joints = self.joints.expand(len(patches), -1, -1)
        position = torch.cat([torch.zeros_like(self.joints), position], dim=1)
        tokens = torch.cat([joints, patches.flatten(2).transpose(1, 2)], dim=1)
        for layer in self.layers:
            tokens = layer(tokens + position)
        return tokens.transpose(1, 2)[:, :, None]


def _sines(columns: int, rows: int, like: Tensor) -> Tensor:
    """(1, rows * columns, 192): half of it says the row, half the column, each from 0 to 2 pi."""
    half = WIDTH // 2
    waves = 10000 ** (torch.arange(0, half, 2, device=like.device, dtype=like.dtype) / half)
    parts = []
    for count in (rows, columns):
        at = torch.arange(1, count + 1, device=like.device, dtype=like.dtype) / count
        angles = 2 * math.pi * at[:, None] / waves
        parts.append(torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1))
    row, column = parts[0][:, None].expand(-1, columns, -1), parts[1].expand(rows, -1, -1)
    return torch.cat([row, column], dim=-1).flatten(0, 1)[None]


class PatchMap(nn.Module):
    """The patches' tokens as the map that they were cut from."""

    def __init__(self, joints: int, grid: Size) -> None:
        super().__init__()
        self.joints, self.grid = joints, grid

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, 1, K + patches) to (B, C, rows, columns)."""
        patches = features[:, :, 0, self.joints :]
        return patches.reshape(len(patches), patches.shape[1], *self.grid[::-1])


class TokenHeatmapHead(nn.Module):
    """Each joint's token to its map; through a hidden layer where the map is large."""

    def __init__(self, joints: int, grid: Size) -> None:
        super().__init__()
        self.joints, self.grid = joints, grid
        cells = grid[0] * grid[1]
        hidden = cells // 8
        if hidden >= 2 * WIDTH:
            layers = [nn.Linear(WIDTH, hidden), nn.LayerNorm(hidden), nn.Linear(hidden, cells)]
        else:
            layers = [nn.Linear(WIDTH, cells)]
        self.map = nn.Sequential(nn.LayerNorm(WIDTH), *layers)

    def forward(self, features: Tensor) -> Tensor:
        """(B, 192, 1, K + patches) to (B, K, rows, columns)."""
        tokens = features[:, :, 0, : self.joints].transpose(1, 2)
        maps: Tensor = self.map(tokens)
        return maps.view(len(tokens), self.joints, *self.grid[::-1])


class TokenSimccHead(nn.Module):
    """Each joint's token to its two vectors, in place of the map's layers (SimCC 4.1)."""

    def __init__(self, joints: int, bins: tuple[int, int]) -> None:
        super().__init__()
        self.joints = joints
        self.norm = nn.LayerNorm(WIDTH)
        self.x, self.y = (nn.Linear(WIDTH, count) for count in bins)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 192, 1, K + patches) to logits (B, K, Nx) and (B, K, Ny)."""
        tokens = self.norm(features[:, :, 0, : self.joints].transpose(1, 2))
        return self.x(tokens), self.y(tokens)
