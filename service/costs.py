"""What work takes: seconds = a * work + b, fitted to what was measured lately."""

from __future__ import annotations

import math
import threading
from collections import defaultdict, deque
from functools import cache, partial

import numpy as np
from numpy.typing import NDArray

_RECENT = 8
"""Measurements kept of each order of magnitude, so that busy sizes do not push out rare ones."""

_REFIT = 16
"""Measurements after which the line is drawn anew."""

_AT_FIRST = 8
"""Measurements after each of which it is."""


class Cost:
    """A line through recent measurements that a few outliers do not move (Theil 1950, Sen 1968).

    The slope is the median of those between all pairs, the intercept the median of what is left;
    up to a quarter of the measurements may be anything. Safe to share between threads.
    """

    def __init__(self) -> None:
        self.version = 0
        """Goes up whenever the line moves."""
        self._recent: defaultdict[int, deque[tuple[float, float]]] = defaultdict(
            partial(deque, maxlen=_RECENT)
        )
        self._count = 0
        self._learning = threading.Lock()
        self.slope = self._intercept = 0.0
        """Seconds that one more unit of work takes."""

    def __call__(self, work: float) -> float:
        """Seconds that this much work takes at once; 0 while nothing is known."""
        return self.slope * work + self._intercept

    def learn(self, work: float, seconds: float) -> None:
        """Take in a measurement.

        Args:
            work: over 0, in any unit.
            seconds: that it took.
        """
        with self._learning:
            self._recent[math.floor(math.log2(work))].append((work, seconds))
            self._count += 1
            if self._count <= _AT_FIRST or self._count % _REFIT == 0:
                points = np.array([point for points in self._recent.values() for point in points])
                self.slope, self._intercept = _line(points[:, 0], points[:, 1])
                self.version += 1


@cache
def _pairs(count: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    one, other = np.triu_indices(count, 1)
    return one, other


def _line(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float]:
    """(slope, intercept), neither below 0."""
    one, other = _pairs(len(x))
    across = x[other] - x[one]
    apart = across != 0
    if not apart.any():
        return float(np.median(y / x)), 0.0
    slope = max(0.0, float(np.median((y[other] - y[one])[apart] / across[apart])))
    intercept = float(np.median(y - slope * x))
    # A line that starts below 0 would promise small work for nothing.
    return (slope, intercept) if intercept >= 0 else (float(np.median(y / x)), 0.0)
