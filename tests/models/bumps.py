"""A NerPE field whose values are known, below the seam `Engine`."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from models.engines import Engine
from models.geometry import normalise
from models.nerpe_field import NerpeField

SIZE = (192, 256)
SIGMA = 0.06
Floats = NDArray[np.float32]


@dataclass
class Bumps(Engine):
    """An engine whose cells are the joints' positions, (B, K, 2) crop px, and nothing else."""

    name: str = "bumps"
    device: str = "cpu"
    asked: list[int] = field(default_factory=list)

    def encode(self, crops: NDArray[np.uint8]) -> Floats:
        raise NotImplementedError

    def head(self, name: str, features: Floats) -> tuple[Floats, ...]:
        raise NotImplementedError

    def field(self, cells: Floats, points: Floats) -> Floats:
        assert points.dtype == np.float32
        self.asked.append(points.shape[0] * points.shape[1])
        offset = points[:, :, None] - normalise(cells, SIZE)[:, None]
        return np.asarray(np.exp(-(offset**2).sum(-1) / (2 * SIGMA**2)), np.float32)


def bumps(
    joints: NDArray[np.floating],
    mirrored: NDArray[np.floating] | None = None,
    engine: Bumps | None = None,
) -> NerpeField:
    mirror = tuple(range(joints.shape[1]))
    return NerpeField(
        engine or Bumps(),
        joints.astype(np.float32),
        None if mirrored is None else mirrored.astype(np.float32),
        (*mirror[:1], *mirror[2:], mirror[1]) if len(mirror) == 3 else mirror,
    )


def asked(nerpe: NerpeField) -> int:
    """Positions evaluated so far."""
    assert isinstance(nerpe.engine, Bumps)
    return sum(nerpe.engine.asked)
