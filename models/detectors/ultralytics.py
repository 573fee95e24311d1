"""Any YOLO that the ultralytics package runs.

The package is AGPL-3.0. It is imported nowhere else, and only when a server's own setting (or the
command line) names such a detector; a request cannot.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.bundle import BundleError
from models.geometry import Box

_PERSON = "person"


class Ultralytics:
    """A YOLO detector with a class `person`, loaded from a file of weights.

    Attributes:
        name: `ultralytics:` and the weights as they were asked for.
        device: `cpu` or `cuda`.
        min_box_score: the package's own default.
    """

    min_box_score = 0.25

    def __init__(self, weights: str, *, device: str = "cpu") -> None:
        # The package downloads what it does not find; a server should not.
        if not Path(weights).is_file():
            raise BundleError(f"ultralytics:{weights}: there is no such file of weights")
        # It also reports its use to its makers and installs packages; a server should do neither.
        os.environ.setdefault("YOLO_OFFLINE", "true")
        os.environ.setdefault("YOLO_AUTOINSTALL", "false")
        try:
            from ultralytics import YOLO
        except ImportError as error:
            raise BundleError(
                f"ultralytics:{weights} needs the AGPL-3.0 package: pip install '.[ultralytics]'"
            ) from error
        self.name = f"ultralytics:{weights}"
        self.device = device
        self._model: Any = YOLO(weights)
        self._one_at_a_time = Lock()  # it keeps what it works on in itself
        self._people = [key for key, name in self._model.names.items() if name == _PERSON]
        if not self._people:
            raise BundleError(f"ultralytics:{weights} has no class {_PERSON!r}")

    def detect(
        self, images: Sequence[NDArray[np.uint8]], *, min_box_score: float | None = None
    ) -> list[list[Box]]:
        """People in each image; see `models.detectors.Detector`."""
        least = self.min_box_score if min_box_score is None else min_box_score
        if not images:
            return []
        with self._one_at_a_time:
            results = self._model.predict(
                # The package takes arrays as BGR.
                [np.ascontiguousarray(image[..., ::-1]) for image in images],
                conf=least,
                classes=self._people,
                device=self.device,
                verbose=False,
            )
        return [
            [
                Box(x1, y1, x2 - x1, y2 - y1, score)
                for x1, y1, x2, y2, score, _ in result.boxes.data.tolist()
                if x2 > x1 and y2 > y1
            ]
            for result in results
        ]
