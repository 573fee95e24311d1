"""RTMPose's head: SimCC on joints that attend to each other (Jiang et al., 2023)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.geometry import Size


class ScaleNorm(nn.Module):
    """A vector over its length, times one learnt gain."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = width**-0.5
        self.gain = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) to the same."""
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True) * self.scale
        normed: Tensor = x / length.clamp(min=1e-5) * self.gain
        return normed


class GatedAttention(nn.Module):
    """A gated attention unit over the joints (MODELS 1.5; RTMPose eq. 2 as its code has it).

    The paper divides the attention by the number of joints, its code and its weights do not.
    """

    def __init__(self, width: int = 256, hidden: int = 512, keys: int = 128) -> None:
        super().__init__()
        self.norm = ScaleNorm(width)
        self.inward = nn.Linear(width, 2 * hidden + keys, bias=False)
        self.outward = nn.Linear(hidden, width, bias=False)
        self.gamma = nn.Parameter(torch.rand(2, keys))
        self.beta = nn.Parameter(torch.rand(2, keys))
        self.shortcut = nn.Parameter(torch.ones(width))
        self.widths = [hidden, hidden, keys]
        nn.init.xavier_uniform_(self.inward.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(B, K, width) to the same."""
        inward = functional.silu(self.inward(self.norm(x)))
        gates, values, base = torch.split(inward, self.widths, dim=-1)
        query, key = (base * g + b for g, b in zip(self.gamma, self.beta, strict=True))
        attention = functional.relu(query @ key.transpose(1, 2) / self.widths[-1] ** 0.5).square()
        attended: Tensor = self.outward(gates * (attention @ values))
        return x * self.shortcut + attended


class GauSimccHead(nn.Module):
    """7x7 convolution to the joints, each flattened to a token; attention; two linear layers."""

    def __init__(
        self, channels: int, grid: Size, joints: int, bins: tuple[int, int], *, width: int = 256
    ) -> None:
        """Build it.

        Args:
            channels: of the features.
            grid: of the features (columns, rows).
            joints: K.
            bins: (Nx, Ny).
            width: of a joint's token.
        """
        super().__init__()
        cells = grid[0] * grid[1]
        self.joints = nn.Conv2d(channels, joints, 7, padding=3)
        self.token = nn.Sequential(ScaleNorm(cells), nn.Linear(cells, width, bias=False))
        self.attention = GatedAttention(width)
        self.x, self.y = (nn.Linear(width, count, bias=False) for count in bins)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, h, w) to logits (B, K, Nx) and (B, K, Ny)."""
        tokens = self.attention(self.token(self.joints(features).flatten(2)))
        return self.x(tokens), self.y(tokens)
