"""One box per person: of boxes that overlap much, the best stays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CANDIDATES = 1000
"""At most as many boxes are compared, the best, so that a threshold of 0 stays cheap."""


def overlaps(left: NDArray[np.floating], right: NDArray[np.floating]) -> NDArray[np.float64]:
    """Intersection over union of every pair.

    Args:
        left: (N, 4) x1 y1 x2 y2.
        right: (M, 4).

    Returns:
        (N, M) in [0, 1]; 0 where both have no area.
    """
    low = np.maximum(left[:, None, :2], right[None, :, :2])
    high = np.minimum(left[:, None, 2:], right[None, :, 2:])
    shared: NDArray[np.float64] = np.prod(np.clip(high - low, 0, None), axis=2, dtype=np.float64)
    areas = [np.prod(np.clip(c[:, 2:] - c[:, :2], 0, None), axis=1) for c in (left, right)]
    union = areas[0][:, None] + areas[1][None] - shared
    result = np.zeros_like(shared)
    np.divide(shared, union, out=result, where=union > 0)
    return result


def suppress(
    corners: NDArray[np.floating], scores: NDArray[np.floating], threshold: float
) -> NDArray[np.intp]:
    """The boxes that stay, best score first.

    Args:
        corners: (N, 4) x1 y1 x2 y2.
        scores: (N,).
        threshold: a box whose IoU with a better one that stays is above it goes.

    Returns:
        Indices into the boxes; of equal scores the first comes first.
    """
    order = np.argsort(-scores, kind="stable")[:CANDIDATES]
    overlapping = overlaps(corners[order], corners[order]) > threshold
    alive = np.ones(len(order), bool)
    for index, row in enumerate(overlapping):
        if alive[index]:
            alive[index + 1 :] &= ~row[index + 1 :]
    return order[alive]
