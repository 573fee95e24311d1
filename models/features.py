"""What the encoder saw: passed to heads, and kept for later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.arrays import Array, namespace, to_numpy


@dataclass(frozen=True, slots=True)
class Features:
    """What the encoder saw of a batch of crops, and, with flip, of their mirror images.

    Attributes:
        plain: (B, C, h, w), float32 of the engine's kind, or numpy's float16 where kept.
        mirrored: the same of the mirrored crops, or None.
    """

    plain: Array
    mirrored: Array | None = None

    def __len__(self) -> int:
        return len(self.plain)

    def __getitem__(self, index: slice) -> Features:
        return Features(self.plain[index], None if self.mirrored is None else self.mirrored[index])

    @property
    def nbytes(self) -> int:
        """Of the arrays."""
        return int(self.plain.nbytes + (0 if self.mirrored is None else self.mirrored.nbytes))

    def half(self) -> Features:
        """A copy on the host in half the precision, for keeping; it shares no memory with this."""
        return Features(_half(self.plain), None if self.mirrored is None else _half(self.mirrored))

    @property
    def finite(self) -> NDArray[np.bool_]:
        """(B,) on the host: whether every number of a crop is one."""
        sound = np.ones(len(self), np.bool_)
        for part in [self.plain] if self.mirrored is None else [self.plain, self.mirrored]:
            xp = namespace(part)
            sound &= np.asarray(to_numpy(xp.all(xp.isfinite(part), axis=(1, 2, 3))), np.bool_)
        return sound

    @staticmethod
    def stack(parts: Sequence[Features]) -> Features:
        """One batch of several, all with or all without mirror images; of one, itself.

        Raises:
            ValueError: some with, some without.
        """
        if len(parts) == 1:
            return parts[0]
        mirrored = [part.mirrored for part in parts if part.mirrored is not None]
        if mirrored and len(mirrored) < len(parts):
            raise ValueError("features with and without mirror images make no batch")
        xp = namespace(parts[0].plain)
        return Features(
            xp.concat([part.plain for part in parts]), xp.concat(mirrored) if mirrored else None
        )


def _half(features: Array) -> NDArray[np.float16]:
    # Halved first, so that half as much comes to the host.
    xp = namespace(features)
    return to_numpy(xp.astype(features, xp.float16, copy=True))
