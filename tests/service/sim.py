"""A scheduler on a clock that only moves when told, and a device that takes as long as it says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager

from service.lanes import Lane
from service.line import Done, Visit
from service.problems import EngineFailed
from service.scheduler import Scheduler

FAR = 1e9
BASE_S, EACH_S = 0.004, 0.001


class Sim:
    """Squares numbers, in one thread: the test's own.

    Attributes:
        bad: numbers that make their batch fail.
        odd: numbers whose results are not finite.
        room: items that fit into the device's memory.
        during: called in the middle of every batch.
    """

    def __init__(self, capacity: int = 1000) -> None:
        self.now = 0.0
        self.batches: list[list[int]] = []
        self.bad: set[int] = set()
        self.odd: set[int] = set()
        self.room = 1000
        self.during: Callable[[], None] = lambda: None
        self.scheduler = Scheduler(capacity, clock=lambda: self.now)
        self.stack = ExitStack()

    def lane(
        self,
        name: str = "squares",
        buckets: tuple[int, ...] = (1, 2, 4, 8),
        prepare: Callable[[Sequence[int], int], list[int]] | None = None,
    ) -> Lane[int, int]:
        made = Lane(name, self.run, buckets, prepare)
        for size in (1, buckets[-1]):
            made.cost.learn(size, BASE_S + EACH_S * size)
        return made

    def long_lane(self, part_s: float = 0.05) -> Lane[int, int]:
        """Numbers that take as many parts as they say."""

        def run(items: Sequence[int]) -> list[int]:
            (parts,) = items
            self.batches.append([parts])
            for _ in range(parts):
                self.scheduler.device.pause()
                self.now += part_s
                self.during()
            return [parts * parts]

        made: Lane[int, int] = Lane("long", run, weigh=lambda parts: float(parts), pauses=True)
        made.cost.learn(1, part_s)
        made.cost.learn(10, 10 * part_s)
        return made

    def run(self, items: Sequence[int]) -> list[int | Exception]:
        self.batches.append(list(items))
        self.now += BASE_S + EACH_S * len(items)
        self.during()
        if len(items) > self.room:
            raise MemoryError
        if self.bad & set(items):
            raise RuntimeError("a bad number")
        return [EngineFailed("not finite") if n in self.odd else n * n for n in items]

    def visit(self, deadline: float = FAR, seconds: float = 0.0) -> Visit:
        return self.stack.enter_context(self.scheduler.admit(deadline, seconds))

    def ask(self, lane: Lane[int, int], *items: int, deadline: float = FAR) -> Future[Done[int]]:
        """A request of its own."""
        return self.scheduler.submit(self.visit(deadline), lane, items)

    def work(self) -> None:
        """Until nothing waits."""
        while self.scheduler.waiting:
            self.scheduler.device.step()


@contextmanager
def threaded(scheduler: Scheduler, *, at_once: int = 1, ahead: bool = False) -> Iterator[Scheduler]:
    """With its threads."""
    scheduler.device.start(at_once=at_once, ahead=ahead)
    try:
        yield scheduler
    finally:
        scheduler.close(30)
