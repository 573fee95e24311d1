"""A pose model and a detector whose answers are known, with faults that real ones do not show.

They stand in below the seams `Engine` and `Detector`; everything above is the real thing.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.bundle import Bundle
from models.detectors.whole import Whole
from models.engines import Engine
from models.geometry import Box
from models.manifest import PoseManifest
from models.pose import PoseModel
from service.catalog import Catalog, ServedDetector
from service.settings import Settings

WIDTH, HEIGHT, JOINTS = 48, 64, 17
SIGMA_BINS, SIGMA = 4.0, 0.05

POISON = (255, 0, 255)
"""A crop of this colour makes its whole batch fail."""
NAN = (255, 255, 0)
"""A crop of this colour has joints that are not finite."""

Floats = NDArray[np.float32]


def joints_of(colour: Sequence[int]) -> NDArray[np.float64]:
    """(K, 2) crop px: where the fake engine sees the joints of a person of this colour."""
    red, green = colour[0], colour[1]
    offset = np.arange(JOINTS) * 0.2
    return np.stack([6 + red / 255 * 32 + offset, 6 + green / 255 * 48 + offset], axis=-1)


@dataclass
class FakeEngine(Engine):
    """Sees one person in the middle of every crop, its joints told by its colour."""

    name: str = "fake"
    device: str = "cpu"
    batches: list[int] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    entered: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    open: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.open.set()

    def encode(self, crops: NDArray[np.uint8]) -> Floats:
        self.calls.append("encode")
        self.batches.append(len(crops))
        self.entered.release()
        assert self.open.wait(30), "a test forgot to open the engine"
        middle = crops[:, HEIGHT // 2, WIDTH // 2].astype(np.float32)
        if (middle == POISON).all(axis=1).any():
            raise RuntimeError("poisoned batch")
        return np.broadcast_to(middle[:, :, None, None], (len(crops), 3, 4, 3)).copy()

    def head(self, name: str, features: Floats) -> tuple[Floats, ...]:
        self.calls.append(name)
        if name == "nerpe":
            return (features,)
        points = self._points(features)
        if name == "simcc":
            return tuple(
                -0.5 * ((np.arange(size * 2) - points[..., axis, None] * 2) / SIGMA_BINS) ** 2
                for axis, size in enumerate((WIDTH, HEIGHT))
            )
        columns = (np.arange(12) * 4 - points[..., 0, None]) / 8
        rows = (np.arange(16) * 4 - points[..., 1, None]) / 8
        grid = np.exp(-0.5 * (rows[..., :, None] ** 2 + columns[..., None, :] ** 2))
        return (grid.astype(np.float32),)

    def field(self, cells: Floats, points: Floats) -> Floats:
        self.calls.append("field")
        joints = (self._points(cells) + 0.5 - (WIDTH / 2, HEIGHT / 2)) / (HEIGHT / 2)
        distance = ((points[:, :, None, :] - joints[:, None, :, :]) ** 2).sum(-1)
        return np.asarray(np.exp(-distance / (2 * SIGMA**2)), np.float32)

    def _points(self, features: Floats) -> Floats:
        colours = np.round(features[:, :, 0, 0])
        points = np.stack([joints_of(colour) for colour in colours]).astype(np.float32)
        points[(colours == NAN).all(axis=1)] = np.nan
        return points


@dataclass
class FakeDetector:
    """Cuts the photo into vertical strips, one person each."""

    name: str = "strips"
    device: str = "cpu"
    min_box_score: float = 0.3
    people: int = 1
    calls: int = 0

    def detect(
        self, images: Sequence[NDArray[np.uint8]], *, min_box_score: float | None = None
    ) -> list[list[Box]]:
        self.calls += 1
        threshold = self.min_box_score if min_box_score is None else min_box_score
        return [
            [box for box in self._strips(*image.shape[1::-1]) if box.score >= threshold]
            for image in images
        ]

    def _strips(self, width: int, height: int) -> list[Box]:
        each = width / self.people
        return [
            Box(number * each, 0, each, height, 0.9 - 0.01 * number)
            for number in range(self.people)
        ]


CALIBRATION = {
    "score": {"raw": [0, 1], "value": [0, 1]},
    "sigma": {"raw": [0, 100], "value": [0, 50]},
}
"""Of all heads but `heatmap`: scores as they are, a sigma of half the spread."""


def fake_manifest(largest_batch: int = 4) -> PoseManifest:
    return PoseManifest.model_validate(
        {
            "schema_version": 1,
            "kind": "pose",
            "name": "fake",
            "input": {"width": WIDTH, "height": HEIGHT, "largest_batch": largest_batch},
            "files": dict.fromkeys(("e.onnx", "s.onnx", "h.onnx", "c.onnx", "n.onnx"), "0" * 64),
            "licence": "Apache-2.0",
            "provenance": {"data": "none", "start": "none", "recipe": "none", "date": "2026-01-01"},
            "accuracy": {"ap": 1.0},
            "keypoint_set": "coco17",
            "crop": {"matrix": "legacy", "padding": 1.25},
            "encoder": "e.onnx",
            "feature_shape": [3, 4, 3],
            "heads": {
                "simcc": {
                    "graph": "s.onnx", "split": 2, "sigma": [SIGMA_BINS, SIGMA_BINS],
                    "decode": "expectation", "calibration": CALIBRATION,
                },
                "heatmap": {
                    "graph": "h.onnx", "width": 12, "height": 16, "grid": "legacy", "sigma": 2,
                    "blur": 1, "decode": "dark",
                },
                "nerpe": {
                    "cells": "c.onnx", "graph": "n.onnx", "width": 3, "height": 4,
                    "sigma": SIGMA, "decode": "progressive", "resolution": 512,
                    "calibration": CALIBRATION,
                },
            },
            "default_head": "simcc",
        }
    )  # fmt: skip


@dataclass
class FakeHouse:
    """What a server under test is loaded with, and handles on it."""

    engine: FakeEngine = field(default_factory=FakeEngine)
    detector: FakeDetector = field(default_factory=FakeDetector)
    largest_batch: int = 4
    digest: str = "sha256:fake"

    def load(self, settings: Settings) -> Catalog:
        bundle = Bundle(Path("fake"), fake_manifest(self.largest_batch), self.digest)
        return Catalog(
            models={"fake": PoseModel(bundle, self.engine)},
            detectors={
                "strips": ServedDetector("strips", self.detector, None),
                "whole": ServedDetector("whole", Whole(), None),
            },
            default_model="fake",
            default_detector="strips",
        )
