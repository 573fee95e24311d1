"""NerPE: a continuous heatmap, queried anywhere (NeurIPS 2024)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from models.arrays import Array, namespace
from models.codecs.decoded import Decoded
from models.geometry import Size, denormalise, normalise

NerpeDecode = Literal["progressive", "standard", "gaussian"]
Field = Callable[[Array], Array]
"""(B, Q, 2) normalised positions -> (B, Q, K) values."""

COARSE = 32
"""The lattice that `progressive` starts on, along the longer side (NerPE section 4.2)."""

SAMPLES = 1 << 18
"""How many of a batch's lattice samples `standard` evaluates at a time: bounds its memory."""

SPREAD = 5
"""Samples along each axis, of the field around a joint, that its spread is told by."""


LATTICES: dict[NerpeDecode, int] = {"progressive": 512, "standard": 512, "gaussian": 64}
"""Where nobody says. What `gaussian` fits reaches further than the pitch of a coarse one."""

REACH = 1.5
"""How far from there, in sigmas of the targets, the field is fitted and may move the joint."""


@dataclass(frozen=True, slots=True)
class Refinement:
    """How `progressive` goes on from one lattice to a finer one.

    Attributes:
        followed: the highest samples whose children are evaluated.
        factor: children of each along either axis.
        overlap: samples beyond them, on every side.
    """

    followed: int
    factor: int
    overlap: int = 0


PUBLISHED = Refinement(followed=1, factor=4, overlap=1)
"""NerPE-p's: below the highest sample of the coarse lattice and nowhere else."""

ROBUST = Refinement(followed=5, factor=2)
"""For a tenth more positions, a third to a tenth as many joints are not where `standard` is.

Tops are broad and, an MLP's, full of kinks: the highest sample of a lattice need not lie above that
of the next, and a paraboloid through the samples tells less of it than they do.
"""


@dataclass(frozen=True, slots=True)
class NerpeCodec:
    """Positions are normalised: the crop's longer side spans [-1, 1].

    Attributes:
        size: of the crop (width, height), px.
        sigma: of the targets, normalised; a Laplace one's scale b.
        target: what a perfect field has at a distance d of the joint, peak 1: `gaussian`,
            exp(-d^2 / 2 sigma^2), or `laplace`, exp(-d / sigma).
        refinement: of `progressive`.
    """

    size: Size
    sigma: float
    target: Literal["gaussian", "laplace"] = "gaussian"
    refinement: Refinement = ROBUST

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
        self,
        field: Field,
        like: Array,
        decode: NerpeDecode = "progressive",
        resolution: int | None = None,
    ) -> Decoded:
        """The field's peaks.

        Args:
            field: of a batch of crops.
            like: an array (B, ...) whose batch, dtype and device the positions take.
            decode: `standard` evaluates the whole lattice and takes its argmax; `progressive`
                starts on a lattice of 32 and evaluates only below the highest samples of the one
                before; `gaussian` goes on from there, whichever samples there are, to the middle
                of the Gaussian that the field around it is most like.
            resolution: of the lattice; all but `standard` round up to 32, 64, 128 ... . None for
                that of `LATTICES`.

        Returns:
            The joints and the resolution really used.
        """
        xp = namespace(like)
        resolution = resolution or LATTICES[decode]
        reached = resolution if decode == "standard" else COARSE
        index, peak = self._highest(field, like, reached, last=reached >= resolution)
        while reached < resolution:
            factor = self.refinement.factor if reached * 2 < resolution else 2
            reached *= factor
            index, peak = self._refine(
                field, like, index, factor, reached, last=reached >= resolution
            )
        points = self._centers(index[:, :, 0], reached, like)
        if decode == "gaussian":
            points = points + self._to_middle(field, points)
        return Decoded(denormalise(points, self.size), xp.clip(peak, 0.0, 1.0), reached)

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

    def _to_middle(self, field: Field, points: Array) -> Array:
        """How far the Gaussian's middle is, (B, K, 2), for peaks (B, K, 2), both normalised.

        The logarithm of a Gaussian is a parabola, the same along both axes, here of least squares.
        A square weighs as much as the value's own square, so that it is the field's error and not
        the logarithm's that is small (Guo 2011).
        """
        xp = namespace(points)
        steps = xp.linspace(-REACH, REACH, SPREAD, dtype=points.dtype, device=points.device)
        offset = _square(steps, steps)
        own = _own(field, points[:, :, None, :] + offset * self.sigma)
        own = xp.clip(own, 1e-3, None)
        square = xp.sum(offset**2, axis=-1)
        terms = xp.stack([xp.ones_like(square), offset[:, 0], offset[:, 1], square], axis=0)
        weighted = terms * (own**2)[:, :, None, :]  # (B, K, 4, Q)
        # Of a field that is nowhere anything, the sums are all but 0: it moves nothing.
        ridge = 1e-8 * xp.eye(4, dtype=points.dtype, device=points.device)
        normal = weighted @ terms.T + ridge
        parabola = xp.linalg.solve(normal, weighted @ xp.log(own)[..., None])[..., 0]
        # One that opens upwards, or hardly bends, has its middle nowhere near.
        bend = xp.clip(parabola[..., 3:], None, -0.05)
        return xp.clip(-parabola[..., 1:3] / (2 * bend), -REACH, REACH) * self.sigma

    def _highest(
        self, field: Field, like: Array, resolution: int, *, last: bool
    ) -> tuple[Array, Array]:
        """The whole lattice's highest samples.

        Args:
            field: of a batch of crops.
            like: as `decode` has it.
            resolution: of the lattice.
            last: only the highest is wanted, as nothing follows.

        Returns:
            (B, K, n, 2) columns and rows of those to follow, (B, K) the highest value.
        """
        xp = namespace(like)
        columns, rows = self.lattice(resolution)
        count = 1 if last else self.refinement.followed
        step = max(1, SAMPLES // max(1, like.shape[0]))
        numbers, highest = [], []
        for start in range(0, columns * rows, step):
            flat = xp.arange(start, min(start + step, columns * rows), device=like.device)
            index = xp.stack([flat % columns, flat // columns], axis=-1)
            positions = self._centers(index, resolution, like)
            values = field(xp.broadcast_to(positions[None], (like.shape[0], *positions.shape)))
            values = xp.permute_dims(values, (0, 2, 1))
            best = _best(values, count)
            numbers.append(best + start)
            highest.append(xp.take_along_axis(values, best, axis=-1))
        number, values = xp.concat(numbers, axis=-1), xp.concat(highest, axis=-1)
        number = xp.take_along_axis(number, _best(values, count), axis=-1)
        return xp.stack([number % columns, number // columns], axis=-1), xp.max(values, axis=-1)

    def _refine(
        self, field: Field, like: Array, index: Array, factor: int, resolution: int, *, last: bool
    ) -> tuple[Array, Array]:
        """From samples of a lattice to the highest of their children on the next one.

        Args:
            field: of a batch of crops.
            like: as `decode` has it.
            index: (B, K, n, 2) columns and rows on the lattice before.
            factor: how many times finer the next one is.
            resolution: of the next one.
            last: as `_highest` has it.

        Returns:
            As `_highest`.
        """
        xp = namespace(like)
        batch, joints = index.shape[:2]
        overlap = self.refinement.overlap
        step = xp.arange(-overlap, factor + overlap, device=like.device)
        children = index[..., None, :] * factor + _square(step, step)
        most = xp.asarray(self.lattice(resolution), device=like.device) - 1
        children = xp.minimum(xp.maximum(children, xp.zeros_like(most)), most)
        children = xp.reshape(children, (batch, joints, -1, 2))
        own = _own(field, self._centers(children, resolution, like))
        best = _best(own, 1 if last else self.refinement.followed)
        return xp.take_along_axis(children, best[..., None], axis=2), xp.max(own, axis=-1)

    def _centers(self, index: Array, resolution: int, like: Array) -> Array:
        """Sample indices -> normalised positions; u = (index + 0.5) * pitch - 0.5 (App. A.2)."""
        xp = namespace(like)
        pitch = max(self.size) / resolution
        return normalise((xp.astype(index, like.dtype) + 0.5) * pitch - 0.5, self.size)


def _best(values: Array, count: int) -> Array:
    """(..., n) to (..., count): where the highest are, highest first, of equal ones the first.

    For so few, to look for one after the other is faster than to sort.
    """
    xp = namespace(values)
    place = xp.arange(values.shape[-1], device=values.device)
    best = [xp.argmax(values, axis=-1)]
    for _ in range(count - 1):
        values = xp.where(place == best[-1][..., None], -xp.inf, values)
        best.append(xp.argmax(values, axis=-1))
    return xp.stack(best, axis=-1)


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
