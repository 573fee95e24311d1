"""How far scores and sigmas can be believed, on people that they were not fitted on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RIGHT = 0.1
"""A joint is right within this share of its person's size, the square root of the box's area."""

BINS = 15
"""Of scores, equally wide: the usual count of the expected calibration error."""

Reliability = tuple[tuple[float, float, int], ...]
"""Of each bin that has joints: their mean score, the share that is right, how many they are."""


def reliability(scores: NDArray[np.floating], right: NDArray[np.bool_]) -> Reliability:
    """The table that a reliability diagram shows.

    Args:
        scores: (N,) in [0, 1].
        right: (N,).
    """
    place = np.minimum((scores * BINS).astype(int), BINS - 1)
    return tuple(
        (float(scores[inside].mean()), float(right[inside].mean()), int(inside.sum()))
        for inside in (place == number for number in range(BINS))
        if inside.any()
    )


def calibration_error(table: Reliability) -> float:
    """Mean distance between score and share, each bin by its count (Guo et al., ICML 2017)."""
    scores, shares, counts = np.array(table).T
    return float(np.average(np.abs(scores - shares), weights=counts))
