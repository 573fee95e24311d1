"""The scheduler's lanes of what a server has loaded, and what their work costs at first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from models.arrays import namespace
from models.geometry import Box
from models.pose import PoseModel
from models.predictor import HeadChoice
from service.catalog import ServedDetector
from service.lanes import Lane
from service.work import (
    LATTICE,
    Crop,
    CropBatch,
    CropResult,
    FieldQuery,
    Pause,
    Photo,
    run_crops,
    run_field,
    run_photos,
)

_LARGEST_ON_CPU = 4
"""Crops or photos a batch. On a CPU more gain nothing, keep others waiting and take memory."""

_FIRST_LATTICES = (48, 96)
"""Samples along the longer side that are timed before the first request: NerPE's whole lattice."""

_FIRST_HEATMAPS = (64, 256)
"""The same of heatmaps."""

DetectorLane = Lane[Photo, tuple[Box, ...]]
FieldLane = Lane[FieldQuery, NDArray[np.float32]]


@dataclass(frozen=True, slots=True, eq=False)
class ModelLanes:
    """The lanes of one pose model.

    What evaluates NerPE's field on a whole lattice goes by itself and is weighed by its size:
    nobody's crop waits in a batch with it, and what it costs says nothing of the others.

    Attributes:
        plain: crops, each one's work 1 and its heads' shares.
        flipped: crops whose mirror images are encoded too.
        lattices: crops with a head that evaluates a whole lattice.
        fields: heatmaps, by head.
        exact: heatmaps of NerPE at every sample.
        shares: of each head, how much work it is beside the encoder's.
    """

    plain: Lane[Crop, CropResult]
    flipped: Lane[Crop, CropResult]
    lattices: Lane[Crop, CropResult]
    fields: Mapping[str, FieldLane]
    exact: FieldLane
    shares: dict[str, float]

    @classmethod
    def of(cls, model: PoseModel, count_crops: Callable[[int], None], pause: Pause) -> ModelLanes:
        """The lanes of a model.

        Args:
            model: loaded.
            count_crops: told how many crops went through the encoder.
            pause: the device's.
        """
        on_cpu = model.engine.device == "cpu"
        buckets = _buckets(model.manifest.input.largest_batch, on_cpu=on_cpu)
        shares: dict[str, float] = {}

        def prepare(items: Sequence[Crop], size: int) -> CropBatch:
            pixels = [item.pixels for item in items]
            xp = namespace(pixels[0])
            blank = [xp.zeros_like(pixels[0])] * (size - len(items))
            return CropBatch(items, xp.stack(pixels + blank))

        def run(batch: CropBatch) -> Sequence[CropResult | Exception]:
            count_crops(len(batch.items) * (1 + batch.items[0].flip))
            return run_crops(model, batch, pause)

        def weigh(crop: Crop) -> float:
            return 1 + sum(shares.get(choice.head, 0.0) for choice in crop.heads)

        def crops(name: str) -> Lane[Crop, CropResult]:
            return Lane(f"{model.name}/{name}", run, buckets, prepare, weigh)

        def fields(name: str) -> FieldLane:
            def run(items: Sequence[FieldQuery]) -> list[NDArray[np.float32] | Exception]:
                return [run_field(model, item, pause) for item in items]

            label = f"{model.name}/{name}"
            return Lane(label, run, weigh=lambda query: query.samples, pauses=True)

        return cls(
            crops("crops"),
            crops("flipped"),
            Lane(
                f"{model.name}/lattices", run, (1,), prepare, lambda crop: crop.queries, pauses=True
            ),
            {head: fields(f"{head} field") for head in model.heads},
            fields("exact field"),
            shares,
        )

    def of_crop(self, crop: Crop) -> Lane[Crop, CropResult]:
        """Where a crop belongs."""
        if crop.queries > LATTICE:
            return self.lattices
        return self.flipped if crop.flip else self.plain

    def of_field(self, head: str, *, exact: bool) -> FieldLane:
        """Where a heatmap belongs."""
        return self.exact if exact and head == "nerpe" else self.fields[head]


def detector_lane(served: ServedDetector) -> DetectorLane:
    """The lane of a detector: photos of different requests in one pass."""
    largest = 1 if served.bundle is None else served.bundle.detector.input.largest_batch
    buckets = _buckets(largest, on_cpu=served.detector.device == "cpu")
    return Lane(f"{served.name}/photos", partial(run_photos, served), buckets)


def warm_up(model: PoseModel, lanes: ModelLanes) -> None:
    """Run everything once, so that no request is the first, and learn what it takes.

    The largest batch comes first: the arena that it makes holds all others. On a GPU a new shape
    costs seconds, so every bucket has its turn.
    """
    spec = model.manifest.input
    heads = tuple(HeadChoice(head, model.decodes[head][0], None) for head in model.heads)
    photo, box = np.zeros((spec.height, spec.width, 3), np.uint8), Box(0, 0, *model.size)
    _, (pixels,) = model.cut(photo, [box])
    blank = Crop(pixels, heads)
    buckets = lanes.plain.buckets
    lanes.plain.trial([blank] * buckets[-1], learn=False)
    for head in heads:
        (result,) = lanes.plain.trial([replace(blank, heads=(head,))], learn=False)
        if isinstance(result, CropResult):
            lanes.shares[head.head] = result.times.head_s / max(1e-9, result.times.encode_s)
    sizes = (buckets[-1], 1) if model.engine.device == "cpu" else buckets[::-1]
    for size in sizes:
        lanes.plain.trial([blank] * size)
    (result,) = lanes.flipped.trial([replace(blank, heads=heads[:1], flip=True)])
    if "nerpe" in model.heads:
        for resolution in _FIRST_LATTICES:
            choice = HeadChoice("nerpe", "standard", resolution)
            lanes.lattices.trial([replace(blank, heads=(choice,))])
    if not isinstance(result, CropResult):
        return
    for resolution in _FIRST_HEATMAPS:
        columns, rows = (
            np.linspace(0, side - 1, round(resolution * side / max(model.size)))
            for side in model.size
        )
        for name in model.heads:
            lattice = FieldQuery(result.features, name, columns, rows, (0,), False, False)
            lanes.fields[name].trial([lattice])
            if name == "nerpe" and resolution == _FIRST_HEATMAPS[0]:
                lanes.exact.trial([replace(lattice, exact=True)])


def warm_up_detector(lane: DetectorLane) -> None:
    """Run it once at each size that it has, and learn what that takes."""
    photo = Photo(np.zeros((480, 640, 3), np.uint8))
    for size in lane.buckets[::-1]:
        lane.trial([photo] * size, learn=False)
        lane.trial([photo] * size)


def _buckets(largest: int, *, on_cpu: bool) -> tuple[int, ...]:
    if on_cpu:  # any size is as good as another
        return tuple(range(1, min(largest, _LARGEST_ON_CPU) + 1))
    return tuple(1 << power for power in range(largest.bit_length()))
