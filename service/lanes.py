"""Work that may share a batch: how it is run, in which sizes, and what it takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from service.costs import Cost

T = TypeVar("T")
R = TypeVar("R")

RECOVER_S = 30.0
"""After memory ran out: until the next larger batch is tried again."""


def _one(item: object) -> float:
    return 1.0


@dataclass(eq=False)
class Lane(Generic[T, R]):
    """Items that one pass of the device can take together.

    Attributes:
        name: for metrics.
        run: a batch, as `prepare` made it, to its results in order. A result that is an exception
            fails its item alone; raising fails the batch, which is then halved.
        buckets: batch sizes, ascending from 1.
        prepare: what the host does to a batch before the device can have it, told the bucket to
            fill up to.
        weigh: how much work an item is, in a unit of the lane's own.
        pauses: its work is long and calls `Scheduler.pause` now and then, where others go first.
        cost: seconds of a batch on the device, by its work.
        preparing: seconds of preparing a batch, by its size.
    """

    name: str
    run: Callable[[Any], Sequence[R | Exception]]
    buckets: tuple[int, ...] = (1,)
    prepare: Callable[[Sequence[T], int], Any] | None = None
    weigh: Callable[[T], float] = _one
    pauses: bool = False
    cost: Cost = field(default_factory=Cost)
    preparing: Cost = field(default_factory=Cost)
    _largest: int = field(default=0, init=False)
    _shrunk_at: float = field(default=0.0, init=False)
    _plans: dict[tuple[int, int, int], tuple[int, float]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._largest = self.buckets[-1]

    @property
    def largest(self) -> int:
        """The largest batch at present."""
        return self._largest

    def bucket(self, count: int) -> int:
        """The batch size that `count` items fill up to."""
        return next((size for size in self.buckets if size >= count), count)

    def work(self, items: Sequence[T]) -> float:
        """Of a batch, with what it is filled up with."""
        return sum(map(self.weigh, items)) * self.bucket(len(items)) / len(items)

    def seconds(self, items: Sequence[T]) -> float:
        """What a request's items take if nobody shares their batches."""
        if not items:
            return 0.0
        mean = sum(map(self.weigh, items)) / len(items)
        if len(self.buckets) == 1:
            return len(items) * self.cost(mean)
        return self._plan(len(items))[1] * mean

    def share(self, item: T) -> float:
        """Seconds that an item adds to a full batch."""
        return self.cost(self._largest * self.weigh(item)) / self._largest

    def first(self, waiting: int) -> int:
        """How many of `waiting` items go now: the largest batch of the split that costs least."""
        return min(waiting, self._plan(waiting)[0])

    def _plan(self, waiting: int) -> tuple[int, float]:
        """The first batch of the cheapest split, and the seconds of all its batches."""
        if waiting > 2 * self._largest:
            full, rest = divmod(waiting, self._largest)
            seconds = full * self.cost(self._largest) + (self._plan(rest)[1] if rest else 0.0)
            return self._largest, seconds
        key = waiting, self._largest, self.cost.version
        if key not in self._plans:
            if len(self._plans) > 4 * self.buckets[-1]:
                self._plans.clear()
            self._plans[key] = self._cheapest(waiting)
        return self._plans[key]

    def _cheapest(self, waiting: int) -> tuple[int, float]:
        sizes = [size for size in self.buckets if size <= self._largest]
        best = [(0, 0.0)]
        for count in range(1, waiting + 1):
            options = (
                (self.cost(size) + best[max(0, count - size)][1], -size)
                for size in sizes
                if size <= self.bucket(count)
            )
            seconds, size = min(options)
            best.append((-size, seconds))
        # The order of a split's batches is free: the largest first serves most, soonest.
        first, left = 0, waiting
        while left > 0:
            first = max(first, best[left][0])
            left -= best[left][0]
        return first, best[waiting][1]

    def inputs(self, items: Sequence[T]) -> Any:  # noqa: ANN401
        """What `run` takes."""
        if self.prepare is None:
            return items
        began = time.monotonic()
        made = self.prepare(items, self.bucket(len(items)))
        self.preparing.learn(len(items), time.monotonic() - began)
        return made

    def trial(self, items: Sequence[T], *, learn: bool = True) -> Sequence[R | Exception]:
        """Run a batch before there is a scheduler, to warm up and to learn what it takes."""
        inputs, began = self.inputs(items), time.monotonic()
        results = self.run(inputs)
        if learn:
            self.cost.learn(self.work(items), time.monotonic() - began)
        return results

    def shrink(self, count: int, now: float) -> None:
        """Memory ran out with so many items: keep below for a while."""
        self._largest = max((size for size in self.buckets if size < count), default=1)
        self._shrunk_at = now

    def recover(self, now: float) -> None:
        """Try a larger batch again, once some time has passed since memory ran out."""
        if self._largest < self.buckets[-1] and now - self._shrunk_at >= RECOVER_S:
            self._largest = min(size for size in self.buckets if size > self._largest)
            self._shrunk_at = now
