"""What a perfect SimCC head answers: a label vector an axis, in each published form."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from models.arrays import Array, namespace


@dataclass(frozen=True, slots=True)
class SimccLabels:
    """A form of labels (MODELS 1.2).

    Attributes:
        kind: `equal` puts 1 - `smoothing` in the joint's bin and shares the rest among the others;
            `gaussian` and `laplace` are densities around it, as wide as the codec's sigma. The
            paper names Laplace's and gives no width: its scale b is sigma here.
        form: `official` centres a density where the joint is, `mmpose` on the nearest bin.
        smoothing: of `equal`, in [0, 1).
        normalised: densities sum to 1 over an endless axis; else their peak is 1 (RTMPose).
    """

    kind: Literal["equal", "gaussian", "laplace"] = "gaussian"
    form: Literal["official", "mmpose"] = "official"
    smoothing: float = 0.1
    normalised: bool = True

    def peak(self, sigma: float) -> float:
        """The highest probability of a perfect distribution."""
        if self.kind == "equal":
            return 1 - self.smoothing
        return 1 / (sigma * math.sqrt(2 * math.pi) if self.kind == "gaussian" else 2 * sigma)

    def encode(self, centers: Array, count: int, sigma: float) -> tuple[Array, Array]:
        """One axis.

        Args:
            centers: (...) where the joints are, bins.
            count: of the bins.
            sigma: bins.

        Returns:
            (..., count) labels, not renormalised at the border; (...) bool, whether anything of a
            label lies on the axis: its bin of `equal` ones, 3 sigma of the others.
        """
        xp = namespace(centers)
        bins = xp.arange(count, dtype=centers.dtype, device=centers.device)
        nearest = xp.round(centers)  # halves to even, as the published code's
        if self.kind == "equal":
            hit = bins == xp.clip(nearest, 0, count - 1)[..., None]
            rest = self.smoothing / (count - 1)
            label = xp.astype(hit, centers.dtype) * (1 - self.smoothing - rest) + rest
            return label, (nearest >= 0) & (nearest < count)
        center = centers if self.form == "official" else nearest
        distance = xp.abs(bins - center[..., None]) / sigma
        label = xp.exp(-0.5 * distance**2 if self.kind == "gaussian" else -distance)
        inside = (center > -3 * sigma) & (center < count - 1 + 3 * sigma)
        return label * self.peak(sigma) if self.normalised else label, inside


GAUSSIAN = SimccLabels()
"""The paper's best, in its own form: what is served has learnt from it."""
