"""A detector bundle's graph in ONNX Runtime."""

from __future__ import annotations

from models.bundle import Bundle
from models.detectors.decode import Outputs
from models.detectors.dense import DenseDetector, Pixels
from models.engines import DEVICES
from models.engines.onnx import open_session


def load_onnx(bundle: Bundle, *, device: str = "cpu", threads: int | None = None) -> DenseDetector:
    """Open a detector bundle.

    Args:
        bundle: of a detector.
        device: `cpu` or `cuda`.
        threads: that one run may use; None for one a core.

    Raises:
        BundleError: it is a pose model's.
        EngineError: the device is missing.
    """
    manifest = bundle.detector
    session = open_session(bundle.file(manifest.graph), device=device, threads=threads)
    feed = session.get_inputs()[0].name

    def run(pixels: Pixels) -> Outputs:
        outputs: Outputs = session.run(None, {feed: pixels})
        return outputs

    return DenseDetector(manifest, run, device=DEVICES[device])
