"""The heads that are convolutions and linear layers on shared features: SimCC, heatmap."""

from __future__ import annotations

from torch import Tensor, nn

from models.geometry import Size


def deconvolutions(channels: int, count: int, width: int) -> nn.Sequential:
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
        self,
        channels: int,
        grid: Size,
        joints: int,
        bins: tuple[int, int],
        *,
        deconvs: int = 0,
        width: int = 256,
        maps: int = 1,
    ) -> None:
        """Build it.

        Args:
            channels: of the features.
            grid: of the features (columns, rows).
            joints: K.
            bins: (Nx, Ny).
            deconvs: how many deconvolutions come first.
            width: their channels.
            maps: a joint, laid end to end: the published upsample-free head's 32 or 28.
        """
        super().__init__()
        self.split = (joints, maps)
        self.deconvs = deconvolutions(channels, deconvs, width)
        self.joints = nn.Conv2d(width if deconvs else channels, joints * maps, 1)
        cells = grid[0] * grid[1] * 4**deconvs * maps
        self.x = nn.Linear(cells, bins[0])
        self.y = nn.Linear(cells, bins[1])
        # A whole map of inputs a bin: the default start would drown the labels.
        for linear in (self.x, self.y):
            nn.init.normal_(linear.weight, std=0.001)
            nn.init.zeros_(linear.bias)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, h, w) to logits (B, K, Nx) and (B, K, Ny)."""
        maps = self.joints(self.deconvs(features)).unflatten(1, self.split).flatten(2)
        return self.x(maps), self.y(maps)


class HeatmapHead(nn.Module):
    """SimpleBaseline: deconvolutions where the features are coarse, then a 1x1 convolution."""

    def __init__(self, channels: int, joints: int, *, deconvs: int = 0, width: int = 256) -> None:
        super().__init__()
        self.deconvs = deconvolutions(channels, deconvs, width)
        self.joints = nn.Conv2d(width if deconvs else channels, joints, 1)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) to (B, K, rows, columns)."""
        maps: Tensor = self.joints(self.deconvs(features))
        return maps
