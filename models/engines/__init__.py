"""Engines: one pose bundle loaded on one device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from models.arrays import Array
from models.bundle import Bundle
from models.geometry import CropGeometry

Floats = NDArray[np.float32]


class EngineError(Exception):
    """An engine that cannot run here; the message says why and what to do."""


class EngineAway(EngineError):  # noqa: N818
    """The engine runs elsewhere and does not answer: no crop of the batch is at fault."""


class Engine(Protocol):
    """The verbs of a pose bundle. Safe to call from several threads.

    It takes numpy arrays and those that it answered, which are of its own kind: numpy, or torch
    where they stay on its device. All but crops are float32. The codecs decode either.

    Attributes:
        name: of the runtime.
        device: the one it truly runs on.
    """

    name: str
    device: str

    def cut(self, photo: NDArray[np.uint8], geometries: Sequence[CropGeometry]) -> Sequence[Array]:
        """Crops of an (H, W, 3) RGB photo: each (height, width, 3) uint8, stacked for `encode`.

        A verb of the engine because it alone knows where pixels are wanted. One with memory of
        its own takes what the crops read of the photo there, once, and cuts there: crops, unlike
        photos, are small enough to wait there for a batch. On the host, where others find their
        crops, there is one way to cut, which they inherit.
        """
        return [geometry.cut(photo) for geometry in geometries]

    def encode(self, crops: Array) -> Array:
        """(B, H, W, 3) uint8 RGB crops to (B, C, h, w) features."""
        ...

    def head(self, name: str, features: Array) -> tuple[Array, ...]:
        """What a head emits of (B, C, h, w) features.

        `simcc`: logits (B, K, Nx) and (B, K, Ny); `heatmap`: (B, K, rows, columns); `nerpe`: its
        cells (B, C', rows, columns), for `field`.
        """
        ...

    def field(self, cells: Array, points: Array) -> Array:
        """NerPE's values: cells and (B, Q, 2) normalised positions to (B, Q, K)."""
        ...


DEVICES = {"cpu": "cpu", "cuda": "cuda:0"}
"""By what is asked for, the device that it is: of several GPUs the first."""

EngineName = Literal["auto", "onnxruntime", "openvino", "tensorrt", "torch", "triton"]

Precision = Literal["f32", "bf16", "f16"]

PRECISIONS: dict[str, tuple[Precision, ...]] = {
    "torch": ("f32", "bf16", "f16"),
    "tensorrt": ("f32", "f16"),
}
"""By engine, where there is a choice."""


@dataclass(frozen=True, slots=True)
class Remote:
    """A server that runs the graphs.

    Attributes:
        address: `host:port`.
        timeout_s: for each answer.
    """

    address: str = "127.0.0.1:8001"
    timeout_s: float = 30.0


def load_engine(
    bundle: Bundle,
    *,
    engine: EngineName = "onnxruntime",
    device: str = "cpu",
    threads: int | None = None,
    precision: Precision = "f32",
    notes: Path | None = None,
    remote: Remote | None = None,
) -> Engine:
    """Load a bundle's graphs.

    Args:
        bundle: a verified pose bundle.
        engine: `auto` for the fastest one on this CPU, which is found out once; on `cuda` it is
            ONNX Runtime.
        device: `cpu` or `cuda`; of no meaning to `triton`, whose server has its own.
        threads: of the CPU's arithmetic; None for one a core.
        precision: of the arithmetic of `torch` (any) and `tensorrt` (f32, f16); others are f32.
        notes: the file in which `auto` keeps what it found out, and beside which `tensorrt` keeps
            its compiled graphs; None to keep nothing.
        remote: of engine `triton`; None for a server on this machine.

    Raises:
        EngineError: the engine or the device is not there, or the engine is not accurate here. It
            is never replaced by another one.
    """
    if precision not in PRECISIONS.get(engine, ("f32",)):
        raise EngineError(f"engine {engine!r} does not compute in {precision}")
    # Each imports its runtime, which need not be installed.
    if engine == "torch":
        from models.engines.auto import load_torch

        return load_torch(bundle, device=device, threads=threads, precision=precision)
    if engine == "tensorrt":
        from models.engines.auto import load_tensorrt

        return load_tensorrt(bundle, device=device, precision=precision, notes=notes)
    if engine == "openvino":
        from models.engines.auto import load_openvino

        return load_openvino(bundle, device=device, threads=threads)
    if engine == "triton":
        try:
            from models.engines.triton import TritonEngine
        except ImportError as error:
            raise EngineError("engine 'triton' needs the extra `triton`") from error
        return TritonEngine(bundle, remote or Remote())
    if engine == "auto" and device == "cpu":
        from models.engines.auto import choose_engine

        return choose_engine(bundle, notes, threads=threads)
    from models.engines.onnx import OnnxEngine

    loaded = OnnxEngine(bundle, device=device, threads=threads)
    if device == "cpu":
        return loaded
    from models.engines.auto import accurate

    return accurate(loaded, bundle, OnnxEngine(bundle, threads=threads))
