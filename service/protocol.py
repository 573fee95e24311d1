"""uvicorn's protocol with what it lacks.

A bound on headers, deadlines for what is received, answers of ours to what is no request, and a
door at which work is turned away before a task is made of it.
"""

from __future__ import annotations

import re
from asyncio import BaseTransport, Transport
from typing import Any, cast

from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from service.api.body import declared_bytes
from service.api.errors import MEDIA_TYPE, plain_problem_json
from service.api.middleware import request_id_of
from service.api.parting import LINGER_BYTES, LINGER_S
from service.api.patience import allowed_s, hung_up
from service.gate import work_of
from service.gathered import GatheredTransport
from service.overdue import Overdue
from service.problems import BadRequest, HeadersTooLarge, Problem
from service.state import State

# Overridden in vain where uvicorn has it not: hang-ups would go unheard.
_ = HttpToolsProtocol._start_asgi_task

_WORK = frozenset((b"/pose", b"/heatmap"))
"""Paths on which a POST is work."""

_DEADLINE = re.compile(rb"(?:^|&)deadline_ms=(\d{1,5})(?:&|$)")
"""As most write it; any other way of writing it is judged by its route alone."""

_CLOSE = "connection: close\r\n"

_GRACE_S = 5.0
"""After a body's deadline: by then the application has answered, and whoever still sends goes."""


class BoundedProtocol(HttpToolsProtocol):
    """Refuses large headers and work that has no room, and hangs up on connections that drip.

    The application has a deadline of its own for bodies, with an answer; the one here comes later
    and ends connections that send on although they were answered.
    """

    def __init__(self, *args: Any, state: State, overdue: Overdue, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(*args, **kwargs)
        self._state = state
        self._overdue = overdue
        self._settings = state.settings
        # A path may hold the id of kept features: the application logs routes instead.
        self.access_log = False
        self._received = 0
        self._in_headers = True
        self._parting = False
        self._turned_away = False  # whose body is still to come, and is not wanted
        self._expected: float | None = None
        self._at_work: RequestResponseCycle | None = None  # others may wait in the pipeline

    def connection_made(self, transport: BaseTransport) -> None:
        """A connection has to begin a request soon."""
        gathered = GatheredTransport(cast(Transport, transport), self.loop)
        super().connection_made(cast(Transport, gathered))
        self._overdue.wait(self, self._settings.header_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing to wait for any more."""
        self._overdue.forget(self)
        super().connection_lost(exc)
        self._drop()

    def data_received(self, data: bytes) -> None:
        """Count what comes before the headers are complete, and what comes too late."""
        if self._in_headers or self._parting:
            self._received += len(data)
        if self._parting:
            if self._received > LINGER_BYTES:
                self.hang_up()
            return
        super().data_received(data)
        if self._in_headers and self._received > self._settings.header_bytes:
            self._refuse()
        elif self._in_headers and not self._in_work and self not in self._overdue:
            # uvicorn's own timer ended with these bytes, which need not have begun a request.
            self._overdue.wait(self, self._settings.header_seconds)

    def on_message_begin(self) -> None:
        """A request begins."""
        if self._parting:
            return
        super().on_message_begin()
        self._in_headers = True
        self._overdue.wait(self, self._settings.header_seconds)

    def on_headers_complete(self) -> None:
        """The headers are here: large ones are refused before the application sees them."""
        if self._parting:
            return
        self._in_headers = False
        self._received = 0
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > self._settings.header_bytes:
            self._refuse()
            return
        self._overdue.wait(self, self._settings.body_seconds + _GRACE_S)
        if self._door():
            super().on_headers_complete()

    def _door(self) -> bool:
        """Turn work away before anything is spent on it; whether the request may go on."""
        self._expected = None
        path, _, query = self.url.partition(b"?")
        if self._in_work or path not in _WORK or self.parser.get_method() != b"POST":
            return True
        headers = dict(self.headers)
        size = declared_bytes(headers.get(b"content-length", b""))
        asked = _DEADLINE.search(query)
        left = allowed_s(int(asked[1]) if asked else None, self._settings)
        work = work_of(size)
        refusal = self._state.gate.refusal(left, work)
        # Pages of other origins may read answers only with headers that the application knows.
        if refusal is None or b"origin" in headers:
            self._expected = work
            return True
        given = headers.get(b"x-request-id", b"").decode("latin-1")
        if (
            0 < size <= LINGER_BYTES
            and not self.expect_100_continue
            and self.parser.should_keep_alive()
        ):
            self._turned_away = True
            self._state.metrics.turned_away("POST", path.decode(), refusal)
            self.transport.write(_response(refusal, request_id_of(given)))
        else:
            self._answer(refusal, given, method="POST", route=path.decode())
        return False

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._at_work = cycle
        gate, work = self._state.gate, self._expected
        if work is None:
            super()._start_asgi_task(cycle, app)
            return

        async def begun(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401
            gate.begun(work)
            await app(scope, receive, send)

        self._expected = None
        gate.coming(work)
        super()._start_asgi_task(cycle, begun)

    def on_message_complete(self) -> None:
        """All of the request is here."""
        if self._parting:
            return
        self._in_headers = True
        if self._turned_away:
            self._turned_away = False
            self.server_state.total_requests += 1
            self._overdue.wait(self, self.timeout_keep_alive)
            return
        self._overdue.forget(self)
        super().on_message_complete()

    def on_body(self, body: bytes) -> None:
        """Part of the body; of a refused request nobody wants it."""
        if not (self._parting or self._turned_away):
            super().on_body(body)

    def send_400_response(self, msg: str) -> None:
        """What came is not HTTP; within an answer there is no room for another."""
        if self._answering:
            self.hang_up()
            return
        self._answer(BadRequest("the request cannot be parsed as HTTP/1.1; check what sends it"))

    def _unsupported_upgrade_warning(self) -> None:
        """An upgrade is an offer that a server may leave (RFC 9110): nothing to warn of."""

    @property
    def _in_work(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and not cycle.response_complete

    @property
    def _answering(self) -> bool:
        if self.cycle is None:
            return False
        return self.cycle.response_started and not self.cycle.response_complete

    def hang_up(self) -> None:
        """Close, once what was written has been sent."""
        if not self.transport.is_closing():
            self.transport.close()

    def _drop(self) -> None:
        """Nobody will be told what is worked on."""
        if self._at_work is not None:
            self._at_work.disconnected = True
            hung_up(self._at_work.scope)

    def _refuse(self) -> None:
        self._answer(
            HeadersTooLarge(
                f"request line and headers may have {self._settings.header_bytes} bytes; send fewer"
            )
        )

    def _answer(
        self, problem: Problem, request_id: str = "", *, method: str = "other", route: str = "other"
    ) -> None:
        """Say what is wrong, past the application, listen no more and hang up soon."""
        if self._parting or self.transport.is_closing():
            return
        if self.cycle is not None:
            self.cycle.disconnected = True  # for the application, which may be reading a body
            self.cycle.message_event.set()
            self._drop()
        self._state.metrics.turned_away(method, route, problem)
        self.transport.write(_response(problem, request_id_of(request_id), close=True))
        self.transport.write_eof()
        self._parting, self._received = True, 0
        self._overdue.wait(self, LINGER_S)


def _response(problem: Problem, request_id: str, *, close: bool = False) -> bytes:
    """All of an answer, as it goes over the wire."""
    body = plain_problem_json(problem, request_id)
    own = "".join([f"{name.lower()}: {value}\r\n" for name, value in problem.headers.items()])
    rest = (
        f"content-type: {MEDIA_TYPE}\r\ncontent-length: {len(body)}\r\n"
        f"x-request-id: {request_id}\r\nserver-timing: total;dur=0\r\n"
        f"{own}{_CLOSE if close else ''}\r\n{body}"
    )
    return STATUS_LINE[problem.status] + rest.encode()
