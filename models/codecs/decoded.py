"""What every codec decodes to."""

from __future__ import annotations

from dataclasses import dataclass

from models.arrays import Array


@dataclass(frozen=True, slots=True)
class Decoded:
    """The joints of a batch of crops.

    Attributes:
        points: (B, K, 2), crop px.
        scores: (B, K), the peak over the peak of a perfect label, in [0, 1].
        resolution: of the lattice that NerPE was decoded on, along the crop's longer side.
    """

    points: Array
    scores: Array
    resolution: int | None = None
