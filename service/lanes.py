"""Work that may share a batch: how it is run, in which sizes, and what it takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from service.costs import Cost

T = TypeVar("T")
R = TypeVar("R")

Plans = list[tuple[float, int]]
"""By how many wait, up to two full batches: seconds of the cheapest split, and a batch of it."""

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
        pauses: its work is long and calls `Device.pause` now and then, where others go first.
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
    _planned: tuple[tuple[int, int], Plans] = field(default=((-1, 0), []), init=False)

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
        return self._split_s(len(items)) * mean

    def share(self, item: T) -> float:
        """Seconds that an item adds to a full batch."""
        largest = self._largest
        return self.cost(largest * self.weigh(item)) / largest

    def first(self, waiting: int) -> int:
        """How many of `waiting` items go now: the largest batch of the split that costs least."""
        largest = self._largest
        if waiting > 2 * largest:
            return largest
        # The order of a split's batches is free: the largest first serves most, soonest.
        first, left, plans = 0, waiting, self._plans(largest)
        while left > 0:
            first = max(first, plans[left][1])
            left -= plans[left][1]
        return min(first, waiting)

    def _split_s(self, count: int) -> float:
        """Seconds of all batches of the cheapest split."""
        largest = self._largest
        over = max(0, count // largest - 1)
        return over * self.cost(largest) + self._plans(largest)[count - over * largest][0]

    def _plans(self, largest: int) -> Plans:
        # Another thread may learn, or run out of memory, meanwhile: everything is read once.
        known, plans = self._planned
        if known != (asked := (self.cost.version, largest)):
            costs = {size: self.cost(size) for size in self.buckets if size <= largest}
            plans = [(0.0, 0)]
            for count in range(1, 2 * largest + 1):
                fitting = [size for size in costs if size <= self.bucket(count)]
                plans.append(
                    min(
                        ((costs[size] + plans[max(0, count - size)][0], size) for size in fitting),
                        key=lambda plan: (plan[0], -plan[1]),
                    )
                )
            self._planned = asked, plans
        return plans

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
