"""The two detectors that ours is measured beside, as bundles."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

from models.bundle import Bundle
from training.detector.export import MEAN, STD, write_bundle

RTMDET_FILE = "rtmdet_nano_person_320_raw.onnx"
YOLOX_FILE = "yolox_nano_coco_416.onnx"


def _description(
    start: str, decoder: str, side: int, threshold: float, normalisation: object
) -> dict[str, Any]:
    return {
        "input": {
            "width": side,
            "height": side,
            "layout": "NCHW",
            "dtype": "float32",
            "channels": "BGR",
            "normalisation": normalisation,
            "largest_batch": 1,
        },
        "decoder": decoder,
        "score_threshold": threshold,
        "nms_threshold": 0.6,
        "licence": "Apache-2.0",
        "provenance": {
            "data": "see the publisher",
            "start": start,
            "recipe": "as published, unchanged",
            "date": datetime.date(2026, 11, 20),
        },
        "accuracy": {},
    }


def reference_bundles(detectors: Path, folder: Path) -> dict[str, Bundle]:
    """Bundles around the published ONNX files.

    Args:
        detectors: the folder of the files, `data/models/detectors`.
        folder: the bundles are written into, each a folder of its own.
    """
    rtmdet = _description(
        "OpenMMLab rtmdet_nano_8xb32-100e_coco-obj365-person",
        "rtmdet",
        320,
        0.2,
        {"mean": MEAN, "std": STD},
    )
    yolox = _description("Megvii yolox_nano", "yolox", 416, 0.2, None)
    return {
        "rtmdet-nano": write_bundle(folder / "rtmdet-nano", detectors / RTMDET_FILE, rtmdet),
        "yolox-nano": write_bundle(folder / "yolox-nano", detectors / YOLOX_FILE, yolox),
    }
