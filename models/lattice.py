"""Heatmaps on a lattice that reaches beyond its crop."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from models.engines import Floats
from models.geometry import Size

Sample: TypeAlias = Callable[[NDArray[np.floating], NDArray[np.floating]], Floats]
"""From columns (w,) and rows (h,), crop px, to heatmaps (B, joints, h, w) there."""


def within_crop(
    sample: Sample,
    size: Size,
    maps: tuple[int, int],
    columns: NDArray[np.floating],
    rows: NDArray[np.floating],
) -> Floats:
    """Ask only for what lies in the crop.

    Args:
        sample: what draws there.
        size: of the crop, width and height.
        maps: how many it draws, (B, joints).
        columns: (w,) crop px, ascending.
        rows: (h,) likewise.

    Returns:
        (B, joints, h, w) float32; 0 outside the crop.
    """
    inside_x = (columns >= -0.5) & (columns <= size[0] - 0.5)
    inside_y = (rows >= -0.5) & (rows <= size[1] - 0.5)
    result = np.zeros((*maps, len(rows), len(columns)), np.float32)
    xs, ys = columns[inside_x], rows[inside_y]
    if len(xs) and len(ys) and all(maps):
        values = sample(xs, ys)
        result[:, :, inside_y[:, None] & inside_x] = values.reshape(*maps, len(ys) * len(xs))
    return result
