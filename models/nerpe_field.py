"""NerPE's field on an engine: evaluated anywhere."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from models.engines import Engine, Floats

QUERIES = {"cpu": 1 << 9}
"""By device the most positions of a call: what a core's own cache holds of their hidden layers."""

MOST_QUERIES = 1 << 15
"""On other devices, where a call costs more than its arithmetic: bounds its memory."""


class NerpeField:
    """NerPE's field of a batch; with flip the mean of the crop's and its mirror image's.

    `check` is called before every part that is evaluated, and ends the work by raising.
    """

    def __init__(
        self,
        engine: Engine,
        cells: Floats,
        mirrored: Floats | None,
        mirror: tuple[int, ...],
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self.engine, self.cells, self.mirrored, self.mirror = engine, cells, mirrored, mirror
        self.check = check

    def __len__(self) -> int:
        return len(self.cells)

    def of(self, number: int) -> NerpeField:
        """The field of one crop."""
        one = slice(number, number + 1)
        mirrored = None if self.mirrored is None else self.mirrored[one]
        return NerpeField(self.engine, self.cells[one], mirrored, self.mirror, self.check)

    def __call__(self, points: NDArray[np.floating]) -> Floats:
        """(B, Q, 2) normalised to (B, Q, K), a bounded number of positions at a time."""
        points = np.ascontiguousarray(points, np.float32)
        most = QUERIES.get(self.engine.device, MOST_QUERIES)
        step = max(1, most // max(1, len(self.cells)))
        parts = [self._part(points[:, i : i + step]) for i in range(0, points.shape[1], step)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def _part(self, points: Floats) -> Floats:
        self.check()
        values = self.engine.field(self.cells, points)
        if self.mirrored is None:
            return values
        # The exact mirror image of a position has the opposite x (MODELS 3.3).
        opposite = points * np.array([-1, 1], np.float32)
        other = self.engine.field(self.mirrored, opposite)[..., list(self.mirror)]
        return np.asarray((values + other) / 2, np.float32)
