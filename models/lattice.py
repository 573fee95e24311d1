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
    across, down = _within(columns, size[0]), _within(rows, size[1])
    result = np.zeros((*maps, len(rows), len(columns)), np.float32)
    xs, ys = columns[across], rows[down]
    if len(xs) and len(ys) and all(maps):
        result[:, :, down, across] = sample(xs, ys)
    return result


def _within(at: NDArray[np.floating], side: int) -> slice:
    """Which of ascending positions lie on a crop's side."""
    first = int(np.searchsorted(at, -0.5))
    return slice(first, int(np.searchsorted(at, side - 0.5, side="right")))
