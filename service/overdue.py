"""One timer for all connections.

A timer of its own for each wait of each request would be a good part of what a refusal costs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

SWEEP_S = 0.1
"""Nobody is hung up on later than this after the time."""


class Waiting(Protocol):
    """Something that is waited for, and no longer than so."""

    def hang_up(self) -> None:
        """Its time has come."""


class Overdue:
    """Hangs up on whoever takes longer than was allowed, looking at all of them now and then.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._due: dict[Waiting, float] = {}
        self._sweeping = False

    def wait(self, who: Waiting, seconds: float) -> None:
        """Allow so long from now on, whatever was allowed before."""
        self._due[who] = self._clock() + seconds
        if not self._sweeping:
            self._sweep_later()

    def forget(self, who: Waiting) -> None:
        """Allow any time."""
        self._due.pop(who, None)

    def __contains__(self, who: Waiting) -> bool:
        """Whether it is waited for."""
        return who in self._due

    def sweep(self) -> None:
        """Hang up on those whose time has come; look again while there are others."""
        now = self._clock()
        for who in [who for who, due in self._due.items() if due <= now]:
            del self._due[who]
            who.hang_up()
        self._sweeping = False
        if self._due:
            self._sweep_later()

    def _sweep_later(self) -> None:
        self._sweeping = True
        asyncio.get_running_loop().call_later(SWEEP_S, self.sweep)
