"""A detector bundle's graph in torch."""

from __future__ import annotations

from models.bundle import Bundle
from models.detectors.dense import DenseDetector
from models.engines import DEVICES, EngineError


def load_torch(bundle: Bundle, *, device: str = "cpu", threads: int | None = None) -> DenseDetector:
    """Open a detector bundle.

    Args:
        bundle: of a detector.
        device: `cpu` or `cuda`.
        threads: that one run may use; None for one a core.

    Raises:
        BundleError: it is a pose model's.
        EngineError: torch or the device is missing.
    """
    try:
        from models.engines.torch import load_graph
    except ImportError as error:
        raise EngineError("engine 'torch' needs the extra `torch`") from error
    manifest = bundle.detector
    run = load_graph(bundle.file(manifest.graph), device, threads)
    return DenseDetector(manifest, run, device=DEVICES[device])
