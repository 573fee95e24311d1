"""NerPE's field on an engine: evaluated anywhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from models.arrays import Array, namespace, to_numpy
from models.engines import Engine

QUERIES = {"cpu": 1 << 10}
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
        cells: Array,
        mirrored: Array | None,
        mirror: Sequence[int],
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self.engine, self.cells, self.mirrored = engine, cells, mirrored
        self.mirror = list(mirror)
        self.check = check

    def __len__(self) -> int:
        return len(self.cells)

    def of(self, number: int) -> NerpeField:
        """The field of one crop."""
        one = slice(number, number + 1)
        mirrored = None if self.mirrored is None else self.mirrored[one]
        return NerpeField(self.engine, self.cells[one], mirrored, self.mirror, self.check)

    def __call__(self, points: Array) -> Array:
        """(B, Q, 2) normalised to (B, Q, K), a bounded number of positions at a time.

        Values are of the kind of the positions: numpy's for numpy's, wherever the engine has them.
        """
        xp = namespace(points)
        points = xp.astype(points, xp.float32, copy=False)
        most = QUERIES.get(self.engine.device, MOST_QUERIES)
        step = max(1, most // max(1, len(self.cells)))
        parts = [self._part(points[:, i : i + step]) for i in range(0, points.shape[1], step)]
        return parts[0] if len(parts) == 1 else xp.concat(parts, axis=1)

    def _part(self, points: Array) -> Array:
        self.check()
        values = self.engine.field(self.cells, points)
        if self.mirrored is not None:
            # The exact mirror image of a position has the opposite x (MODELS 3.3).
            xp = namespace(points)
            opposite = xp.stack([-points[..., 0], points[..., 1]], axis=-1)
            values = (values + self.engine.field(self.mirrored, opposite)[..., self.mirror]) / 2
        return values if namespace(points) is namespace(values) else to_numpy(values)
