"""How long an answer is worked on: until its deadline, and no longer than somebody waits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

from service.problems import DeadlineExceeded
from service.settings import Settings

R = TypeVar("R")


def deadline_of(request: Request, asked_ms: int | None, settings: Settings) -> float:
    """The request's deadline, monotonic seconds, counted from its arrival."""
    allowed_ms = min(asked_ms or settings.deadline_ms, settings.deadline_ms)
    return float(request.state.timings.began) + allowed_ms / 1000


@asynccontextmanager
async def until(deadline: float) -> AsyncIterator[None]:
    """Stop what happens within once the deadline passes.

    Raises:
        DeadlineExceeded: it passed.
    """
    try:
        async with asyncio.timeout(deadline - time.monotonic()):
            yield
    except TimeoutError:
        raise DeadlineExceeded(
            "the answer was not ready in time; allow more with deadline_ms (within the server's "
            "own limit), or send a smaller photo"
        ) from None


async def while_connected(request: Request, work: Coroutine[None, None, R]) -> R:
    """Do work, but drop it when the client hangs up. The body must have been read.

    Raises:
        ClientDisconnect: it hung up.
    """
    task = asyncio.create_task(work)
    gone = asyncio.create_task(_hang_up(request))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        task.cancel()
        gone.cancel()


async def _hang_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
