"""How far the joints that were found lie from their labels, person by person."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.predictor import Person
from training.metrics import torso_correct
from training.reliability import RIGHT, Reliability, calibration_error, reliability
from training.truth import Truth

People = list[list[Person]]
"""Of each photo of a split, in its order."""


@dataclass(frozen=True, slots=True, eq=False)
class JointErrors:
    """How far the joints of N people are from their labels.

    Attributes:
        found: (N, K, 2) px, as answered.
        labels: (N, K, 2) px, nan where there is none.
        distances: (N, K) px, nan where there is no label.
        size: (N,) px, the square root of the box.
        torso: (N,) px, nan where its joints are not labelled.
        photo: (N,) the index of each person's.
        scores: (N, K) as answered.
        sigmas: (N, K) px as answered, None where the head is not calibrated.
    """

    found: NDArray[np.float64]
    labels: NDArray[np.float64]
    distances: NDArray[np.float64]
    size: NDArray[np.float64]
    torso: NDArray[np.float64]
    photo: NDArray[np.intp]
    scores: NDArray[np.float64]
    sigmas: NDArray[np.float64] | None

    @classmethod
    def of(cls, truth: Truth, people: People) -> JointErrors:
        """Of the people found in the labels' boxes, person by person."""
        labelled = [person for photo in truth.photos for person in photo.people]
        points = np.array([person.points for person in labelled])
        points[np.array([person.visibility == 0 for person in labelled])] = np.nan
        poses = [person.pose for photo in people for person in photo]
        found = np.array([pose.points for pose in poses])
        sigmas = [pose.sigmas for pose in poses if pose.sigmas is not None]
        shoulder, hip = map(truth.keypoints.index, ("left_shoulder", "right_hip"))
        return cls(
            found,
            points,
            np.linalg.norm(found - points, axis=-1),
            np.sqrt([person.box.area for person in labelled]),
            np.linalg.norm(points[:, shoulder] - points[:, hip], axis=-1),
            np.repeat(np.arange(len(truth.photos)), [len(p.people) for p in truth.photos]),
            np.array([pose.scores for pose in poses]),
            np.array(sigmas) if sigmas else None,
        )

    @property
    def relative(self) -> NDArray[np.float64]:
        """(joints,) of all that are labelled: distances in sizes of their person's box."""
        return (self.distances / self.size[:, None])[np.isfinite(self.distances)]

    def figures(self) -> dict[str, float]:
        """Errors in sizes of the person's box, and how far scores and sigmas are to be believed."""
        seen = np.isfinite(self.distances)
        figures = {
            "error_median": float(np.median(self.relative)),
            "error_mean": float(self.relative.mean()),
            "calibration_error": calibration_error(self.reliability()),
        }
        if self.sigmas is not None:
            figures["within_sigma"] = float((self.distances <= self.sigmas)[seen].mean())
        return figures

    def reliability(self) -> Reliability:
        """Of the labelled joints' scores."""
        seen = np.isfinite(self.distances)
        right = self.distances <= RIGHT * self.size[:, None]
        return reliability(self.scores[seen], right[seen])

    def pck(self, weights: NDArray[np.float64]) -> float:
        """PCK@0.2 of the joints of people with a torso, each photo as often as `weights` says."""
        asked = np.isfinite(self.distances) & np.isfinite(self.torso)[:, None]
        right = torso_correct(self.distances, self.torso) & asked
        weight = weights[self.photo]
        return float(weight @ right.sum(1) / (weight @ asked.sum(1)))
