"""How long an answer is worked on: until its deadline, and no longer than somebody waits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

from service.problems import DeadlineExceeded
from service.settings import Settings

R = TypeVar("R")

_HANG_UP, _GONE = "hang_up", "gone"


def allowed_s(asked_ms: int | None, settings: Settings) -> float:
    """Seconds that a request may take: what it asks for, within the server's own limit."""
    return min(asked_ms or settings.deadline_ms, settings.deadline_ms) / 1000


def deadline_of(request: Request, asked_ms: int | None, settings: Settings) -> float:
    """The request's deadline, monotonic seconds, counted from its arrival."""
    return float(request.state.timings.began) + allowed_s(asked_ms, settings)


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

    Our protocol tells of that as soon as it knows. To wait for ASGI's own message takes a task
    more for each request, which is a good part of what a small photo costs.

    Raises:
        ClientDisconnect: it hung up.
    """
    task, gone = asyncio.current_task(), False
    assert task is not None

    def hang_up() -> None:
        nonlocal gone
        if not gone:
            gone = True
            task.cancel()

    state = request.scope["state"]
    if _GONE in state:
        work.close()
        raise ClientDisconnect
    state[_HANG_UP] = hang_up
    try:
        return await work
    except asyncio.CancelledError:
        if not gone:
            raise
        task.uncancel()
        raise ClientDisconnect from None
    finally:
        del state[_HANG_UP]


def hung_up(scope: Mapping[str, Any]) -> None:
    """The client of this request is gone: drop what is being done for it."""
    state = scope["state"]
    state[_GONE] = True  # for work that has not begun yet
    drop: Callable[[], None] | None = state.get(_HANG_UP)
    if drop is not None:
        drop()
