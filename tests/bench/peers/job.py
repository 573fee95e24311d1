"""What every server here does with a photo: decode, find people, cut, encode, head, joints.

The peers call this package's `models`, so that arithmetic and weights are the same everywhere and
only the serving differs. `BENCH_DEVICE=simulated` puts the simulated engine in, and the photo is
then one person's box.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from models.bundle import BUNDLES, load_bundle
from models.detectors import Detector, load_detector
from models.engines import EngineName, load_engine
from models.pose import PoseModel
from models.predictor import Person, poses_of, suppress
from tests.bench.peers.device import simulated_model

Image = NDArray[np.uint8]

SIMULATED = os.environ.get("BENCH_DEVICE") == "simulated"
ENGINE: EngineName = os.environ.get("SUBPOSE_ENGINE", "onnxruntime")  # type: ignore[assignment]
PHOTOS_A_BATCH = 16 if SIMULATED else 8
"""Of servers that batch requests."""
WAIT_MS = 2
"""How long they wait for a batch to fill."""
WITHIN_MS = int(os.environ.get("BENCH_WITHIN_MS", "30000"))
"""Their time limit, where they have one."""


def decode(data: bytes) -> Image:
    """A JPEG's pixels.

    Raises:
        ValueError: it is none.
    """
    return np.asarray(simplejpeg.decode_jpeg(data, "RGB"), np.uint8)


@dataclass(frozen=True)
class Job:
    """Model and detector, loaded."""

    model: PoseModel
    detector: Detector

    @staticmethod
    def load() -> Job:
        if SIMULATED:
            return Job(simulated_model(), load_detector("whole"))
        bundle = load_bundle(BUNDLES / "pose-s")
        engine = load_engine(bundle, engine=ENGINE)
        return Job(PoseModel(bundle, engine), load_detector("person-n"))

    def people(self, photos: Sequence[Image], most: int = 20) -> list[list[Person]]:
        """Everybody in each photo; detector and encoder see the photos together."""
        boxes = [found[:most] for found in self.detector.detect(photos)]
        cuts = [self.model.cut(photo, found) for photo, found in zip(photos, boxes, strict=True)]
        geometries = [geometry for part, _ in cuts for geometry in part]
        crops = [crop for _, part in cuts for crop in part]
        poses = []
        largest = self.model.manifest.input.largest_batch
        for first in range(0, len(crops), largest):
            part = slice(first, first + largest)
            features = self.model.encode(np.stack(crops[part]))
            decoded = self.model.decode(features, self.model.default_head)
            poses += poses_of(decoded, geometries[part])
        answer, first = [], 0
        for found in boxes:
            last = first + len(found)
            people = [
                Person(box, {self.model.default_head: pose})
                for box, pose in zip(found, poses[first:last], strict=True)
            ]
            kept = suppress(people, geometries[first:last], self.model.keypoints)
            answer.append([people[index] for index in kept])
            first = last
        return answer

    def body(self, people: Sequence[Person]) -> dict[str, Any]:
        """The answer for one photo, to be made JSON."""
        names = self.model.keypoints.names
        return {"people": [_person(person, names) for person in people]}


def _person(person: Person, names: Sequence[str]) -> dict[str, Any]:
    box, pose = person.box, person.pose
    return {
        "score": round(person.score, 4),
        "box": {
            "x": round(box.x, 2), "y": round(box.y, 2),
            "width": round(box.width, 2), "height": round(box.height, 2),
            "score": round(box.score, 4),
        },
        "keypoints": [
            {"name": name, "x": round(x, 2), "y": round(y, 2), "score": round(score, 4)}
            for name, (x, y), score in zip(
                names, pose.points.tolist(), pose.scores.tolist(), strict=True
            )
        ],
    }  # fmt: skip
