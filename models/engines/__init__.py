"""Engines: one pose bundle loaded on one device."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models.bundle import Bundle

Floats = NDArray[np.float32]


class EngineError(Exception):
    """An engine that cannot run here; the message says why and what to do."""


class Engine(Protocol):
    """The verbs of a pose bundle. Safe to call from several threads.

    Attributes:
        name: of the runtime.
        device: the one it truly runs on.
    """

    name: str
    device: str

    def encode(self, crops: NDArray[np.uint8]) -> Floats:
        """(B, H, W, 3) RGB crops to (B, C, h, w) features."""
        ...

    def head(self, name: str, features: Floats) -> tuple[Floats, ...]:
        """What a head emits of (B, C, h, w) features.

        `simcc`: logits (B, K, Nx) and (B, K, Ny); `heatmap`: (B, K, rows, columns); `nerpe`: its
        cells (B, C', rows, columns), for `field`.
        """
        ...

    def field(self, cells: Floats, points: Floats) -> Floats:
        """NerPE's values: cells and (B, Q, 2) normalised positions to (B, Q, K)."""
        ...


def load_engine(bundle: Bundle, *, device: str = "cpu", threads: int | None = None) -> Engine:
    """Load a bundle's graphs.

    Args:
        bundle: a verified pose bundle.
        device: `cpu` or `cuda`.
        threads: of the CPU's arithmetic; None for one a core.

    Raises:
        EngineError: the device is not there. It is never replaced by another one.
    """
    from models.engines.onnx import OnnxEngine  # the one engine that needs onnxruntime

    return OnnxEngine(bundle, device=device, threads=threads)
