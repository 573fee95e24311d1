"""NerPE: a continuous heatmap, queried anywhere (NeurIPS 2024)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from models.arrays import Array, namespace
from models.codecs.decoded import Decoded
from models.geometry import Size, denormalise, normalise

NerpeDecode = Literal["progressive", "standard"]
Field = Callable[[Array], Array]
"""(B, Q, 2) normalised positions -> (B, Q, K) values."""

COARSE = 32
"""The lattice that `progressive` starts on, along the longer side (NerPE section 4.2)."""


SAMPLES = 1 << 18
"""How many of a batch's lattice samples `standard` evaluates at a time: bounds its memory."""


SPREAD = 5
"""Samples along each axis, of the field around a joint, that its spread is told by."""


@dataclass(frozen=True, slots=True)
class NerpeCodec:
    """Positions are normalised: the crop's longer side spans [-1, 1].

    Attributes:
        size: of the crop (width, height), px.
        sigma: of the targets, normalised; a Laplace one's scale b.
        target: what a perfect field has at a distance d of the joint, peak 1: `gaussian`,
            exp(-d^2 / 2 sigma^2), or `laplace`, exp(-d / sigma).
    """

    size: Size
    sigma: float
    target: Literal["gaussian", "laplace"] = "gaussian"

    decodes = get_args(NerpeDecode)

    def encode(self, points: Array, positions: Array) -> Array:
        """What a perfect field has at the positions.

        Args:
            points: (B, K, 2) joints, crop px.
            positions: (B, Q, 2), normalised.

        Returns:
            (B, Q, K).
        """
        xp = namespace(points, positions)
        offset = positions[:, :, None, :] - normalise(points, self.size)[:, None, :, :]
        square = xp.sum(offset**2, axis=-1) / self.sigma**2
        return xp.exp(-square / 2 if self.target == "gaussian" else -xp.sqrt(square))

    def lattice(self, resolution: int) -> Size:
        """(columns, rows) with `resolution` samples along the longer side, pitch the same."""
        longer = max(self.size)
        columns, rows = (-(-length * resolution // longer) for length in self.size)
        return columns, rows

    def decode(
        self, field: Field, like: Array, decode: NerpeDecode = "progressive", resolution: int = 512
    ) -> Decoded:
        """The field's peaks.

        Args:
            field: of a batch of crops.
            like: an array (B, ...) whose batch, dtype and device the positions take.
            decode: `standard` evaluates the whole lattice and takes its argmax; `progressive`
                starts on a lattice of 32 and evaluates only around the peak of the one before.
            resolution: of the lattice; `progressive` rounds up to 32, 64, 128 ... .

        Returns:
            The joints and the resolution really used.
        """
        xp = namespace(like)
        first = resolution if decode == "standard" else COARSE
        index, peak = self._highest(field, like, first)
        while first < resolution:
            factor = 4 if first * 4 <= resolution or first * 2 < resolution else 2
            first *= factor
            index, peak = self._refine(field, like, index, factor, first)
        points = self._centers(index, first, like)
        return Decoded(denormalise(points, self.size), xp.clip(peak, 0.0, 1.0), first)

    def spread(self, field: Field, points: Array) -> Array:
        """How widely the field's bumps lie around joints: a root mean square distance.

        Args:
            field: of a batch of crops.
            points: (B, K, 2) crop px, as decoded.

        Returns:
            (B, K) crop px, of what lies within 3 sigmas of the targets along each axis.
        """
        xp = namespace(points)
        steps = xp.linspace(-3, 3, SPREAD, dtype=points.dtype, device=points.device) * self.sigma
        offset = _square(steps, steps)
        own = xp.clip(_own(field, normalise(points, self.size)[:, :, None, :] + offset), 0.0, None)
        mass = xp.clip(xp.sum(own, axis=-1), 1e-30, None)
        squares = xp.sum(own * xp.sum(offset**2, axis=-1), axis=-1) / mass
        return xp.sqrt(squares) * (max(self.size) / 2)

    def _highest(self, field: Field, like: Array, resolution: int) -> tuple[Array, Array]:
        """The whole lattice's highest samples, the first of equal ones.

        Returns:
            (B, K, 2) their columns and rows, (B, K) their values.
        """
        xp = namespace(like)
        columns, rows = self.lattice(resolution)
        step = max(1, SAMPLES // max(1, like.shape[0]))
        numbers, peaks = [], []
        for start in range(0, columns * rows, step):
            flat = xp.arange(start, min(start + step, columns * rows), device=like.device)
            index = xp.stack([flat % columns, flat // columns], axis=-1)
            positions = self._centers(index, resolution, like)
            values = field(xp.broadcast_to(positions[None], (like.shape[0], *positions.shape)))
            numbers.append(xp.argmax(values, axis=1) + start)
            peaks.append(xp.max(values, axis=1))
        peak = xp.stack(peaks, axis=1)  # (B, parts, K)
        part = xp.argmax(peak, axis=1)[:, None]
        best = xp.take_along_axis(xp.stack(numbers, axis=1), part, axis=1)[:, 0]
        return xp.stack([best % columns, best // columns], axis=-1), xp.max(peak, axis=1)

    def _refine(
        self, field: Field, like: Array, index: Array, factor: int, resolution: int
    ) -> tuple[Array, Array]:
        """One step of NerPE-p: the peak's children and one more on every side."""
        xp = namespace(like)
        batch, joints = index.shape[:2]
        columns, rows = self.lattice(resolution)
        side = factor + 2
        offset = xp.arange(side, device=like.device) - 1
        column = xp.clip(index[..., 0, None] * factor + offset, 0, columns - 1)  # (B, K, side)
        row = xp.clip(index[..., 1, None] * factor + offset, 0, rows - 1)
        window = _square(column, row)
        own = _own(field, self._centers(window, resolution, like))
        best = xp.argmax(own, axis=-1)
        chosen = xp.broadcast_to(best[..., None, None], (batch, joints, 1, 2))
        return xp.take_along_axis(window, chosen, axis=2)[:, :, 0], xp.max(own, axis=-1)

    def _centers(self, index: Array, resolution: int, like: Array) -> Array:
        """Sample indices -> normalised positions; u = (index + 0.5) * pitch - 0.5 (App. A.2)."""
        xp = namespace(like)
        pitch = max(self.size) / resolution
        return normalise((xp.astype(index, like.dtype) + 0.5) * pitch - 0.5, self.size)


def _square(columns: Array, rows: Array) -> Array:
    """(..., n) and (..., n) to (..., n * n, 2): each column with each row, row by row."""
    xp = namespace(columns, rows)
    shape = (*columns.shape, columns.shape[-1])
    x = xp.broadcast_to(columns[..., None, :], shape)
    y = xp.broadcast_to(rows[..., :, None], shape)
    return xp.reshape(xp.stack([x, y], axis=-1), (*columns.shape[:-1], shape[-1] ** 2, 2))


def _own(field: Field, windows: Array) -> Array:
    """Each joint's values in its own window alone.

    Args:
        field: of a batch of crops.
        windows: (B, K, Q, 2) normalised positions.

    Returns:
        (B, K, Q).
    """
    xp = namespace(windows)
    batch, joints, count = windows.shape[:3]
    values = field(xp.reshape(windows, (batch, joints * count, 2)))
    values = xp.reshape(values, (batch, joints, count, joints))
    return xp.stack([values[:, j, :, j] for j in range(joints)], axis=1)
