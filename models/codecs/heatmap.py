"""The classic heatmap: a grid of Gaussian bumps (SimpleBaseline; DARK; UDP)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from models.arrays import Array, namespace
from models.codecs.decoded import Decoded
from models.geometry import Size

HeatmapDecode = Literal["dark", "quarter", "argmax"]


@dataclass(frozen=True, slots=True)
class HeatmapCodec:
    """A grid over the crop.

    Attributes:
        size: of the crop (width, height), px.
        grid: (columns, rows).
        sigma: of the labels, cells.
        mapping: `legacy`: cell h stands for crop pixel h * W / columns; `udp`: the outermost
            cells stand for the outermost pixels, h = u * (columns - 1) / (W - 1) (MODELS 1.1).
        blur: DARK's Gaussian kernel in cells, odd; 1 for none.
    """

    size: Size
    grid: Size
    sigma: float
    mapping: Literal["legacy", "udp"] = "legacy"
    blur: int = 11

    decodes = get_args(HeatmapDecode)

    @property
    def pitch(self) -> tuple[float, float]:
        """Crop px from cell to cell along x and y."""
        last = 1 if self.mapping == "udp" else 0
        width, height = (
            (length - last) / (count - last)
            for length, count in zip(self.size, self.grid, strict=True)
        )
        return width, height

    def to_grid(self, points: Array) -> Array:
        """Crop px -> cells, (..., 2)."""
        xp = namespace(points)
        return points / xp.asarray(self.pitch, dtype=points.dtype, device=points.device)

    def to_crop(self, cells: Array) -> Array:
        """Cells -> crop px, (..., 2)."""
        xp = namespace(cells)
        return cells * xp.asarray(self.pitch, dtype=cells.dtype, device=cells.device)

    def encode(
        self, points: Array, visible: Array, *, rounded: bool = False
    ) -> tuple[Array, Array]:
        """Gaussian bumps with peak 1.

        Args:
            points: (..., 2) float, crop px.
            visible: (...) bool.
            rounded: centre each bump on a cell, as SimpleBaseline does; unrounded is DARK's
                unbiased encoding.

        Returns:
            Targets (..., rows, columns), weights (...): 0 where the joint is not visible or all
            of its label (3 sigma) lies outside the grid.
        """
        xp = namespace(points)
        center = self.to_grid(points)
        if rounded:
            center = xp.floor(center + 0.5)
        inside = visible
        squares = []
        for axis, count in enumerate(self.grid):
            cells = xp.arange(count, dtype=points.dtype, device=points.device)
            squares.append((cells - center[..., axis, None]) ** 2)
            reach = 3 * self.sigma
            inside = inside & (center[..., axis] > -reach) & (center[..., axis] < count - 1 + reach)
        target = xp.exp(
            -(squares[1][..., :, None] + squares[0][..., None, :]) / (2 * self.sigma**2)
        )
        return target, xp.astype(inside, points.dtype)

    def decode(self, maps: Array, decode: HeatmapDecode = "dark") -> Decoded:
        """Heatmaps to joints.

        Args:
            maps: (B, K, rows, columns).
            decode: `argmax`; `quarter`, a quarter cell towards the higher neighbour; `dark`, one
                Newton step on the logarithm of the blurred map (MODELS 3.2).

        Returns:
            The joints; a score is the raw map's peak.
        """
        xp = namespace(maps)
        columns, rows = self.grid
        flat = xp.reshape(maps, (*maps.shape[:2], rows * columns))
        best = xp.argmax(flat, axis=-1)
        column, row = best % columns, best // columns
        cell = xp.astype(xp.stack([column, row], axis=-1), maps.dtype)
        if decode == "quarter":
            cell = cell + self._quarter(flat, column, row)
        elif decode == "dark":
            cell = cell + self._dark(maps, column, row)
        return Decoded(self.to_crop(cell), xp.clip(xp.max(flat, axis=-1), 0.0, 1.0))

    def _quarter(self, flat: Array, column: Array, row: Array) -> Array:
        xp = namespace(flat)
        columns, rows = self.grid
        value = _Neighbours(flat, column, row, self.grid)
        step = xp.stack([value(1, 0) - value(-1, 0), value(0, 1) - value(0, -1)], axis=-1)
        inner = (column > 1) & (column < columns - 1) & (row > 1) & (row < rows - 1)
        return 0.25 * xp.sign(step) * xp.astype(inner, flat.dtype)[..., None]

    def _dark(self, maps: Array, column: Array, row: Array) -> Array:
        """The Newton step in cells: DarkPose's for a legacy grid, mmpose's for a UDP one."""
        xp = namespace(maps)
        columns, rows = self.grid
        peak = xp.max(maps, axis=(-2, -1), keepdims=True)
        blurred = self._blurred(maps)
        blurred = (
            blurred * peak / xp.clip(xp.max(blurred, axis=(-2, -1), keepdims=True), 1e-10, None)
        )
        udp = self.mapping == "udp"
        logs = xp.log(xp.clip(blurred, *((1e-3, 50.0) if udp else (1e-10, None))))
        flat = xp.reshape(logs, (*maps.shape[:2], rows * columns))
        f = _Neighbours(flat, column, row, self.grid)
        dx = 0.5 * (f(1, 0) - f(-1, 0))
        dy = 0.5 * (f(0, 1) - f(0, -1))
        if udp:
            dxx = f(1, 0) - 2 * f(0, 0) + f(-1, 0)
            dyy = f(0, 1) - 2 * f(0, 0) + f(0, -1)
            dxy = 0.5 * (
                f(1, 1) - f(1, 0) - f(0, 1) + 2 * f(0, 0) - f(-1, 0) - f(0, -1) + f(-1, -1)
            )
            inner = xp.ones_like(dx) > 0
        else:
            dxx = 0.25 * (f(2, 0) - 2 * f(0, 0) + f(-2, 0))
            dyy = 0.25 * (f(0, 2) - 2 * f(0, 0) + f(0, -2))
            dxy = 0.25 * (f(1, 1) - f(-1, 1) - f(1, -1) + f(-1, -1))
            inner = (column > 1) & (column < columns - 2) & (row > 1) & (row < rows - 2)
        det = dxx * dyy - dxy**2
        # Only a maximum has a step towards it: elsewhere the quadratic says nothing.
        inner = inner & (det > 1e-6) & (dxx < 0)
        det = xp.where(inner, det, 1.0)
        step = xp.stack([dxy * dy - dyy * dx, dxy * dx - dxx * dy], axis=-1) / det[..., None]
        return xp.where(inner[..., None], xp.clip(step, -2.0, 2.0), 0.0)

    def _blurred(self, maps: Array) -> Array:
        """Zero-padded Gaussian blur: a banded matrix on either side."""
        if self.blur == 1:
            return maps
        xp = namespace(maps)
        sigma = 0.3 * ((self.blur - 1) / 2 - 1) + 0.8  # OpenCV's rule for a kernel's size
        reach = self.blur // 2
        total = sum(math.exp(-(i**2) / (2 * sigma**2)) for i in range(-reach, reach + 1))
        bands = []
        for count in self.grid:
            cells = xp.arange(count, dtype=maps.dtype, device=maps.device)
            offset = cells[:, None] - cells[None, :]
            kernel = xp.exp(-(offset**2) / (2 * sigma**2)) / total
            bands.append(xp.where(xp.abs(offset) <= reach, kernel, 0.0))
        return bands[1] @ maps @ bands[0]

    def spread(self, maps: Array, points: Array) -> Array:
        """How widely the maps' bumps lie around joints: a root mean square distance.

        Args:
            maps: (B, K, rows, columns).
            points: (B, K, 2) crop px, as decoded.

        Returns:
            (B, K) crop px, of what lies within 3 sigmas of the labels along each axis.
        """
        xp = namespace(maps)
        center = self.to_grid(points)
        near, squares = [], []
        for axis, count in enumerate(self.grid):
            cells = xp.arange(count, dtype=maps.dtype, device=maps.device)
            offset = xp.astype(cells - center[..., axis, None], maps.dtype)
            near.append(xp.astype(xp.abs(offset) <= 3 * self.sigma, maps.dtype))
            squares.append(near[axis] * (offset * self.pitch[axis]) ** 2)
        along_x = xp.stack([near[0], squares[0]], axis=-1)  # (B, K, columns, 2)
        along_y = xp.stack([near[1], squares[1]], axis=-2)  # (B, K, 2, rows)
        sums = along_y @ xp.clip(maps, 0.0, None) @ along_x
        mass = xp.clip(sums[..., 0, 0], 1e-30, None)
        return xp.sqrt((sums[..., 0, 1] + sums[..., 1, 0]) / mass)

    def unmirror(self, maps: Array, mirror: Sequence[int]) -> Array:
        """Maps of mirrored crops, brought back to the crops' own grid.

        Exact under `udp`, where mirrored cells fall on cells. Under `legacy` the mirror image of
        cell h lies (W-1)/pitch - h, between two cells: resampled linearly (MODELS 3.3).

        Args:
            maps: (B, K, rows, columns).
            mirror: for each keypoint the index of its mirror image.
        """
        xp = namespace(maps)
        order = xp.asarray(list(mirror), device=maps.device)
        maps = xp.flip(xp.take(maps, order, axis=1), axis=-1)
        if self.mapping == "udp":
            return maps
        # Own cell h reads reversed cell h - (1 - 1/pitch); outside, the border's value.
        shift = 1 - 1 / self.pitch[0]
        left = xp.concat([maps[..., :1], maps[..., :-1]], axis=-1)
        return (1 - shift) * maps + shift * left

    def field(self, maps: Array, columns: Array, rows: Array) -> Array:
        """The maps resampled by bicubic interpolation (Catmull-Rom), clipped to [0, 1].

        Args:
            maps: (B, K, rows, columns).
            columns: (w,) crop px.
            rows: (h,) crop px.

        Returns:
            (B, K, h, w).
        """
        xp = namespace(maps)
        along_x = _bicubic(columns / self.pitch[0], self.grid[0], maps)
        along_y = _bicubic(rows / self.pitch[1], self.grid[1], maps)
        return xp.clip(along_y @ maps @ along_x.T, 0.0, 1.0)


class _Neighbours:
    """Values beside each peak; outside the grid, those of its border."""

    def __init__(self, flat: Array, column: Array, row: Array, grid: Size) -> None:
        self._flat, self._column, self._row, self._grid = flat, column, row, grid

    def __call__(self, dx: int, dy: int) -> Array:
        xp = namespace(self._flat)
        column = xp.clip(self._column + dx, 0, self._grid[0] - 1)
        row = xp.clip(self._row + dy, 0, self._grid[1] - 1)
        index = (row * self._grid[0] + column)[..., None]
        return xp.take_along_axis(self._flat, index, axis=-1)[..., 0]


def _bicubic(positions: Array, count: int, like: Array) -> Array:
    """(len(positions), count) weights that interpolate `count` cells at the positions."""
    xp = namespace(like)
    positions = xp.astype(xp.asarray(positions, device=like.device), like.dtype)
    cells = xp.arange(count, dtype=like.dtype, device=like.device)
    # Beyond the border the outermost cell's value continues.
    positions = xp.clip(positions, 0.0, float(count - 1))
    d = xp.abs(positions[:, None] - cells[None, :])
    near = (1.5 * d - 2.5) * d**2 + 1
    far = ((-0.5 * d + 2.5) * d - 4) * d + 2
    weights = xp.where(d <= 1, near, xp.where(d < 2, far, 0.0))
    return weights / xp.sum(weights, axis=1, keepdims=True)
