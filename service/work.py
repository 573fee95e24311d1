"""What the device is asked to do: photos to boxes, crops to joints and features, heatmaps."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.arrays import Array
from models.codecs.decoded import Decoded
from models.features import Features
from models.geometry import Box
from models.pose import PoseModel
from models.predictor import HeadChoice
from service.catalog import ServedDetector
from service.problems import EngineFailed

SAMPLES_A_BAND = 1 << 17
"""Of a heatmap that are held at once for each of its joints."""

LATTICE = 1 << 13
"""Positions of NerPE's field beyond which a crop has no place in a batch with others."""

Image = NDArray[np.uint8]
Pause = Callable[[], None]
"""Called between parts of long work; raises once nobody waits for it any more."""


@dataclass(frozen=True, slots=True, eq=False)
class Crop:
    """An item of the encoder."""

    pixels: Array
    """(H, W, 3) RGB, as the engine cut it"""
    heads: tuple[HeadChoice, ...]
    flip: bool = False
    """The same for all of a lane."""

    @property
    def queries(self) -> float:
        """Of its heads' lattices, whose time outweighs all else."""
        return sum(choice.queries for choice in self.heads) * (1 + self.flip)


@dataclass(frozen=True, slots=True, eq=False)
class BatchTimes:
    """Moments of one batch, shared by all its items: monotonic seconds."""

    began: float
    encoded: float
    ended: float

    @property
    def encode_s(self) -> float:
        """Seconds of the encoder."""
        return self.encoded - self.began

    @property
    def head_s(self) -> float:
        """Seconds of the heads."""
        return self.ended - self.encoded


@dataclass(frozen=True, slots=True, eq=False)
class CropResult:
    """A crop's features (of one crop) and its joints (B = 1) by head."""

    features: Features
    decoded: dict[str, Decoded]
    times: BatchTimes


class CropBatch(NamedTuple):
    """Crops stacked for the encoder, filled up with blank ones."""

    items: Sequence[Crop]
    pixels: Array


@dataclass(frozen=True, slots=True, eq=False)
class Photo:
    """An item of a detector."""

    pixels: Image
    min_box_score: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class FieldQuery:
    """An item that needs no encoder.

    Attributes:
        features: of one crop.
        head: that answers.
        columns: crop px of the samples, ascending.
        rows: crop px of the samples, ascending.
        keypoints: indices, or None for all.
        merged: their maximum rather than each.
        exact: evaluate every sample.
    """

    features: Features
    head: str
    columns: NDArray[np.float64]
    rows: NDArray[np.float64]
    keypoints: tuple[int, ...] | None
    merged: bool
    exact: bool

    @property
    def samples(self) -> float:
        """Of its lattice."""
        return len(self.columns) * len(self.rows)

    def bands(self) -> list[slice]:
        """Its rows, in parts none of which takes much memory."""
        height = max(1, SAMPLES_A_BAND // len(self.columns))
        return [slice(first, first + height) for first in range(0, len(self.rows), height)]


def run_photos(served: ServedDetector, photos: Sequence[Photo]) -> list[tuple[Box, ...]]:
    """One pass for all that share a threshold; people of each, best box scores first."""
    by_threshold: defaultdict[float | None, list[int]] = defaultdict(list)
    for index, photo in enumerate(photos):
        by_threshold[photo.min_box_score].append(index)
    found: list[tuple[Box, ...]] = [()] * len(photos)
    for threshold, indices in by_threshold.items():
        images = [photos[index].pixels for index in indices]
        boxes = served.detector.detect(images, min_box_score=threshold)
        for index, own in zip(indices, boxes, strict=True):
            found[index] = tuple(own)
    return found


def run_crops(
    model: PoseModel, batch: CropBatch, pause: Pause = lambda: None
) -> Sequence[CropResult | Exception]:
    """One encoder pass for the batch, then each head once for the items that asked for it."""
    items = batch.items
    began = time.monotonic()
    features = model.encode(batch.pixels, flip=items[0].flip)[: len(items)]
    # One answer for all, which a GPU gives once it is done: what comes after it is the heads' time.
    sound = features.finite
    encoded = time.monotonic()
    rows = [features[index : index + 1] for index in range(len(items))]
    decoded: list[dict[str, Decoded]] = [{} for _ in items]
    for choice in dict.fromkeys(choice for item in items for choice in item.heads):
        asked = [index for index, item in enumerate(items) if choice in item.heads]
        some = features if len(asked) == len(items) else Features.stack([rows[i] for i in asked])
        answer = model.decode(
            some, choice.head, choice.decode, choice.resolution, sigma=choice.sigma, check=pause
        )
        for row, index in enumerate(asked):
            decoded[index][choice.head] = answer[row : row + 1]
    times = BatchTimes(began, encoded, time.monotonic())
    return [
        CropResult(row, {choice.head: own[choice.head] for choice in item.heads}, times)
        if whole and _finite(own)
        else EngineFailed("the engine gave numbers that are not finite for this person")
        for item, row, own, whole in zip(items, rows, decoded, sound, strict=True)
    ]


def run_field(
    model: PoseModel, query: FieldQuery, pause: Pause = lambda: None
) -> NDArray[np.float32] | Exception:
    """(channels, rows, columns), made band by band: of all joints only a band is ever held."""
    joints = len(model.keypoints) if query.keypoints is None else len(query.keypoints)
    shape = 1 if query.merged else joints, len(query.rows), len(query.columns)
    values = np.empty(shape, np.float32)
    draw = model.sampler(
        query.features, query.head, keypoints=query.keypoints, exact=query.exact, check=pause
    )
    for band in query.bands():
        pause()
        (part,) = draw(query.columns, query.rows[band])
        values[:, band] = part.max(axis=0, keepdims=True) if query.merged else part
    if not np.isfinite(values).all():
        return EngineFailed("the engine gave numbers that are not finite for this heatmap")
    return values


def _finite(decoded: dict[str, Decoded]) -> bool:
    arrays = []
    for answer in decoded.values():
        arrays += [answer.points, answer.scores]
        arrays += [] if answer.sigmas is None else [answer.sigmas]
    return all(bool(np.isfinite(array).all()) for array in arrays)
