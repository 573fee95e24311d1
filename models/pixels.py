"""How networks want their pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Pixels:
    """(value - mean) / std on 0 to 255, channel by channel in the order that is wanted."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    channels: Literal["RGB", "BGR"]

    def __call__(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(B, H, W, 3) RGB to (B, 3, H, W)."""
        ordered = crops if self.channels == "RGB" else crops[..., ::-1]
        mean, std = (np.array(each, np.float32) for each in (self.mean, self.std))
        values = (ordered.astype(np.float32) - mean) / std
        return np.ascontiguousarray(values.transpose(0, 3, 1, 2), np.float32)


IMAGENET = Pixels((123.675, 116.28, 103.53), (58.395, 57.12, 57.375), "RGB")
"""What mmpose's networks have learnt from, and most others."""
