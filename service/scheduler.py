"""Items of many requests -> batches -> each caller its own answer.

One thread owns the device. It is eager: whatever waits when the device is free goes at once, in
the order it came, as many of one lane as the largest bucket takes. An item that makes its batch
fail is found by halving, and fails alone. Long work asks now and then whether anybody still waits
for it. Nothing here knows what an item is.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from service.problems import DeadlineExceeded, Draining, EngineFailed, Overloaded, Problem

logger = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")

_SMOOTHING = 0.2
"""Weight of the newest batch in a lane's mean cost."""


@dataclass(eq=False)
class Lane(Generic[T, R]):
    """Items that may share a batch.

    Attributes:
        name: for metrics.
        run: a batch of items to their results, in order. A result that is an exception fails its
            item alone; raising fails the batch, which is then halved.
        buckets: batch sizes, ascending from 1; a batch is the largest that enough items wait for.
        weigh: how much work an item is, in a unit of the lane's own.
        seconds_per_weight: measured.
    """

    name: str
    run: Callable[[Sequence[T]], Sequence[R | Exception]]
    buckets: tuple[int, ...] = (1,)
    weigh: Callable[[T], float] = lambda item: 1.0
    seconds_per_weight: float = 0.0

    def bucket(self, waiting: int) -> int:
        """How many of `waiting` items go now."""
        return max(size for size in self.buckets if size <= waiting)

    def cost(self, items: Sequence[T]) -> float:
        """Seconds that items are going to take."""
        return self.seconds_per_weight * sum(map(self.weigh, items))

    def learn(self, seconds: float, items: Sequence[T]) -> None:
        """Take a batch into the mean cost."""
        cost = seconds / sum(map(self.weigh, items))
        known = self.seconds_per_weight
        self.seconds_per_weight = known + _SMOOTHING * (cost - known) if known else cost


@dataclass(frozen=True, slots=True)
class Outcome(Generic[R]):
    """What an item comes back with."""

    value: R
    waited_s: float
    """From submission until its batch began."""


@dataclass(eq=False, slots=True)
class _Item:
    lane: Lane[Any, Any]
    payload: Any
    deadline: float
    submitted: float
    future: Future[Outcome[Any]] = field(default_factory=Future)

    @property
    def cost(self) -> float:
        return self.lane.cost([self.payload])

    def wanted(self, now: float) -> bool:
        """Whether somebody waits for it, in time."""
        return not self.future.done() and now < self.deadline

    def settle(self, answer: Outcome[Any] | Exception) -> None:
        """Answer, unless that has been done or nobody waits any more."""
        if self.future.done() or not self.future.set_running_or_notify_cancel():
            return
        if isinstance(answer, Exception):
            self.future.set_exception(answer)
        else:
            self.future.set_result(answer)


class Scheduler:
    """The queue of one device and the thread that empties it.

    Args:
        capacity: items that may wait; more are refused, except that a lone request always fits.
        on_batch: told of every batch: the lane's name, its size, its seconds.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        capacity: int,
        *,
        on_batch: Callable[[str, int, float], None] = lambda name, items, seconds: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._capacity = capacity
        self._on_batch = on_batch
        self._clock = clock
        self._queue: deque[_Item] = deque()
        self._running: Sequence[_Item] = ()
        self._began = 0.0
        self._wake = threading.Condition()
        self._closing = False
        self._beat = clock()
        self._thread = threading.Thread(target=self._serve, name="device", daemon=True)

    def start(self) -> None:
        """Begin to run what is submitted."""
        self._thread.start()

    def close(self) -> None:
        """Refuse what comes from now on, run what waits, end the thread."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def waiting(self) -> int:
        """Items in the queue that somebody still waits for."""
        with self._wake:
            return self._waiting()

    def _waiting(self) -> int:
        return sum(not item.future.cancelled() for item in self._queue)

    def silence(self) -> float:
        """Seconds since the thread last came back from the device; infinite where it died."""
        return self._clock() - self._beat if self._thread.is_alive() else float("inf")

    def predicted_wait(self) -> float:
        """Seconds until an item submitted now would run, from measured costs."""
        with self._wake:
            return self._predicted_wait()

    def _predicted_wait(self) -> float:
        now = self._clock()
        running = sum(item.cost for item in self._running if item.wanted(now))
        queued = sum(item.cost for item in self._queue if item.wanted(now))
        return max(0.0, running - (now - self._began)) + queued

    def check(self) -> None:
        """For long work on the device, between its parts: is it still wanted?

        Raises:
            DeadlineExceeded: nobody waits any more for any item of the batch.
        """
        now = self._clock()
        if not any(item.wanted(now) for item in self._running):
            raise DeadlineExceeded("its deadline passed on the device; the work was dropped")

    def admit(self, deadline: float, items: int = 1) -> None:
        """Refuse at once what could not be run in time.

        Args:
            deadline: on the scheduler's clock.
            items: how many would be submitted.

        Raises:
            Overloaded: the queue is full, or its predicted wait is longer than the deadline.
            DeadlineExceeded: it has passed.
            Draining: closed.
        """
        with self._wake:
            self._admit(deadline, items)

    def _admit(self, deadline: float, items: int, cost: float = 0.0) -> None:
        if self._closing:
            raise Draining("the server is shutting down; ask another replica")
        left = deadline - self._clock()
        if left <= 0:
            raise DeadlineExceeded("the deadline passed before the device was asked")
        wait = self._predicted_wait()
        waiting = self._waiting()
        if waiting and waiting + items > self._capacity:
            raise Overloaded(
                f"{waiting} crops wait for the device and at most {self._capacity} may; "
                "try again later",
                retry_after=wait,
            )
        # On an idle device everything is tried: else a wrong estimate would never be righted.
        if wait and wait + cost > left:
            raise Overloaded(
                f"the queue takes about {wait * 1000:.0f} ms, this request {cost * 1000:.0f} ms, "
                f"and the deadline is in {left * 1000:.0f} ms; try again later or allow more",
                retry_after=min(wait, wait + cost - left),
            )

    def submit(
        self, lane: Lane[T, R], payloads: Sequence[T], deadline: float
    ) -> list[Future[Outcome[R]]]:
        """Queue the items of one request, all or none.

        A future that its caller cancels takes its item out of the queue; what already runs for
        cancelled ones alone ends at its next `check`.

        Args:
            lane: where they belong.
            payloads: for the lane's `run`.
            deadline: on the scheduler's clock; an item that is still waiting then fails.

        Raises:
            Problem: as `admit`.
        """
        with self._wake:
            self._admit(deadline, len(payloads), lane.cost(payloads))
            now = self._clock()
            items = [_Item(lane, payload, deadline, now) for payload in payloads]
            self._queue.extend(items)
            self._wake.notify()
        return [item.future for item in items]

    def _serve(self) -> None:
        while True:
            with self._wake:
                # Woken without work as well, so that an idle device has a heartbeat.
                self._wake.wait_for(lambda: self._queue or self._closing, timeout=1)
                self._beat = self._clock()
                if not self._queue and self._closing:
                    return
                batch = self._running = self._form()
                self._began = self._beat
            try:
                self._run(batch)
            except Exception as error:
                logger.exception("the device thread failed on a batch of %d", len(batch))
                for item in batch:
                    failure = EngineFailed(f"the batch could not be run ({type(error).__name__})")
                    item.settle(failure)
            finally:
                self._running = ()
                self._beat = self._clock()

    def _form(self) -> list[_Item]:
        """The next batch: the oldest item's lane, without the dead and the late."""
        alive: deque[_Item] = deque()
        for item in self._queue:
            if item.future.cancelled():
                continue
            if item.deadline <= self._clock():
                item.settle(DeadlineExceeded("its deadline passed in the queue"))
                continue
            alive.append(item)
        self._queue = alive
        if not alive:
            return []
        lane = alive[0].lane
        ready = [item for item in alive if item.lane is lane]
        chosen = ready[: lane.bucket(len(ready))]
        taken = set(map(id, chosen))
        self._queue = deque(item for item in alive if id(item) not in taken)
        return chosen

    def _run(self, batch: Sequence[_Item]) -> None:
        if not batch:
            return
        lane, began = batch[0].lane, self._clock()
        payloads = [item.payload for item in batch]
        try:
            results = lane.run(payloads)
            if len(results) != len(batch):
                raise RuntimeError(f"{lane.name}: {len(results)} results for {len(batch)} items")
        except DeadlineExceeded as error:
            # It would have taken longer still: that much is known.
            if (spent := self._clock() - began) > lane.cost(payloads):
                lane.learn(spent, payloads)
            for item in batch:
                item.settle(error)
            return
        except Exception as error:
            if len(batch) == 1:
                logger.warning("%s: an item failed", lane.name, exc_info=error)
                batch[0].settle(_as_problem(error))
                return
            middle = len(batch) // 2
            self._run(batch[:middle])
            self._run(batch[middle:])
            return
        seconds = self._clock() - began
        lane.learn(seconds, payloads)
        for item, result in zip(batch, results, strict=True):
            failed = isinstance(result, Exception)
            waited = began - item.submitted
            item.settle(_as_problem(result) if failed else Outcome(result, waited))
        self._on_batch(lane.name, len(batch), seconds)


def _as_problem(error: Exception) -> Problem:
    if isinstance(error, Problem):
        return error
    return EngineFailed(
        f"the engine failed on this item ({type(error).__name__}); the log has more"
    )
