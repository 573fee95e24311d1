"""NerPE's field on a lattice: evaluated where it bends, and subdivided where it does not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.codecs.nerpe import COARSE
from models.engines import Floats
from models.geometry import Size, normalise
from models.nerpe_field import NerpeField

SURPRISE = 0.01
"""What subdivision missed a sample by makes the samples around it worth evaluating."""

Mask = NDArray[np.bool_]


def sample_lattice(
    field: NerpeField,
    size: Size,
    columns: NDArray[np.floating],
    rows: NDArray[np.floating],
    joints: list[int],
    *,
    exact: bool,
) -> Floats:
    """The field on a lattice: at every sample, or at few and the rest from those.

    It is evaluated at every sample of a lattice as coarse as the one that `progressive` starts on,
    so that no peak hides between two samples. Then the pitch is halved until it is the one asked
    for. Each time the new samples are foretold by subdivision; those are evaluated as well that
    lie where the step before was a surprise, and those around each joint's peak, as `progressive`
    does. So a peak's height and place are evaluated, not foretold.

    Args:
        field: of B crops.
        size: of the crops (width, height).
        columns: (w,) crop px, ascending and evenly spaced.
        rows: (h,) likewise.
        joints: indices of those wanted.
        exact: evaluate every sample.

    Returns:
        (B, joints, h, w) float32 in [0, 1].
    """
    step = 1 if exact else _first_step(columns, rows, max(size) / COARSE)
    result = np.empty((len(field), len(joints), len(rows), len(columns)), np.float32)
    for number in range(len(field)):
        samples = _Samples(field.of(number), size, columns, rows, joints)
        result[number] = _refined(samples, step) if step > 1 else samples.every(1)
    return result


def _first_step(
    columns: NDArray[np.floating], rows: NDArray[np.floating], coarsest_px: float
) -> int:
    """A power of 2: how many samples apart those are that are evaluated everywhere."""
    spacing = max(float(np.diff(at).max(initial=0.0)) for at in (columns, rows))
    shortest = min(len(columns), len(rows))
    step = 1
    while 2 * step * spacing <= coarsest_px and 4 * step < shortest:
        step *= 2
    return step


@dataclass(frozen=True, slots=True)
class _Samples:
    """One crop's field at a lattice's samples, by their indices; beyond the last one too."""

    field: NerpeField
    size: Size
    columns: NDArray[np.floating]
    rows: NDArray[np.floating]
    joints: list[int]

    def at(self, x: NDArray[np.int64], y: NDArray[np.int64]) -> Floats:
        """(Q,), (Q,) indices to (joints, Q) in [0, 1]."""
        px = np.stack([_position(self.columns, x), _position(self.rows, y)], axis=-1)
        values = self.field(normalise(px, self.size)[None])[0]
        return np.asarray(values.T[self.joints].clip(0, 1), np.float32)

    def every(self, step: int) -> Floats:
        """(joints, h', w') of every step-th sample, up to the first that covers the last."""
        x, y = (np.arange(0, len(at) - 1 + step, step) for at in (self.columns, self.rows))
        grid_x, grid_y = np.meshgrid(x, y)
        return self.at(grid_x.ravel(), grid_y.ravel()).reshape(len(self.joints), len(y), len(x))


def _position(at: NDArray[np.floating], index: NDArray[np.int64]) -> NDArray[np.floating]:
    last = len(at) - 1
    beyond = np.maximum(index - last, 0)
    return np.asarray(at[np.minimum(index, last)] + beyond * (at[-1] - at[-2] if last else 0.0))


def _refined(samples: _Samples, first: int) -> Floats:
    """(joints, h, w), starting from every `first`-th sample."""
    step = 2 * first  # one level more than is needed, to know what was a surprise
    values = samples.every(step)
    surprising = np.ones(values.shape[1:], np.bool_)
    while step > 1:
        step //= 2
        asked = _between(_grown(surprising))
        if step < first:
            _around_peaks(values, asked)
        asked[::2, ::2] = False  # those are there
        values = _subdivided(_subdivided(values.swapaxes(1, 2)).swapaxes(1, 2))
        y, x = np.divmod(np.flatnonzero(asked), asked.shape[1])
        found = samples.at(x * step, y * step)
        surprising = np.zeros_like(asked)
        surprising[y, x] = (np.abs(found - values[:, y, x]) > SURPRISE).any(axis=0)
        values[:, y, x] = found
    return values[:, : len(samples.rows), : len(samples.columns)].clip(0, 1)


def _subdivided(values: Floats) -> Floats:
    """(..., n) to (..., 2n - 1): between any two the cubic through the four around them."""
    n = values.shape[-1]
    result = np.empty((*values.shape[:-1], 2 * n - 1), np.float32)
    result[..., ::2] = values
    middle = result[..., 1::2]
    np.add(values[..., :-1], values[..., 1:], out=middle)
    if n < 4:
        middle /= 2
        return result
    outer = values[..., :-3] + values[..., 3:]
    middle[..., 1:-1] = (9 * middle[..., 1:-1] - outer) / 16
    for end, (a, b, c, d) in ((0, values[..., :4].T), (-1, values[..., :-5:-1].T)):
        middle[..., end] = ((5 * a + 15 * b - 5 * c + d) / 16).T
    return result


def _between(mask: Mask) -> Mask:
    """(h, w) to (2h - 1, 2w - 1): a sample between others is in where one of them is."""
    result = np.zeros((2 * mask.shape[0] - 1, 2 * mask.shape[1] - 1), np.bool_)
    result[::2, ::2] = mask
    result[1::2] = result[:-2:2] | result[2::2]
    result[:, 1::2] = result[:, :-2:2] | result[:, 2::2]
    return result


def _around_peaks(values: Floats, asked: Mask) -> None:
    """Ask, on the next lattice, for two samples on every side of each joint's highest."""
    joints, _, width = values.shape
    for index in values.reshape(joints, -1).argmax(axis=1).tolist():
        y, x = 2 * (index // width), 2 * (index % width)
        asked[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3] = True


def _grown(mask: Mask) -> Mask:
    """With the eight neighbours of each."""
    height, width = mask.shape
    padded = np.pad(mask, 1)
    windows = [padded[y : y + height, x : x + width] for y in range(3) for x in range(3)]
    return np.asarray(np.logical_or.reduce(windows))
