"""What is wanted of a photo, and what was seen in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from models.features import Features
from models.geometry import Box, CropGeometry, Size
from models.pose import PoseModel
from models.predictor import HeadChoice, Person
from service.catalog import ServedDetector
from service.problems import Problem

MAX_PEOPLE = 20
"""Of a photo, where the caller has no wish."""


@dataclass(frozen=True, slots=True)
class Task:
    """What is wanted of a photo, every default filled in.

    Attributes:
        model: the pose model.
        detector: used where there are no boxes.
        boxes: the caller's own; all are answered, in this order.
        heads: that are answered.
        judge: the head that decides which people are the same, and their order.
        max_people: of the detector's boxes.
        min_box_score: instead of the detector's own.
        flip: average with the mirrored crop.
        picture: the photo is wanted back, with skeletons.
        check_size: told the photo's (width, height), from its header; may refuse it.
    """

    model: PoseModel
    detector: ServedDetector
    boxes: tuple[Box, ...] | None
    heads: tuple[HeadChoice, ...]
    judge: HeadChoice
    max_people: int
    min_box_score: float | None
    flip: bool
    picture: bool
    check_size: Callable[[Size], None]

    @property
    def decoded(self) -> tuple[HeadChoice, ...]:
        """The heads that are run: the judge too, where there is something to decide."""
        known = self.boxes is not None or self.judge.head in (one.head for one in self.heads)
        return self.heads if known else (*self.heads, self.judge)


@dataclass(frozen=True, slots=True, eq=False)
class SeenPerson:
    """A person of a photo, or what kept the crop from being one.

    Attributes:
        box: in the photo.
        geometry: of the crop.
        result: the box with its poses, or the crop's own problem.
        features: of the crop; None where it failed.
    """

    box: Box
    geometry: CropGeometry
    result: Person | Problem
    features: Features | None


@dataclass(frozen=True, slots=True, eq=False)
class SeenPhoto:
    """A photo's answer.

    Attributes:
        width: px.
        height: px.
        people: in the order of the caller's boxes, else best first.
        picture: a png with skeletons, where the task wanted it.
    """

    width: int
    height: int
    people: tuple[SeenPerson, ...]
    picture: bytes | None
