"""SimCC: two one-dimensional classifications a joint (Li et al., ECCV 2022)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from models.arrays import Array, namespace
from models.codecs.decoded import Decoded
from models.codecs.simcc_labels import GAUSSIAN, SimccLabels
from models.geometry import Size

SimccDecode = Literal["expectation", "argmax"]


@dataclass(frozen=True, slots=True)
class SimccCodec:
    """Bin i of an axis stands for crop pixel i / split (MODELS 1.1).

    Attributes:
        size: of the crop (width, height), px.
        split: bins a pixel, the paper's k.
        sigma: of the labels (x, y), bins; also those of an `equal` label, for its windows.
        labels: their form.
        beta: where logits have learnt labels with peak 1 (RTMPose): times this they are a
            distribution's, and their own peak is the score. None where they are one's as they are.
    """

    size: Size
    split: float
    sigma: tuple[float, float]
    labels: SimccLabels = GAUSSIAN
    beta: float | None = None

    decodes = get_args(SimccDecode)

    @property
    def bins(self) -> tuple[int, int]:
        """Along x and y."""
        return int(self.size[0] * self.split), int(self.size[1] * self.split)

    def encode(self, points: Array, visible: Array) -> tuple[Array, Array, Array]:
        """What a perfect head would answer.

        Args:
            points: (..., 2) float, crop px.
            visible: (...) bool.

        Returns:
            Labels x (..., Nx) and y (..., Ny), weights (...): 0 where the joint is not visible or
            all of its label lies outside the crop.
        """
        xp = namespace(points)
        labels, inside = [], visible
        for axis, (count, sigma) in enumerate(zip(self.bins, self.sigma, strict=True)):
            label, on_axis = self.labels.encode(points[..., axis] * self.split, count, sigma)
            labels.append(label)
            inside = inside & on_axis
        return labels[0], labels[1], xp.astype(inside, points.dtype)

    def decode(
        self, x: Array, y: Array, decode: SimccDecode = "expectation", *, window: float = 2.0
    ) -> Decoded:
        """Logits to joints.

        Args:
            x: (B, K, Nx) logits.
            y: (B, K, Ny) logits.
            decode: `argmax` is the paper's, to one bin; `expectation` is the mean of the
                distribution around that bin, which a symmetric label makes unbiased.
            window: how many sigmas around the peak the expectation reaches.

        Returns:
            The joints. A score is the lower of the two axes' peaks, each over the peak of a
            perfect label; with `beta` of the logits themselves, as published.
        """
        xp = namespace(x, y)
        axes, scores = [], []
        for logits, sigma in ((x, self.sigma[0]), (y, self.sigma[1])):
            probability = self._probability(logits)
            peak = xp.argmax(logits, axis=-1)
            position = xp.astype(peak, logits.dtype)
            if decode == "expectation":
                bins = xp.arange(logits.shape[-1], dtype=logits.dtype, device=logits.device)
                offset = bins - position[..., None]
                near = xp.where(xp.abs(offset) <= math.ceil(window * sigma), probability, 0.0)
                position = position + xp.sum(offset * near, axis=-1) / xp.sum(near, axis=-1)
            axes.append(position / self.split)
            learnt = probability / self.labels.peak(sigma) if self.beta is None else logits
            scores.append(xp.max(learnt, axis=-1))
        return Decoded(xp.stack(axes, axis=-1), xp.clip(xp.minimum(scores[0], scores[1]), 0.0, 1.0))

    def spread(self, x: Array, y: Array, points: Array) -> Array:
        """How widely the distributions lie around joints: a root mean square distance.

        Args:
            x: (B, K, Nx) logits.
            y: (B, K, Ny) logits.
            points: (B, K, 2) crop px, as decoded.

        Returns:
            (B, K) crop px, of what lies within 3 sigmas of the labels along each axis.
        """
        xp = namespace(x, y)
        squares = 0.0
        for axis, (logits, sigma) in enumerate(((x, self.sigma[0]), (y, self.sigma[1]))):
            bins = xp.arange(logits.shape[-1], dtype=logits.dtype, device=logits.device)
            offset = bins - points[..., axis, None] * self.split
            near = xp.where(xp.abs(offset) <= 3 * sigma, self._probability(logits), 0.0)
            mass = xp.clip(xp.sum(near, axis=-1), 1e-30, None)
            squares = squares + xp.sum(offset**2 * near, axis=-1) / mass
        return xp.sqrt(squares) / self.split

    def unmirror(self, x: Array, y: Array, mirror: Sequence[int]) -> tuple[Array, Array]:
        """Logits of mirrored crops, brought back to the crops' own axes.

        Joints change sides, x is reversed and shifted by split - 1 bins, which is exact for a
        whole or half split (MODELS 3.3): column W-1-u is bin (W-1-u) * split.

        Args:
            x: (B, K, Nx) logits.
            y: (B, K, Ny) logits.
            mirror: for each keypoint the index of its mirror image.
        """
        xp = namespace(x, y)
        order = xp.asarray(list(mirror), device=x.device)
        x = xp.flip(xp.take(x, order, axis=1), axis=-1)
        shift = self.split - 1
        whole, half = int(shift), shift % 1
        if half:
            # Between two bins: the mean of both, exact for a half.
            x = (1 - half) * x + half * _shifted(x, 1)
        return _shifted(x, whole), xp.take(y, order, axis=1)

    def merge(self, own: tuple[Array, Array], mirrored: tuple[Array, Array]) -> tuple[Array, Array]:
        """The mean of a crop's distributions and its `unmirror`ed mirror image's, as logits.

        With `beta`, whose logits are labels, it is their own mean, as published.
        """
        xp = namespace(*own)
        if self.beta is not None:
            return (own[0] + mirrored[0]) / 2, (own[1] + mirrored[1]) / 2
        x, y = (
            xp.log(xp.clip((softmax(a) + softmax(b)) / 2, 1e-30, None))
            for a, b in zip(own, mirrored, strict=True)
        )
        return x, y

    def field(self, x: Array, y: Array, columns: Array, rows: Array, scores: Array) -> Array:
        """The product of the two distributions, each scaled to peak 1, times the joint's score.

        Args:
            x: (B, K, Nx) logits.
            y: (B, K, Ny) logits.
            columns: (w,) crop px.
            rows: (h,) crop px.
            scores: (B, K) of the joints, as they are answered.

        Returns:
            (B, K, h, w) in [0, 1].
        """
        xp = namespace(x, y)
        profiles = []
        for logits, positions in ((x, columns), (y, rows)):
            below = logits - xp.max(logits, axis=-1, keepdims=True)
            relative = xp.exp(below * (self.beta or 1.0))
            last = logits.shape[-1] - 1
            at = xp.clip(positions * self.split, 0, last)
            low = xp.clip(xp.floor(at), 0, last - 1)
            fraction = xp.astype(at - low, logits.dtype)
            index = xp.astype(low, xp.int64)
            left, right = (xp.take(relative, i, axis=-1) for i in (index, index + 1))
            profiles.append(left + (right - left) * fraction)
        return scores[..., None, None] * profiles[1][..., :, None] * profiles[0][..., None, :]

    def _probability(self, logits: Array) -> Array:
        return softmax(logits * (self.beta or 1.0))


def softmax(logits: Array) -> Array:
    """Over the last axis."""
    xp = namespace(logits)
    exponent = xp.exp(logits - xp.max(logits, axis=-1, keepdims=True))
    return exponent / xp.sum(exponent, axis=-1, keepdims=True)


def _shifted(x: Array, bins: int) -> Array:
    """Moved towards lower bins; the last bin is repeated."""
    xp = namespace(x)
    if not bins:
        return x
    return xp.concat([x[..., bins:], xp.repeat(x[..., -1:], bins, axis=-1)], axis=-1)
