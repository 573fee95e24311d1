"""One photo's way without a server: boxes, crops, features, joints, people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.arrays import namespace
from models.codecs import Decoded
from models.detectors import Detector
from models.features import Features
from models.geometry import Box, CropGeometry
from models.keypoints import KeypointSet
from models.pose import PoseModel

SAME_POSE = 0.9
"""Object keypoint similarity above which two people are one (MODELS 4)."""

COUNTED = 0.2
"""Keypoint scores above this make a person's score."""


@dataclass(frozen=True, slots=True)
class HeadChoice:
    """One head and how its field is decoded.

    Attributes:
        head: one of the model's.
        decode: one of the head's.
        resolution: of NerPE's lattice along the crop's longer side; None for the decode's own.
        sigma: also how far off each joint may be.
    """

    head: str
    decode: str
    resolution: int | None = None
    sigma: bool = False

    @property
    def queries(self) -> float:
        """Positions of a whole lattice; 0 where only a few are evaluated."""
        return (self.resolution or 0) ** 2 if self.decode == "standard" else 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Pose:
    """The joints of one person.

    Attributes:
        points: (K, 2) float64, image px.
        scores: (K,) float64 in [0, 1].
        resolution: of NerPE's lattice, None for other heads.
        sigmas: (K,) float64, image px, within which 68 % of such joints lie; None where not
            asked for.
    """

    points: NDArray[np.float64]
    scores: NDArray[np.float64]
    resolution: int | None = None
    sigmas: NDArray[np.float64] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Person:
    """A box and the poses that the heads asked for found in it, the first head's first."""

    box: Box
    poses: dict[str, Pose]

    @property
    def pose(self) -> Pose:
        """The first head's."""
        return next(iter(self.poses.values()))

    def under(self, head: str) -> Person:
        """The same person as one head alone sees it."""
        return Person(self.box, {head: self.poses[head]})

    @property
    def score(self) -> float:
        """The box score times the mean of the keypoint scores that count."""
        return person_score(self.box, self.pose)


def person_score(box: Box, pose: Pose) -> float:
    """The box score times the mean of the keypoint scores above 0.2; 0 if there is none."""
    counted = pose.scores[pose.scores > COUNTED]
    return float(box.score * counted.mean()) if len(counted) else 0.0


def poses_of(decoded: Decoded, geometries: Sequence[CropGeometry]) -> list[Pose]:
    """A decoded batch in pixels of the image: one pose a crop."""
    return [
        Pose(
            geometry.to_image(np.asarray(decoded.points[row], np.float64)),
            np.asarray(decoded.scores[row], np.float64),
            decoded.resolution,
            None
            if decoded.sigmas is None
            else np.asarray(decoded.sigmas[row], np.float64) * geometry.scale,
        )
        for row, geometry in enumerate(geometries)
    ]


def suppress(
    people: Sequence[Person], geometries: Sequence[CropGeometry], keypoints: KeypointSet
) -> list[int]:
    """Indices of the people to answer, best score first, each pose once.

    Greedy: who has an object keypoint similarity over 0.9 with a better one goes. The area that
    it is relative to is the mean of the two crops' (MODELS 4).
    """
    scores = np.array([person.score for person in people])
    areas = np.array([geometry.box.area for geometry in geometries])
    variances = (2 * np.array(keypoints.sigmas)) ** 2
    kept: list[int] = []
    for index in np.argsort(-scores, kind="stable"):
        points = people[index].pose.points
        for other in kept:
            squares = ((points - people[other].pose.points) ** 2).sum(-1)
            area = (areas[index] + areas[other]) / 2
            if np.exp(-squares / (2 * area * variances)).mean() > SAME_POSE:
                break
        else:
            kept.append(int(index))
    return kept


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """The people of one photo after the encoder, for any head to read.

    Attributes:
        boxes: of the people, px of the image.
        geometries: of their crops.
        features: of their crops.
        detected: the boxes are a detector's, so one person may have several.
    """

    boxes: Sequence[Box]
    geometries: Sequence[CropGeometry]
    features: Features
    detected: bool


class Predictor:
    """A pose model and a detector."""

    def __init__(self, model: PoseModel, detector: Detector | None = None) -> None:
        """Join the two; without a detector, boxes must be given."""
        self.model = model
        self.detector = detector

    def predict(
        self,
        image: NDArray[np.uint8],
        *,
        boxes: Sequence[Box] | None = None,
        heads: Sequence[HeadChoice | str] | None = None,
        flip: bool = False,
        max_people: int = 20,
        min_box_score: float | None = None,
    ) -> list[Person]:
        """Find people and their joints.

        Args:
            image: (H, W, 3) uint8 RGB.
            boxes: where the people are, answered all and in this order; None to detect them.
            heads: which to run on one encoder pass, by name or with their decode; None for the
                model's default.
            flip: average with the mirrored crops.
            max_people: of the detected ones, best box scores first.
            min_box_score: of the detected ones; None for the detector's own threshold.

        Raises:
            ValueError: neither boxes nor a detector; a box without area; a head or decode that
                the model does not have; a sigma of a head that is not calibrated.
        """
        encoded = self.encode(
            image, boxes=boxes, flip=flip, max_people=max_people, min_box_score=min_box_score
        )
        return self.read(encoded, heads)

    def encode(
        self,
        image: NDArray[np.uint8],
        *,
        boxes: Sequence[Box] | None = None,
        flip: bool = False,
        max_people: int = 20,
        min_box_score: float | None = None,
    ) -> Encoded:
        """The first half of `predict`, with the same arguments: boxes, crops, features.

        Raises:
            ValueError: neither boxes nor a detector; a box without area.
        """
        detected = boxes is None
        if boxes is None:
            if self.detector is None:
                raise ValueError("no detector is loaded: give boxes")
            (boxes,) = self.detector.detect([image], min_box_score=min_box_score)
            boxes = boxes[:max_people]
        geometries, cuts = self.model.cut(image, boxes)
        features = Features(np.empty((0, *self.model.manifest.feature_shape), np.float32))
        if cuts:
            crops = namespace(*cuts).stack(list(cuts))
            features = Features.stack(
                [self.model.encode(crops[part], flip=flip) for part in self._batches(len(crops))]
            )
        return Encoded(boxes, geometries, features, detected)

    def read(
        self, encoded: Encoded, heads: Sequence[HeadChoice | str] | None = None
    ) -> list[Person]:
        """The second half of `predict`, with the same arguments: joints, people.

        Raises:
            ValueError: a head or decode that the model does not have; a sigma of a head that is
                not calibrated.
        """
        named = [self._choice(head) for head in heads or [self.model.default_head]]
        choices = {choice.head: choice for choice in named}
        poses = {head: self.poses(encoded, choice) for head, choice in choices.items()}
        kept = self.answered(encoded, poses.get(self.model.default_head))
        return [
            Person(encoded.boxes[index], {head: row[index] for head, row in poses.items()})
            for index in kept
        ]

    def poses(self, encoded: Encoded, choice: HeadChoice) -> list[Pose]:
        """Of everyone who was encoded, as one head has them."""
        poses: list[Pose] = []
        for part in self._batches(len(encoded.boxes)):
            decoded = self.model.decode(
                encoded.features[part],
                choice.head,
                choice.decode,
                choice.resolution,
                sigma=choice.sigma,
            )
            poses += poses_of(decoded, encoded.geometries[part])
        return poses

    def answered(self, encoded: Encoded, judged: Sequence[Pose] | None = None) -> list[int]:
        """Who is answered: everyone whose box was given; of those detected, best first, each once.

        Args:
            encoded: a photo's people.
            judged: their poses as the default head has them, where it has been read already.

        Returns:
            Indices of them.
        """
        if not encoded.detected:
            return list(range(len(encoded.boxes)))
        # Always the same head decides, so that people have the same numbers under every one.
        judge = self.model.default_head
        if judged is None:
            judged = self.poses(encoded, self._choice(judge))
        pairs = zip(encoded.boxes, judged, strict=True)
        people = [Person(box, {judge: pose}) for box, pose in pairs]
        return suppress(people, encoded.geometries, self.model.keypoints)

    def _choice(self, head: HeadChoice | str) -> HeadChoice:
        """As it is asked for, a name with the manifest's decode.

        Raises:
            ValueError: the model does not have it.
        """
        if isinstance(head, str):
            return HeadChoice(head, self.model.checked(head))
        self.model.checked(head.head, head.decode, head.resolution, sigma=head.sigma)
        return head

    def _batches(self, count: int) -> list[slice]:
        """No larger than the bundle allows."""
        largest = self.model.manifest.input.largest_batch
        return [slice(start, start + largest) for start in range(0, count, largest)]
