"""Whether work may come in: starting, ready, draining, full."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from service.problems import ClientLimit, Draining, Overloaded, Starting

_CLIENTS = 10_000
"""Token buckets remembered at once; the least recently seen client starts anew."""


class Gate:
    """The one door that work comes through.

    Args:
        capacity: requests in work at once.
        drain_s: tells how many seconds those inside still need.
    """

    def __init__(self, capacity: int, drain_s: Callable[[], float] = lambda: 1.0) -> None:
        self._capacity = capacity
        self._drain_s = drain_s
        self._inside = 0
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
            raise Starting("weights are being loaded; try again in a moment")
        if self.state != "ready":
            raise Draining("the server is shutting down; ask another replica")

    @contextmanager
    def enter(self) -> Iterator[None]:
        """Let one request in for as long as its work takes.

        Raises:
            Starting: not loaded yet.
            Draining: closed.
            Overloaded: full.
        """
        if self.state != "leaving":
            self.check_ready()
        if self._inside >= self._capacity:
            raise Overloaded(
                f"{self._inside} requests are in work and no more may; try again later",
                retry_after=self._drain_s(),
            )
        self._inside += 1
        self._empty.clear()
        try:
            yield
        finally:
            self._inside -= 1
            if not self._inside:
                self._empty.set()

    async def empty(self) -> None:
        """Return once nothing is in work."""
        await self._empty.wait()


class ClientBuckets:
    """A token bucket for each client: a second's worth of requests at once, then at the rate.

    Args:
        rate: requests a second; None lets all through.
        clock: monotonic seconds.
    """

    def __init__(self, rate: float | None, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str) -> None:
        """Count one request.

        Raises:
            ClientLimit: the client's bucket is empty.
        """
        if self._rate is None:
            return
        now, most = self._clock(), max(1.0, self._rate)
        tokens, seen = self._buckets.pop(client, (most, now))
        tokens = min(most, tokens + (now - seen) * self._rate)
        allowed = tokens >= 1
        self._buckets[client] = (tokens - 1 if allowed else tokens, now)
        if len(self._buckets) > _CLIENTS:
            self._buckets.popitem(last=False)
        if not allowed:
            raise ClientLimit(
                f"more than {self._rate:g} requests a second; slow down",
                retry_after=(1 - tokens) / self._rate,
            )
