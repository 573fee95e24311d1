"""Results of threads on their way back to the event loop."""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import Future
from typing import Any, TypeVar

R = TypeVar("R")


class Homeward:
    """Wakes the loop once for all that has ended until it looks.

    To be woken for each result of a batch, as by `asyncio.wrap_future`, costs a system call and has
    the interpreter's lock change hands in the midst of giving out the others.

    Args:
        loop: whose tasks wait.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._ended: deque[tuple[asyncio.Future[Any], Future[Any]]] = deque()
        self._told = False

    async def result(self, future: Future[R]) -> R:
        """What a future of a thread comes to. Cancelled, it cancels that too."""
        waiter: asyncio.Future[R] = self._loop.create_future()
        future.add_done_callback(lambda ended: self._add(waiter, ended))
        try:
            return await waiter
        except asyncio.CancelledError:
            future.cancel()
            raise

    def _add(self, waiter: asyncio.Future[R], ended: Future[R]) -> None:
        self._ended.append((waiter, ended))
        # Told too often is told in vain; it is never told too seldom, for the loop takes the
        # word back before it looks.
        if not self._told and not self._loop.is_closed():
            self._told = True
            self._loop.call_soon_threadsafe(self._give_out)

    def _give_out(self) -> None:
        self._told = False
        while self._ended:
            waiter, ended = self._ended.popleft()
            if waiter.done():
                continue
            if ended.cancelled():
                waiter.cancel()
            elif isinstance(error := ended.exception(), StopIteration):
                # The one that no future takes; the others behind it wait here too.
                waiter.set_exception(RuntimeError(repr(error)))
            elif error is not None:
                waiter.set_exception(error)
            else:
                waiter.set_result(ended.result())
