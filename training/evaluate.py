"""How good a bundle is, measured through the product's own path.

Every photo goes through `Predictor`: its people are encoded once, and each head reads the features
with each of its decodes. What comes out is compared as the split's own protocol does.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from rich.progress import track

from models.detectors import Detector
from models.pose import PoseModel
from models.predictor import Encoded, HeadChoice, Person, Predictor
from training.comparison import compare, named
from training.data.boxes import DetectorBoxes
from training.data.images import read_image
from training.evaluation import GROUND_TRUTH, Figures
from training.joint_errors import JointErrors, People
from training.progress import console
from training.truth import Truth


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """Figures, and the people that they were taken on."""

    figures: Figures
    people: People


def readings_of(model: PoseModel, *, standard: int | None = None) -> list[HeadChoice]:
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
                readings.append(HeadChoice(head, decode))
            elif decode != "standard":
                readings.append(HeadChoice(head, decode, model.lattice(decode)))
            elif standard is not None:
                readings.append(HeadChoice(head, decode, standard))
    return readings


def evaluate(
    model: PoseModel,
    detector: Detector | DetectorBoxes | None,
    truth: Truth,
    *,
    readings: Sequence[HeadChoice] | None = None,
    flip: bool = False,
    draws: int = 200,
) -> list[Measured]:
    """Measure a model on a split.

    Args:
        model: the joints that it shares with the split's, by name, are compared.
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
            model that has none of the split's joints.
    """
    truth = truth.asking(model.keypoints.names)
    truth = truth.with_people() if detector is None else truth.complete()
    readings = readings_of(model) if readings is None else readings
    elsewhere = detector if isinstance(detector, DetectorBoxes) else None
    predictor = Predictor(model, None if isinstance(detector, DetectorBoxes) else detector)
    people: dict[HeadChoice, People] = {reading: [] for reading in readings}
    seconds = dict.fromkeys(readings, 0.0)
    started = time.monotonic()
    for encoded in encoded_photos(predictor, truth, flip=flip, elsewhere=elsewhere):
        kept = predictor.answered(encoded)
        for reading in readings:
            begin = time.monotonic()
            sigma = model.calibration(reading.head) is not None
            poses = predictor.poses(encoded, replace(reading, sigma=sigma))
            # Read otherwise than by default, the head that decides still decides for itself.
            own = predictor.answered(encoded, poses) if reading.head == model.default_head else kept
            read = [Person(encoded.boxes[i], {reading.head: poses[i]}) for i in own]
            people[reading].append(named(read, model.keypoints, truth.keypoints))
            seconds[reading] += time.monotonic() - begin
    encoding = time.monotonic() - started - sum(seconds.values())
    measured = []
    for reading, found in people.items():
        errors = JointErrors.of(truth, found) if detector is None else None
        metrics, interval, by_threshold = compare(truth, found, errors, draws)
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
    for photo in track(truth.photos, truth.split, console=console, transient=True):
        image = read_image(photo.path)
        if elsewhere:
            boxes = elsewhere.by_image.get(photo.image_id, [])
            # As found by the predictor's own detector: the same person twice is answered once.
            yield replace(predictor.encode(image, boxes=boxes, flip=flip), detected=True)
        else:
            labelled = None if predictor.detector else [person.box for person in photo.people]
            yield predictor.encode(image, boxes=labelled, flip=flip)
