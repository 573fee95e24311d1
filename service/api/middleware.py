"""What happens to every request before its route: pure ASGI, one class an idea."""

from __future__ import annotations

import asyncio
import logging
import random
import re
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.body import declared_bytes
from service.api.errors import problem_response
from service.metrics import Metrics
from service.problems import (
    BadRequest,
    BodyTooLarge,
    Draining,
    EngineFailed,
    Overloaded,
    Problem,
    SlowBody,
    UnknownHost,
)
from service.settings import host_name
from service.timings import Timings
from service.tracing import Tracing

logger = logging.getLogger("service.access")

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


def request_id_of(given: str) -> str:
    """The caller's own, where it is one.

    Else one that is no secret: the system's random numbers are fetched without the interpreter's
    lock, which under load takes the event loop longer to have back than all else of a refusal.
    """
    return given if _REQUEST_ID.fullmatch(given) else f"{random.getrandbits(64):016x}"


class RequestContext:
    """Request id, Server-Timing, metrics, one line of log; turns a bug into a problem."""

    def __init__(self, app: ASGIApp, metrics: Metrics, tracing: Tracing | None) -> None:
        self._app = app
        self._metrics = metrics
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        headers = Headers(scope=scope)
        request_id = request_id_of(headers.get("x-request-id", ""))
        timings = Timings()
        if self._tracing:
            self._tracing.begin(headers, timings)
        state = scope.setdefault("state", {})
        state.update(request_id=request_id, timings=timings)
        status = 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                answered = MutableHeaders(scope=message)
                answered["X-Request-Id"] = request_id
                answered["Server-Timing"] = timings.header()
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except ClientDisconnect:
            status = 499
        except asyncio.CancelledError:  # the server ends; who hangs up is told apart
            if status:
                raise
            await problem_response(Draining(), scope)(scope, receive, sending)
        except Exception:
            logger.exception("%s: unexpected error", request_id)
            if status:
                raise
            problem = EngineFailed("an unexpected error; the server's log has it by request id")
            await problem_response(problem, scope)(scope, receive, sending)
        finally:
            self._account(scope, status, timings)

    def _account(self, scope: Scope, status: int, timings: Timings) -> None:
        route = getattr(scope.get("route"), "path", "other")
        method = scope["method"] if route != "other" else "other"
        state = scope["state"]
        self._metrics.request(method, route, status, timings, state.get("problem"))
        if self._tracing:
            self._tracing.end(timings, method, route, status)
        # The template of the route, for a path may hold the id of kept features.
        logger.info(
            "%s %s %s %d %.0f ms",
            state["request_id"], method, route, status, timings.total * 1000,
        )  # fmt: skip


class HostCheck:
    """Refuses requests for other names: a page of another site must not reach this server.

    Probes ask by address, so health stays open. A request for two names is for nobody (RFC 9112):
    a proxy before this server may have judged it by the other one.
    """

    def __init__(self, app: ASGIApp, hosts: frozenset[str] | None) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http" and (problem := self._problem(scope)):
            return await problem_response(problem, scope)(scope, receive, send)
        return await self._app(scope, receive, send)

    def _problem(self, scope: Scope) -> Problem | None:
        given = Headers(scope=scope).getlist("host")
        if len(given) > 1:
            return BadRequest(f"{len(given)} Host headers; send one")
        name = host_name("".join(given))
        if self._hosts is None or name in self._hosts or scope["path"] in ("/healthz", "/readyz"):
            return None
        return UnknownHost(f"Host {name[:100]!r} is not in SUBPOSE_HOSTS; add it there")


class BodyGuard:
    """Bounds bodies in size and time, declared or chunked, one and all together.

    Args:
        app: the next application.
        most: bytes of one body.
        most_together: bytes of all bodies that are held at once.
        seconds: until a body has to be here.
    """

    def __init__(self, app: ASGIApp, most: int, most_together: int, seconds: float) -> None:
        self._app = app
        self._most = most
        self._most_together = most_together
        self._seconds = seconds
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        if declared_bytes(Headers(scope=scope).get("content-length", "")) > self._most:
            return await problem_response(self._too_large(), scope)(scope, receive, send)
        size, complete = 0, False
        deadline = time.monotonic() + self._seconds

        async def receiving() -> Message:
            nonlocal size, complete
            if complete:  # nothing but the client's hanging up is left to be told
                return await receive()
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    message = await receive()
            except TimeoutError:
                raise SlowBody(
                    f"{size} bytes came in {self._seconds:g} s; send a smaller image"
                ) from None
            complete = not message.get("more_body", False)
            length = len(message.get("body", b""))
            if size + length > self._most:
                raise self._too_large()
            if self._held + length > self._most_together:
                raise Overloaded("too many bytes are being received; try again later")
            size += length
            self._held += length
            return message

        try:
            await self._app(scope, receiving, send)
        finally:
            self._held -= size

    def _too_large(self) -> Problem:
        return BodyTooLarge(
            f"a body may have {self._most} bytes; send a smaller image, or fewer in one call"
        )
