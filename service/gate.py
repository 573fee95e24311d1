"""Whether work may come in: starting, ready, draining, full.

One rule says who is let in, and it is asked twice: at the door, when a request's headers are here
and nothing has been spent on it, and again where its place is taken. A request is refused when
its deadline would pass before those inside are through.

How long that takes is known of the device by what its work costs. Of the host, which reads,
decodes, cuts and answers, it is measured by Little's law: who needed W seconds of it among N
units of work has seen it do one unit in W / N. Nothing else has to be known: neither how many
cores there are, nor how busy others keep them, nor which of loop and pool is the narrower one.

That takes all of W for work. Where everybody waits for a while however few they are, as on a loop
that is busy refusing, a slow answer to few would keep away many who would be no slower. So there is
a second reading, a line W = a * N + b through what was seen among few and among many, and the one
that promises more is believed: who is let in shows whether it was right.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Literal

from service.costs import Cost
from service.problems import DeadlineExceeded, Draining, Overloaded, Problem, Starting
from service.scheduler import PROMPT_S
from service.timings import Timings

_BODY_BYTES = 65_536
"""Of a body that are as much work for the host as a request is without any."""

_LATELY = 32
"""Requests whose median says how fast the host is."""

_SCATTER = 2.0
"""Times on a host scatter: so many times the typical one has to fit."""

_ELSEWHERE = ("detect", "queue", "encode", "head", "keep")
"""Stages in which a request is not the host's."""


def work_of(body_bytes: int) -> float:
    """How much of the host a request will take, in requests without a body."""
    return 1 + body_bytes / _BODY_BYTES


@dataclass(eq=False)
class Place:
    """One request's, inside.

    Attributes:
        work: of the host.
        came: on the gate's clock.
        timings: of the request.
        among: work inside when it was counted, its own included.
        counted: against the capacity. Who drips is not.
        here: when all of its body was.
        gone: it has left.
    """

    work: float
    came: float
    timings: Timings
    among: float = 0.0
    counted: bool = False
    here: float | None = None
    gone: bool = False

    def host_s(self, now: float) -> float:
        """For how long it has had the host, since its body was here."""
        if self.here is None:
            return 0.0
        elsewhere = (
            interval.ended - interval.began
            for interval in self.timings.intervals
            if interval.stage in _ELSEWHERE and interval.began >= self.here
        )
        return now - self.here - sum(elsewhere)


class Gate:
    """The one door that work comes through.

    Args:
        capacity: requests in work at once.
        device_s: tells in how many seconds who comes now has the device, after those inside.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        capacity: int,
        device_s: Callable[[], float] = lambda: 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._capacity = capacity
        self._device_s = device_s
        self._clock = clock
        self._entered = self._inside = 0
        self._work = 0.0
        self._coming = 0
        self._receiving: deque[Place] = deque()
        self._lately: deque[float] = deque(maxlen=_LATELY)
        self._unit_s = 0.0
        self._line = Cost()
        self._empty = asyncio.Event()
        self._empty.set()
        self.state: Literal["starting", "ready", "leaving", "closed"] = "starting"

    @property
    def inside(self) -> int:
        """Requests in work."""
        return self._inside

    @property
    def going(self) -> bool:
        """On the way out."""
        return self.state in ("leaving", "closed")

    def check_ready(self) -> None:
        """Whether new work should be sent here.

        Raises:
            Starting: not yet.
            Draining: not any more, though it may still be let in for a moment.
        """
        if self.state == "starting":
            raise Starting
        if self.state != "ready":
            raise Draining

    def refusal(self, left: float, work: float = 1.0) -> Overloaded | None:
        """Why a request cannot come in now, if so.

        Args:
            left: seconds until its deadline.
            work: by `work_of`.
        """
        self._pass_over_who_drips()
        inside = self._inside + self._coming
        if inside >= self._capacity:
            return Overloaded(
                f"{inside} requests are in work and no more may; try again later",
                retry_after=self._device_s() + self._host_s,
            )
        if not inside:  # else a wrong estimate would never be righted
            return None
        host = self._through_s(self._work + work)
        # The device's line takes a while to add up, and those who are turned away are many.
        device = 0.0 if host > left else self._device_s()
        if host + device <= left:
            return None
        return Overloaded(
            f"it would take about {(host + device) * 1000:.0f} ms and the deadline is in "
            f"{left * 1000:.0f} ms; try again later or allow more",
            retry_after=host + device - left,
        )

    def coming(self, work: float) -> None:
        """Count a request that has passed the door, until its task has begun."""
        self._coming += 1
        self._work += work

    def begun(self, work: float) -> None:
        """Its task has begun: in the same step it takes its place, or is answered without."""
        self._coming -= 1
        self._forget(work)

    @contextmanager
    def enter(self, deadline: float, timings: Timings, work: float = 1.0) -> Iterator[Place]:
        """Let one request in for as long as its work takes.

        Args:
            deadline: on the gate's clock.
            timings: of the request, on the same clock.
            work: by `work_of`.

        Raises:
            Starting: not loaded yet.
            Draining: closed.
            Overloaded: full, or not through in time.
        """
        if self.state != "leaving":
            self.check_ready()
        now = self._clock()
        place = Place(work, now, timings)
        if refusal := self.refusal(deadline - now, work):
            raise refusal
        self._entered += 1
        self._empty.clear()
        self._count(place)
        self._receiving.append(place)
        try:
            yield place
            self._learn(place, None)
        except BaseException as failure:
            self._learn(place, failure)
            raise
        finally:
            place.gone = True
            self._discount(place)
            self._entered -= 1
            if not self._entered:
                self._empty.set()

    def arrived(self, place: Place) -> None:
        """All of its body is here.

        Raises:
            Overloaded: it dripped, and others have taken its place.
        """
        place.here = self._clock()
        if place.counted:
            return
        if self._inside >= self._capacity:
            raise Overloaded(
                "its body came slowly and meanwhile the server is full; try again later",
                retry_after=self._host_s,
            )
        self._count(place)

    async def empty(self) -> None:
        """Return once nothing is in work."""
        await self._empty.wait()

    def _through_s(self, work: float) -> float:
        """Until the host is through with so much, and late only seldom."""
        waited = self._line(work) + (_SCATTER - 1) * self._line.slope * work
        return min(waited, _SCATTER * work * self._unit_s)

    @property
    def _host_s(self) -> float:
        return self._work * self._unit_s

    def _learn(self, place: Place, failure: BaseException | None) -> None:
        seconds = place.host_s(self._clock())
        if seconds <= 0 or (
            isinstance(failure, Problem) and not isinstance(failure, DeadlineExceeded)
        ):
            return
        # Who was too late or has hung up might have needed any longer.
        if failure is None or seconds > self._line(place.among):
            self._line.learn(place.among, seconds)
        unit_s = seconds / place.among
        if failure is None or unit_s > self._unit_s:
            self._lately.append(unit_s)
            self._unit_s = median(self._lately)

    def _count(self, place: Place) -> None:
        place.counted = True
        self._inside += 1
        self._work += place.work
        place.among = self._work

    def _discount(self, place: Place) -> None:
        if place.counted:
            place.counted = False
            self._inside -= 1
            self._forget(place.work)

    def _forget(self, work: float) -> None:
        # Sums of fractions drift; nobody inside is no work at all.
        self._work = self._work - work if self._inside or self._coming else 0.0

    def _pass_over_who_drips(self) -> None:
        since = self._clock() - PROMPT_S
        while self._receiving and (self._receiving[0].gone or self._receiving[0].came <= since):
            place = self._receiving.popleft()
            if place.here is None:
                self._discount(place)
