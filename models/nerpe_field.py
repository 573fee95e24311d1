"""NerPE's field on an engine: evaluated anywhere, and on lattices only where it matters."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from models.codecs.nerpe import COARSE
from models.engines import Engine, Floats
from models.geometry import Size, normalise

QUERIES = 1 << 13
"""The most positions that are evaluated in one call: bounds its memory."""

QUIET = 0.01
"""A block of a lattice whose coarse samples all stay below this is interpolated."""


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
        step = max(1, QUERIES // max(1, len(self.cells)))
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


def sample_lattice(
    field: NerpeField,
    size: Size,
    columns: NDArray[np.floating],
    rows: NDArray[np.floating],
    joints: list[int],
    *,
    exact: bool,
) -> Floats:
    """The field on a lattice: at every sample, or coarsely and then the blocks where a joint stirs.

    Coarsely is as `progressive` decoding starts, so that no peak hides between two samples.

    Args:
        field: of B crops.
        size: of the crops (width, height).
        columns: (w,) crop px, ascending.
        rows: (h,) likewise.
        joints: indices of those wanted.
        exact: evaluate every sample.

    Returns:
        (B, joints, h, w) float32 in [0, 1].
    """
    shape = len(joints), len(rows), len(columns)
    every_x, every_y = (part.ravel() for part in np.meshgrid(columns, rows))
    coarse_x, coarse_y = (_coarse(part, max(size) / COARSE) for part in (columns, rows))
    # Where the coarse lattice is nearly the whole one there is nothing to save.
    exact = exact or min(len(coarse_x), len(coarse_y)) < 2
    exact = exact or 2 * len(coarse_x) * len(coarse_y) > len(columns) * len(rows)
    result = np.empty((len(field), *shape), np.float32)
    for number in range(len(field)):
        own = field.of(number)

        def evaluate(
            x: NDArray[np.floating], y: NDArray[np.floating], own: NerpeField = own
        ) -> Floats:
            """(Q,), (Q,) crop px to (joints, Q)."""
            points = normalise(np.stack([x, y], axis=-1), size)
            return np.asarray(own(points[None])[0].T[joints].clip(0, 1), np.float32)

        if exact:
            result[number] = evaluate(every_x, every_y).reshape(shape)
            continue
        grid_x, grid_y = np.meshgrid(columns[coarse_x], rows[coarse_y])
        coarse = evaluate(grid_x.ravel(), grid_y.ravel())
        coarse = coarse.reshape(len(joints), len(coarse_y), len(coarse_x))
        result[number] = _interpolated(coarse, coarse_x, coarse_y, shape)
        stirred = _stirred(coarse, coarse_x, coarse_y, shape).ravel()
        if stirred.any():
            fine = evaluate(every_x[stirred], every_y[stirred])
            result[number].reshape(len(joints), -1)[:, stirred] = fine
    return result


def _coarse(positions: NDArray[np.floating], pitch_px: float) -> NDArray[np.int64]:
    """Indices of samples no more than a pitch apart, with the first and the last."""
    count = len(positions)
    span = float(np.diff(positions).max(initial=0.0))
    block = max(1, int(pitch_px / span)) if span else 1
    return np.unique(np.append(np.arange(0, count, block), count - 1))


def _interpolated(
    coarse: Floats, xs: NDArray[np.int64], ys: NDArray[np.int64], shape: tuple[int, int, int]
) -> Floats:
    """Bilinear, from samples at indices `xs`, `ys` to every index of `shape` (joints, h, w)."""

    def weights(at: NDArray[np.int64], count: int) -> Floats:
        """(count, len(at))."""
        every = np.arange(count)
        return np.stack([np.interp(every, at, row) for row in np.eye(len(at))], axis=1).astype(
            np.float32
        )

    return np.asarray(weights(ys, shape[1]) @ coarse @ weights(xs, shape[2]).T, np.float32)


def _stirred(
    coarse: Floats, xs: NDArray[np.int64], ys: NDArray[np.int64], shape: tuple[int, int, int]
) -> NDArray[np.bool_]:
    """(h, w): the blocks of which a corner, or the corner of a neighbour, is not quiet."""
    loud: NDArray[np.bool_] = np.any(coarse > QUIET, axis=0)
    # A block is loud if one of its four corners is; then it and its eight neighbours stir.
    blocks = loud[:-1, :-1] | loud[1:, :-1] | loud[:-1, 1:] | loud[1:, 1:]
    padded = np.pad(blocks, 1)
    grown = np.zeros_like(blocks)
    for dy in range(3):
        for dx in range(3):
            grown |= padded[dy : dy + blocks.shape[0], dx : dx + blocks.shape[1]]
    rows = np.clip(np.searchsorted(ys, np.arange(shape[1]), side="right") - 1, 0, len(ys) - 2)
    columns = np.clip(np.searchsorted(xs, np.arange(shape[2]), side="right") - 1, 0, len(xs) - 2)
    return np.asarray(grown[np.ix_(rows, columns)])
