"""A GPU as its host sees it: a batch of n crops takes 4 + 0.15 n ms, during which the host is free.

It stands below the seam `Engine`, so everything above it is the real thing. Photos are posted with
their box, and one that cannot be read is a client's fault as it is everywhere else.
"""

from __future__ import annotations

import mmap
import os
import struct
import threading
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.bundle import Bundle
from models.engines import Engine, Floats
from models.manifest import PoseManifest
from models.pose import PoseModel

WIDTH, HEIGHT, JOINTS = 192, 256, 17
LARGEST_BATCH = 16
SECONDS, SECONDS_PER_CROP = 4e-3, 0.15e-3
COUNTER = "BENCH_COUNTER"


class Counter:
    """How many crops were computed, in whatever process: eight bytes of a file."""

    def __init__(self, file: Path) -> None:
        with file.open("r+b") as opened:
            self._bytes = mmap.mmap(opened.fileno(), 8)

    def add(self, crops: int) -> None:
        self._bytes[:8] = struct.pack("q", self.value + crops)

    @property
    def value(self) -> int:
        return int(struct.unpack("q", self._bytes[:8])[0])

    @staticmethod
    def create(file: Path) -> Counter:
        file.write_bytes(bytes(8))
        return Counter(file)


class SimulatedEngine(Engine):
    """Sees the same joints in every crop."""

    name = "simulated"
    device = "simulated:0"

    def __init__(self) -> None:
        self._counter = Counter(Path(os.environ[COUNTER])) if COUNTER in os.environ else None
        self._one_at_a_time = threading.Lock()  # as a GPU that a batch fills
        self._maps = np.random.default_rng(0).random((1, JOINTS, 16, 12), np.float32)

    def encode(self, crops: NDArray[np.uint8]) -> Floats:
        with self._one_at_a_time:
            time.sleep(SECONDS + SECONDS_PER_CROP * len(crops))
            if self._counter:
                self._counter.add(len(crops))
        return np.zeros((len(crops), 3, 4, 3), np.float32)

    def head(self, name: str, features: Floats) -> tuple[Floats, ...]:
        return (np.repeat(self._maps, len(features), axis=0),)

    def field(self, cells: Floats, points: Floats) -> Floats:
        raise NotImplementedError("its model has no NerPE head")


def simulated_model() -> PoseModel:
    """The smallest pose model around it."""
    manifest = PoseManifest.model_validate(
        {
            "schema_version": 1, "kind": "pose", "name": "simulated",
            "input": {"width": WIDTH, "height": HEIGHT, "largest_batch": LARGEST_BATCH},
            "files": dict.fromkeys(("e.onnx", "h.onnx"), "0" * 64),
            "licence": "Apache-2.0",
            "provenance": {"data": "none", "start": "none", "recipe": "none", "date": "2026-01-01"},
            "accuracy": {},
            "keypoint_set": "coco17",
            "crop": {"matrix": "legacy", "padding": 1.25},
            "encoder": "e.onnx", "feature_shape": [3, 4, 3],
            "heads": {
                "heatmap": {
                    "graph": "h.onnx", "width": 12, "height": 16, "grid": "legacy", "sigma": 2,
                    "blur": 1, "decode": "argmax",
                },
            },
            "default_head": "heatmap",
        }
    )  # fmt: skip
    return PoseModel(Bundle(Path("simulated"), manifest, "sha256:simulated"), SimulatedEngine())
