"""How often one caller may ask."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from service.problems import ClientLimit

_CLIENTS = 10_000
"""Token buckets remembered at once; the least recently seen client starts anew."""


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
