"""People in the photo: image in, boxes out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from models.bundle import Bundle, bundle_path, load_bundle
from models.geometry import Box


class Detector(Protocol):
    """Finds people. Safe to call from several threads.

    Attributes:
        name: what a caller asks for it by.
        device: the one it truly runs on.
        min_box_score: its own threshold.
    """

    name: str
    device: str
    min_box_score: float

    def detect(
        self, images: Sequence[NDArray[np.uint8]], *, min_box_score: float | None = None
    ) -> list[list[Box]]:
        """People in each image.

        Args:
            images: each (H, W, 3) uint8 RGB, of any size.
            min_box_score: instead of the detector's own.

        Returns:
            Per image the boxes in its px, inside it, with an area, best score first.
        """
        ...


def load_detector(
    which: Bundle | str | Path,
    *,
    engine: Literal["onnxruntime", "torch"] = "onnxruntime",
    device: str = "cpu",
    threads: int | None = None,
) -> Detector:
    """Load a detector.

    Args:
        which: a bundle, the name of a committed one, the path of one, `whole`, or
            `ultralytics:<weights>`. The last imports AGPL code: pass a name on only from where
            such a choice may be made, never from a request.
        engine: that runs a bundle's graph.
        device: `cpu` or `cuda`.
        threads: that one run may use; None for one a core.

    Raises:
        BundleError: no such detector, or its files are damaged.
        EngineError: the engine or the device is missing.
    """
    if which == "whole":
        from models.detectors.whole import Whole

        return Whole()
    if isinstance(which, str) and which.startswith("ultralytics:"):
        from models.detectors.ultralytics import Ultralytics

        return Ultralytics(which.removeprefix("ultralytics:"), device=device)
    bundle = which if isinstance(which, Bundle) else load_bundle(bundle_path(which, "whole"))
    if engine == "torch":
        from models.detectors.torch import load_torch

        return load_torch(bundle, device=device, threads=threads)
    from models.detectors.onnx import load_onnx

    return load_onnx(bundle, device=device, threads=threads)
