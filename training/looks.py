"""Which part of a photo the augmented crops of a person can show."""

from __future__ import annotations

import numpy as np

from models.geometry import CropGeometry, Size
from models.keypoints import COCO17
from models.strict import Strict
from training.config import Experiment
from training.data.annotations import LabelledPerson
from training.data.examples import half_body

MARGIN = 3
"""Pixels around what is shown: interpolation reads a neighbour."""


class Looks(Strict):
    """Which crops a pack was made for: these, and closer ones.

    Attributes:
        size: of the crops (width, height).
        scale: the augmentation's; likewise the rest.
        shift: likewise.
        half_body: whether there are any.
    """

    size: Size
    scale: float
    shift: float
    half_body: bool

    @classmethod
    def of(cls, experiment: Experiment) -> Looks:
        """What an experiment asks for."""
        how = experiment.augmentation
        return cls(
            size=experiment.shape.size,
            scale=how.scale,
            shift=how.shift,
            half_body=how.half_body > 0,
        )

    def cover(self, other: Looks) -> bool:
        """Whether a pack for these crops has all that the others show, as sharp as they need."""
        (width, height), (other_width, other_height) = self.size, other.size
        return (
            width * other_height == height * other_width
            and other_width <= width
            and other.scale <= self.scale
            and other.shift <= self.shift
            and other.half_body <= self.half_body
        )

    def part(self, person: LabelledPerson, photo: Size) -> CropGeometry:
        """What they show of a person: whole pixels of the photo, and how they are packed.

        Pixels are reduced by a power of two where even the closest look has more than it needs.
        """
        halves = [half_body(person, COCO17, lower=lower) for lower in (False, True)]
        boxes = [person.box, *(box for box in halves if box and self.half_body)]
        aspect = self.size[0] / self.size[1]
        low, high = np.full(2, np.inf), np.full(2, -np.inf)
        for box in boxes:
            widest = box.padded(aspect, 1.25 * (1 + self.scale))
            # Turned by any angle, and pushed aside.
            reach = np.hypot(widest.width, widest.height) / 2
            reach += self.shift * max(box.width, box.height) + MARGIN
            low = np.minimum(low, np.array(box.center) - reach)
            high = np.maximum(high, np.array(box.center) + reach)
        closest = min(box.padded(aspect, 1.25 * (1 - self.scale)).width for box in boxes)
        factor = 1
        while 2 * factor <= closest / self.size[0]:
            factor *= 2
        first = np.floor(np.clip(low, 0, None) / factor).astype(int)
        last = np.ceil(np.clip(high, None, photo) / factor).astype(int)
        width, height = np.maximum(last - first, 1)
        # A packed pixel's centre is in the middle of the photo's that it stands for.
        offset = -first - (factor - 1) / 2 / factor
        matrix = np.column_stack([np.eye(2) / factor, offset])
        return CropGeometry(matrix, int(width), int(height))
