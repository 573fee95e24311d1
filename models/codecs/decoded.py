"""What every codec decodes to."""

from __future__ import annotations

from dataclasses import dataclass, replace

from models.arrays import Array, to_numpy


@dataclass(frozen=True, slots=True)
class Decoded:
    """The joints of a batch of crops.

    Attributes:
        points: (B, K, 2), crop px.
        scores: (B, K), the peak over the peak of a perfect label, in [0, 1]; from a calibrated
            model the share of such joints that are right.
        resolution: of the lattice that NerPE was decoded on, along the crop's longer side.
        sigmas: (B, K), crop px, within which 68 % of such joints lie; None where not asked for.
    """

    points: Array
    scores: Array
    resolution: int | None = None
    sigmas: Array | None = None

    def __getitem__(self, rows: slice) -> Decoded:
        """Of some of the crops."""
        sigmas = None if self.sigmas is None else self.sigmas[rows]
        return Decoded(self.points[rows], self.scores[rows], self.resolution, sigmas)

    def on_host(self) -> Decoded:
        """The same as numpy arrays."""
        sigmas = None if self.sigmas is None else to_numpy(self.sigmas)
        return replace(
            self, points=to_numpy(self.points), scores=to_numpy(self.scores), sigmas=sigmas
        )
