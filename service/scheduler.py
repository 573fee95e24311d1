"""Items of many requests -> batches -> each caller its own answer.

The scheduler is eager: what waits when the device is free goes at once, and no timer runs while it
is idle. It refuses early what could not be run in time. An item that makes its batch fail is found
by halving, and fails alone. Long work pauses now and then: it ends there if nobody waits for it
any more, and lets others go first. Nothing here knows what an item is.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TypeVar

from service.device import Device
from service.lanes import Lane
from service.line import TURN_S, Batch, Done, Line, Ticket, Visit
from service.problems import DeadlineExceeded, Draining, Overloaded

PROMPT_S = 1.0
"""A body that takes longer drips, and what its request would ask for keeps nobody away."""

T = TypeVar("T")
R = TypeVar("R")


class Scheduler:
    """The line in front of one device.

    Args:
        capacity: items that may wait; more are refused, except that a lone request always fits.
        on_batch: told of every batch that came back, and its seconds.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        capacity: int,
        *,
        on_batch: Callable[[Batch, float], None] = lambda batch, seconds: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._capacity = capacity
        self._clock = clock
        self._line = Line()
        lock = threading.RLock()
        self._wake = threading.Condition(lock)
        self._closing = False
        self.device = Device(self._line, self._wake, lock, on_batch, clock)

    def close(self, patience: float) -> None:
        """Refuse what comes from now on, run what waits, end the device's threads.

        Args:
            patience: seconds to wait for that.
        """
        self._closing = True
        self.device.close(patience)

    @property
    def waiting(self) -> int:
        """Items in the line that somebody still waits for."""
        with self._wake:
            self._line.bury(self._clock())
            return self._line.waiting

    @property
    def turn_in_s(self) -> float:
        """Seconds until a request that comes now has its turn, from measured costs."""
        with self._wake:
            return self._ahead(0.0)

    @contextmanager
    def admit(
        self, deadline: float, seconds: float = 0.0, *, here: bool = False
    ) -> Iterator[Visit]:
        """Let a request in, or refuse at once what could not be run in time.

        What the visit has submitted and not got back when it ends is dropped.

        Args:
            deadline: on the scheduler's clock.
            seconds: of the device that it is expected to ask for.
            here: all of its body is, so that it is counted on for good.

        Raises:
            Overloaded: too much waits already.
            DeadlineExceeded: it has passed.
            Draining: closed.
        """
        visit = Visit(deadline)
        with self._wake:
            self._check(visit, 1, seconds)
            visit.promised = seconds
            visit.prompt = math.inf if here else self._clock() + PROMPT_S
            self._line.join(visit)
        try:
            yield visit
        finally:
            with self._wake:
                self._line.leave(visit)

    def promise(self, visit: Visit, seconds: float) -> None:
        """Count on what a visit will ask for, now that its body is here.

        Args:
            visit: admitted.
            seconds: of the device.

        Raises:
            Problem: as `admit`.
        """
        with self._wake:
            self._check(visit, 1, seconds)
            visit.promised, visit.prompt = seconds, math.inf

    def submit(
        self, visit: Visit, lane: Lane[T, R], items: Sequence[T], promised: float = 0.0
    ) -> Future[Done[R]]:
        """Queue items of a visit, all or none.

        Args:
            visit: whose they are.
            lane: where they belong.
            items: for the lane; at least one.
            promised: what was counted on for them, seconds.

        Returns:
            Done with all of them; cancelling it drops those that have not run. Failed with
            DeadlineExceeded where the deadline came first.

        Raises:
            Problem: as `admit`; by now there may be too little time left.
        """
        with self._wake:
            visit.promised = max(0.0, visit.promised - promised)
            self._check(visit, len(items), lane.seconds(items))
            ticket = Ticket(visit, lane, items)
            visit.tickets.append(ticket)
            self.device.grown()
        return ticket.future

    def _check(self, visit: Visit, count: int, seconds: float) -> None:
        if self._closing:
            raise Draining
        left = visit.deadline - self._clock()
        if left <= 0:
            raise DeadlineExceeded("the deadline passed before the device was asked")
        if self._refusal(visit, count, seconds, left) is None:
            return
        # Only now look for those who wait in vain: it takes a while, and few lines have any.
        self._line.bury(self._clock())
        if refusal := self._refusal(visit, count, seconds, left):
            raise refusal

    def _refusal(self, visit: Visit, count: int, seconds: float, left: float) -> Overloaded | None:
        waiting, ahead = self._line.waiting, self._ahead(seconds, visit)
        if waiting and waiting + count > self._capacity:
            return Overloaded(
                f"{waiting} crops wait for the device and at most {self._capacity} may; "
                "try again later",
                retry_after=ahead,
            )
        # On an idle device everything is tried: else a wrong estimate would never be righted.
        if (ahead or self.device.busy) and ahead + seconds > left:
            return Overloaded(
                f"the queue takes about {ahead * 1000:.0f} ms, this request {seconds * 1000:.0f} "
                f"ms, and the deadline is in {left * 1000:.0f} ms; try again later or allow more",
                retry_after=min(ahead, ahead + seconds - left),
            )
        return None

    def _ahead(self, seconds: float, of: Visit | None = None) -> float:
        running = self.device.rest(max(TURN_S, seconds))
        return running + self._line.ahead(seconds, self._clock(), of)
