"""What the device is asked to do: crops to joints and features, kept features to heatmaps."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from models.codecs.decoded import Decoded
from models.pose import Features, PoseModel
from service.problems import EngineFailed
from service.scheduler import Lane

LARGEST_ON_CPU = 8
"""Crops a batch. A CPU is no faster with more, and its memory grows with every one."""

SAMPLES_A_BAND = 1 << 18
"""Of a heatmap, evaluated without a break."""

PART = 1 << 13
"""Positions of NerPE's field: the unit that lattices are weighed in."""

Check = Callable[[], None]
"""Called between parts of long work; raises once nobody waits for it any more."""


@dataclass(frozen=True, slots=True)
class HeadChoice:
    """One head and how its field is decoded."""

    head: str
    decode: str
    resolution: int | None
    """Of NerPE's lattice, as it will be used."""
    sigma: bool = False
    """Also how far off each joint may be."""

    @property
    def parts(self) -> float:
        """Into how many parts its positions are evaluated, where it is a whole lattice of them."""
        return (self.resolution or 0) ** 2 / PART if self.decode == "standard" else 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Crop:
    """An item of the encoder."""

    pixels: NDArray[np.uint8]
    """(H, W, 3) RGB"""
    heads: tuple[HeadChoice, ...]
    flip: bool = False
    """The same for all of a lane."""

    @property
    def parts(self) -> float:
        """Of its lattices; how long they take outweighs all else."""
        return sum(choice.parts for choice in self.heads) * (1 + self.flip)


@dataclass(frozen=True, slots=True, eq=False)
class BatchTimes:
    """Shared by all items of one batch."""

    encode_s: float
    head_s: float


@dataclass(frozen=True, slots=True, eq=False)
class CropResult:
    """A crop's features (of one crop) and its joints (B = 1) by head."""

    features: Features
    decoded: dict[str, Decoded]
    times: BatchTimes


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
    def parts(self) -> float:
        """Into how many parts its samples are evaluated, and one for the head itself."""
        samples = len(self.columns) * len(self.rows)
        # Refined, NerPE takes about as many positions whatever the pitch.
        refined = self.head == "nerpe" and not self.exact
        return 1 + (min(samples, PART) if refined else samples) / PART

    def bands(self) -> Iterator[FieldQuery]:
        """The same in bands of rows, none of which takes the device for long."""
        height = max(1, SAMPLES_A_BAND // len(self.columns))
        for first in range(0, len(self.rows), height):
            yield replace(self, rows=self.rows[first : first + height])


@dataclass(frozen=True, slots=True, eq=False)
class ModelLanes:
    """The scheduler's lanes of one pose model.

    What evaluates NerPE's field on a whole lattice goes by itself and is weighed by its size:
    nobody's crop waits in a batch with it, and what it costs says nothing of the others.
    """

    plain: Lane[Crop, CropResult]
    flipped: Lane[Crop, CropResult]
    lattices: Lane[Crop, CropResult]
    fields: Lane[FieldQuery, NDArray[np.float32]]
    exact: Lane[FieldQuery, NDArray[np.float32]]

    @classmethod
    def of(cls, model: PoseModel, count_crops: Callable[[int], None], check: Check) -> ModelLanes:
        """The lanes of a model.

        Args:
            model: loaded.
            count_crops: told how many crops went through the encoder.
            check: the scheduler's.
        """
        largest = model.manifest.input.largest_batch
        if model.engine.device == "cpu":
            largest = min(largest, LARGEST_ON_CPU)
        # Powers of two: few shapes, all of which the warm-up has run.
        buckets = tuple(1 << power for power in range(largest.bit_length()))

        def crops(items: Sequence[Crop]) -> Sequence[CropResult | Exception]:
            count_crops(len(items) * (1 + items[0].flip))
            return _run_crops(model, items, check)

        def fields(items: Sequence[FieldQuery]) -> Sequence[NDArray[np.float32] | Exception]:
            return [_run_field(model, item, check) for item in items]

        return cls(
            Lane(f"{model.name}/crops", crops, buckets),
            Lane(f"{model.name}/flipped", crops, buckets),
            Lane(f"{model.name}/lattices", crops, weigh=lambda crop: crop.parts),
            Lane(f"{model.name}/fields", fields, weigh=lambda query: query.parts),
            Lane(f"{model.name}/exact", fields, weigh=lambda query: query.parts),
        )

    def of_crop(self, crop: Crop) -> Lane[Crop, CropResult]:
        """Where a crop belongs."""
        if crop.parts > 1:
            return self.lattices
        return self.flipped if crop.flip else self.plain

    def of_field(self, query: FieldQuery) -> Lane[FieldQuery, NDArray[np.float32]]:
        """Where a heatmap belongs."""
        return self.exact if query.exact and query.head == "nerpe" else self.fields


def warm_up(model: PoseModel, lanes: ModelLanes) -> None:
    """Run every head once; on a GPU at every batch size, for a new shape costs seconds there.

    The largest comes first: the arena that it makes holds all others. What a lattice costs is
    measured, so that the first one is already known to be long.
    """
    heads = tuple(HeadChoice(head, model.decodes[head][0], None) for head in model.heads)
    manifest = model.manifest.input
    blank = Crop(np.zeros((manifest.height, manifest.width, 3), np.uint8), heads)
    buckets = (1,) if model.engine.device == "cpu" else lanes.plain.buckets
    for bucket in reversed(buckets):
        _run_crops(model, [blank] * bucket)
    side = np.arange(max(manifest.width, manifest.height), dtype=np.float64)
    features = model.encode(blank.pixels[None])
    for head in model.heads:
        _run_field(model, FieldQuery(features, head, side, side, None, True, False), lambda: None)
    if "nerpe" in model.heads:
        lattice = replace(blank, heads=(HeadChoice("nerpe", "standard", 128),))
        began = time.monotonic()
        _run_crops(model, [lattice])
        lanes.lattices.learn(time.monotonic() - began, [lattice])


def _run_crops(
    model: PoseModel, items: Sequence[Crop], check: Check = lambda: None
) -> Sequence[CropResult | Exception]:
    """One encoder pass for the batch, then each head once for the items that asked for it."""
    began = time.monotonic()
    features = model.encode(np.stack([item.pixels for item in items]), flip=items[0].flip)
    encoded = time.monotonic()
    rows = [features[index : index + 1] for index in range(len(items))]
    decoded: list[dict[str, Decoded]] = [{} for _ in items]
    for choice in dict.fromkeys(choice for item in items for choice in item.heads):
        asked = [index for index, item in enumerate(items) if choice in item.heads]
        batch = features if len(asked) == len(items) else Features.stack([rows[i] for i in asked])
        answer = model.decode(
            batch, choice.head, choice.decode, choice.resolution, sigma=choice.sigma, check=check
        )
        for row, index in enumerate(asked):
            decoded[index][choice.head] = answer[row : row + 1]
    times = BatchTimes(encoded - began, time.monotonic() - encoded)
    return [
        CropResult(row, {choice.head: own[choice.head] for choice in item.heads}, times)
        if _finite(row, own)
        else EngineFailed("the engine gave numbers that are not finite for this person")
        for item, row, own in zip(items, rows, decoded, strict=True)
    ]


def _run_field(model: PoseModel, item: FieldQuery, check: Check) -> NDArray[np.float32] | Exception:
    (values,) = model.field(
        item.features,
        item.head,
        item.columns,
        item.rows,
        keypoints=item.keypoints,
        exact=item.exact,
        check=check,
    )
    if not np.isfinite(values).all():
        return EngineFailed("the engine gave numbers that are not finite for this heatmap")
    return np.asarray(values.max(axis=0, keepdims=True) if item.merged else values)


def _finite(features: Features, decoded: dict[str, Decoded]) -> bool:
    arrays = [features.plain] if features.mirrored is None else [features.plain, features.mirrored]
    for answer in decoded.values():
        arrays += [answer.points, answer.scores]
        arrays += [] if answer.sigmas is None else [answer.sigmas]
    return all(bool(np.isfinite(array).all()) for array in arrays)
