"""A system's figures, taken of its bundle through the product's own path."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from models.pose import PoseModel
from models.predictor import HeadChoice, Predictor
from training.data.images import read_image
from training.evaluate import encoded_photos, evaluate
from training.joint_errors import JointErrors, People
from training.study.config import Study, System
from training.study.results import Cost, Row
from training.truth import Truth

T = TypeVar("T")

REPEATS = 2
"""Of every timing; the fastest counts."""


def measure(study: Study, system: System, model: PoseModel, truth: Truth) -> list[Row]:
    """Each way to read the system, on the labels' boxes of a split, without flip."""
    rows = []
    for measured in evaluate(model, None, truth, readings=study.readings(system.head)):
        figures, errors = measured.figures, JointErrors.of(truth, measured.people).relative
        rows.append(
            Row(
                decode=figures.decode,
                resolution=figures.resolution,
                ap=figures.metrics["AP"],
                ap50=figures.metrics["AP50"],
                pck05=float((errors <= 0.05).mean()),
                pck10=float((errors <= 0.1).mean()),
                error=figures.metrics["error_median"],
            )
        )
    return rows


def costs(study: Study, system: System, model: PoseModel, truth: Truth) -> list[Cost]:
    """What each resolution buys, and how long it takes in units of the encoder's pass.

    A ratio of two times of one process' own work, so that what else the machine does hardly counts.
    """
    truth = truth.of([photo for photo in truth.photos if photo.people][: study.swept_photos])
    predictor = Predictor(model)
    encoded = list(encoded_photos(predictor, truth, flip=False))
    crops = [
        model.cut(read_image(photo.path), [person.box for person in photo.people])[1]
        for photo in truth.photos
    ]
    _, encoding = _timed(lambda: [model.encode(np.stack(part)) for part in crops])
    result = []
    for reading in study.swept_readings(system.head):

        def read(reading: HeadChoice = reading) -> People:
            return [predictor.read(photo, [reading]) for photo in encoded]

        people, seconds = _timed(read)
        errors = JointErrors.of(truth, people).relative
        result.append(
            Cost(
                decode=reading.decode,
                resolution=reading.resolution,
                relative=seconds / encoding,
                pck05=float((errors <= 0.05).mean()),
                error=float(errors.mean()),
            )
        )
    return result


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    """Its result, and seconds of the processor: the fastest of `REPEATS`."""
    times = []
    for _ in range(REPEATS):
        begin = time.process_time()
        result = work()
        times.append(time.process_time() - begin)
    return result, min(times)
