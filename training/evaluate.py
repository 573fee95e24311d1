"""How good a bundle is, measured through the product's own path.

Every photo goes through `Predictor`: its people are encoded once, and each head reads the features
with each of its decodes. What comes out is compared as COCO and LSP do.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from models.detectors import Detector
from models.formats import coco
from models.keypoints import COCO17
from models.pose import PoseModel
from models.predictor import Encoded, Person, Predictor
from training.data.boxes import DetectorBoxes
from training.data.images import read_image
from training.errors import DataError
from training.evaluation import GROUND_TRUTH, Figures
from training.metrics import KeypointMatches, bootstrap, torso_correct
from training.reliability import RIGHT, Reliability, calibration_error, reliability
from training.truth import Truth

_console = Console(stderr=True)

People = list[list[Person]]
"""Of each photo of a split, in its order."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One way to read joints from features."""

    head: str
    decode: str
    resolution: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """Figures, and the people that they were taken on."""

    figures: Figures
    people: People


def readings_of(model: PoseModel, *, standard: int | None = None) -> list[Reading]:
    """Every head with every decode.

    Args:
        model: whose.
        standard: the resolution to run NerPE's `standard` decode at, which evaluates every sample
            of its lattice and takes longer than all the others together; None leaves it out.
    """
    readings = []
    for head in model.heads:
        for decode in model.decodes[head]:
            if head != "nerpe":
                readings.append(Reading(head, decode))
            elif decode == "standard" and standard is not None:
                readings.append(Reading(head, decode, standard))
            elif decode == "progressive" and model.manifest.heads.nerpe is not None:
                readings.append(Reading(head, decode, model.manifest.heads.nerpe.resolution))
    return readings


def evaluate(
    model: PoseModel,
    detector: Detector | DetectorBoxes | None,
    truth: Truth,
    *,
    readings: Sequence[Reading] | None = None,
    flip: bool = False,
    draws: int = 200,
) -> list[Measured]:
    """Measure a model on a split.

    Args:
        model: of the COCO keypoint set.
        detector: that finds the people, at most 20 a photo, as the service does, or what one found
            elsewhere, of which all are looked at; None for the boxes of the labels.
        truth: the split.
        readings: heads and decodes; None for `readings_of(model)`.
        flip: average with the mirrored crops.
        draws: of the bootstrap.

    Returns:
        One for each reading.

    Raises:
        DataError: a detector on a split without complete labels; a photo that cannot be read; a
            model of another keypoint set.
    """
    if model.keypoints != COCO17:
        raise DataError(f"{model.name} has the keypoints {model.keypoints.name}, not coco17's")
    truth = truth.with_people() if detector is None else truth.complete()
    readings = readings_of(model) if readings is None else readings
    elsewhere = detector if isinstance(detector, DetectorBoxes) else None
    predictor = Predictor(model, None if isinstance(detector, DetectorBoxes) else detector)
    people: dict[Reading, People] = {reading: [] for reading in readings}
    seconds = dict.fromkeys(readings, 0.0)
    started = time.monotonic()
    for encoded in encoded_photos(predictor, truth, flip=flip, elsewhere=elsewhere):
        for reading in readings:
            begin = time.monotonic()
            read = predictor.read(
                encoded,
                [reading.head],
                reading.decode,
                reading.resolution,
                sigma=model.calibration(reading.head) is not None,
            )
            people[reading].append(read)
            seconds[reading] += time.monotonic() - begin
    encoding = time.monotonic() - started - sum(seconds.values())
    measured = []
    for reading, found in people.items():
        errors = _Errors.of(truth, found) if detector is None else None
        metrics, interval, by_threshold = _compare(truth, found, errors, draws)
        figures = Figures(
            split=truth.split,
            boxes=GROUND_TRUTH if detector is None else detector.name,
            flip=flip,
            head=reading.head,
            decode=reading.decode,
            resolution=reading.resolution,
            photos=len(truth.photos),
            people=sum(len(photo.people) for photo in truth.photos),
            found=sum(map(len, found)),
            metrics=metrics,
            interval=interval,
            by_threshold=by_threshold,
            reliability=errors.reliability() if errors else (),
            seconds=round(encoding + seconds[reading], 1),
        )
        measured.append(Measured(figures, found))
    return measured


def encoded_photos(
    predictor: Predictor, truth: Truth, *, flip: bool, elsewhere: DetectorBoxes | None = None
) -> Iterator[Encoded]:
    """Each photo after the encoder: its labelled people, or those that a detector found."""
    for photo in track(truth.photos, truth.split, console=_console, transient=True):
        image = read_image(photo.path)
        if elsewhere:
            boxes = elsewhere.by_image.get(photo.image_id, [])
            # As found by the predictor's own detector: the same person twice is answered once.
            yield replace(predictor.encode(image, boxes=boxes, flip=flip), detected=True)
        else:
            labelled = None if predictor.detector else [person.box for person in photo.people]
            yield predictor.encode(image, boxes=labelled, flip=flip)


def match_people(truth: Truth, people: People) -> KeypointMatches:
    """COCO's matching of what was found in a split."""
    rows = [
        row
        for photo, found in zip(truth.photos, people, strict=True)
        for row in coco(found, image_id=photo.image_id)
    ]
    return KeypointMatches(truth.content, rows)


def _compare(
    truth: Truth, people: People, errors: _Errors | None, draws: int
) -> tuple[dict[str, float], tuple[float, float], tuple[float, ...]]:
    """The metrics, the main one's interval, AP by threshold.

    Args:
        truth: the split.
        people: found in it.
        errors: of the joints, where they are person by person those of the labels.
        draws: of the bootstrap.
    """
    extra = errors.figures() if errors else {}
    if truth.split == "lspet/val" and errors:
        whole = np.ones(len(truth.photos))
        interval = bootstrap(errors.pck, len(truth.photos), draws=draws)
        return {"PCK@0.2": errors.pck(whole), **extra}, interval, ()
    matches = match_people(truth, people)
    interval = bootstrap(matches.ap, matches.images, draws=draws)
    return {**matches.stats, **extra}, interval, tuple(matches.precision().mean(axis=1).tolist())


@dataclass(frozen=True, slots=True, eq=False)
class _Errors:
    """How far the joints of N people are from their labels.

    Attributes:
        distances: (N, K) px, nan where there is no label.
        size: (N,) px, the square root of the box.
        torso: (N,) px, nan where its joints are not labelled.
        photo: (N,) the index of each person's.
        scores: (N, K) as answered.
        sigmas: (N, K) px as answered, None where the head is not calibrated.
    """

    distances: NDArray[np.float64]
    size: NDArray[np.float64]
    torso: NDArray[np.float64]
    photo: NDArray[np.intp]
    scores: NDArray[np.float64]
    sigmas: NDArray[np.float64] | None

    @classmethod
    def of(cls, truth: Truth, people: People) -> _Errors:
        labelled = [person for photo in truth.photos for person in photo.people]
        points = np.array([person.points for person in labelled])
        points[np.array([person.visibility == 0 for person in labelled])] = np.nan
        poses = [person.pose for photo in people for person in photo]
        found = np.array([pose.points for pose in poses])
        sigmas = [pose.sigmas for pose in poses if pose.sigmas is not None]
        shoulder, hip = COCO17.index("left_shoulder"), COCO17.index("right_hip")
        return cls(
            np.linalg.norm(found - points, axis=-1),
            np.sqrt([person.box.area for person in labelled]),
            np.linalg.norm(points[:, shoulder] - points[:, hip], axis=-1),
            np.repeat(np.arange(len(truth.photos)), [len(p.people) for p in truth.photos]),
            np.array([pose.scores for pose in poses]),
            np.array(sigmas) if sigmas else None,
        )

    def figures(self) -> dict[str, float]:
        """Errors in sizes of the person's box, and how far scores and sigmas are to be believed."""
        seen = np.isfinite(self.distances)
        errors = (self.distances / self.size[:, None])[seen]
        figures = {
            "error_median": float(np.median(errors)),
            "error_mean": float(errors.mean()),
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
