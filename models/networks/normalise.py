"""Pixels to what encoders take."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Normalise(nn.Module):
    """(B, H, W, 3) uint8 RGB to (B, 3, H, W) float32 with ImageNet's mean and deviation."""

    mean: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        mean = torch.tensor([0.485, 0.456, 0.406]) * 255
        std = torch.tensor([0.229, 0.224, 0.225]) * 255
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("scale", 1 / std, persistent=False)

    def forward(self, crops: Tensor) -> Tensor:
        """Pixels to the encoder's input."""
        return ((crops.float() - self.mean) * self.scale).permute(0, 3, 1, 2)
