"""The choices that a bundle's manifest makes, measured beside each other on `coco/dev`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from models.pose import PoseModel
from models.predictor import Predictor
from training.comparison import match_people
from training.evaluate import encoded_photos
from training.joint_errors import People
from training.metrics import bootstrap
from training.truth import Truth

Choice = tuple[str, str, str]
"""Head, decode, and the field of the head's part of the manifest that bears on it."""

CHOICES: dict[Choice, tuple[float, ...]] = {
    ("simcc", "expectation", "window"): (0.5, 1.0, 1.5, 2.0, 2.5, 3.0),
    ("heatmap", "dark", "blur"): (1, 3, 5, 7, 9, 11),
    ("nerpe", "gaussian", "resolution"): (32, 64, 128, 256),
    ("nerpe", "progressive", "resolution"): (64, 128, 256, 512, 1024),
}
"""With the values to try."""


@dataclass(frozen=True, slots=True)
class Trial:
    """AP, and its 95 % interval, with one value in the manifest."""

    head: str
    decode: str
    field: str
    value: float
    ap: float
    interval: tuple[float, float]


def sweep(
    model: PoseModel,
    truth: Truth,
    *,
    choices: Mapping[Choice, Sequence[float]] = CHOICES,
    draws: int = 200,
) -> list[Trial]:
    """Measure every value of every choice; boxes of the labels, no flip, all encoded once.

    Args:
        model: of the COCO keypoint set.
        truth: `coco/dev`, so that no choice is made on what is reported.
        choices: those of heads that the model does not have are passed over.
        draws: of the bootstrap.
    """
    truth = truth.with_people()
    # A manifest's values are those of its own decode.
    variants = [
        (
            (head, decode, field),
            value,
            Predictor(model.with_heads({head: {"decode": decode, field: value}})),
        )
        for (head, decode, field), values in choices.items()
        if head in model.heads
        for value in values
    ]
    people: list[People] = [[] for _ in variants]
    for encoded in encoded_photos(Predictor(model), truth, flip=False):
        for found, ((head, *_), _, predictor) in zip(people, variants, strict=True):
            found.append(predictor.read(encoded, [head]))
    trials = []
    for found, (choice, value, _) in zip(people, variants, strict=True):
        matches = match_people(truth, found)
        interval = bootstrap(matches.ap, matches.images, draws=draws)
        trials.append(Trial(*choice, value, matches.stats["AP"], interval))
    return trials
