"""uvicorn's protocol with what it lacks.

A bound on headers, deadlines for what is received, and answers of ours to what is no request.
"""

from __future__ import annotations

import json
import secrets
from asyncio import BaseTransport, TimerHandle, Transport
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service.api.errors import MEDIA_TYPE, problem_body
from service.api.parting import LINGER_BYTES, LINGER_S
from service.problems import BadRequest, HeadersTooLarge, Problem
from service.settings import Settings

_GRACE_S = 5.0
"""After a body's deadline: by then the application has answered, and whoever still sends goes."""


class BoundedProtocol(HttpToolsProtocol):
    """Refuses headers that are too large with 431 and hangs up on connections that drip.

    The application has a deadline of its own for bodies, with an answer; the one here ends
    connections that send on after they were answered.
    """

    def __init__(self, *args: Any, settings: Settings, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(*args, **kwargs)
        self._settings = settings
        # A path may hold the id of kept features: the application logs routes instead.
        self.access_log = False
        self._received = 0
        self._in_headers = True
        self._parting = False
        self._patience: TimerHandle | None = None

    def connection_made(self, transport: BaseTransport) -> None:
        """A connection has to begin a request soon."""
        super().connection_made(cast(Transport, transport))
        self._wait(self._settings.header_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing to wait for any more."""
        self._wait(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what comes before the headers are complete, and what comes too late."""
        if self._in_headers or self._parting:
            self._received += len(data)
        if self._parting:
            if self._received > LINGER_BYTES:
                self._hang_up()
            return
        super().data_received(data)
        if self._in_headers and self._received > self._settings.header_bytes:
            self._refuse()

    def on_message_begin(self) -> None:
        """A request begins."""
        if self._parting:
            return
        super().on_message_begin()
        self._in_headers = True
        self._wait(self._settings.header_seconds)

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
        self._wait(self._settings.body_seconds + _GRACE_S)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """All of the request is here."""
        if self._parting:
            return
        self._wait(None)
        self._in_headers = True
        super().on_message_complete()

    def on_body(self, body: bytes) -> None:
        """Part of the body; of a refused request nobody wants it."""
        if not self._parting:
            super().on_body(body)

    def send_400_response(self, msg: str) -> None:
        """What came is not HTTP; within an answer there is no room for another."""
        if self._answering:
            self._hang_up()
            return
        self._answer(BadRequest("the request cannot be parsed as HTTP/1.1; check what sends it"))

    def _unsupported_upgrade_warning(self) -> None:
        """An upgrade is an offer that a server may leave (RFC 9110): nothing to warn of."""

    @property
    def _answering(self) -> bool:
        if self.cycle is None:
            return False
        return self.cycle.response_started and not self.cycle.response_complete

    def _wait(self, seconds: float | None) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        if seconds is not None:
            self._patience = self.loop.call_later(seconds, self._hang_up)

    def _hang_up(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()

    def _refuse(self) -> None:
        self._answer(
            HeadersTooLarge(
                f"request line and headers may have {self._settings.header_bytes} bytes; send fewer"
            )
        )

    def _answer(self, problem: Problem) -> None:
        """Say what is wrong, past the application, listen no more and hang up soon."""
        if self._parting or self.transport.is_closing():
            return
        request_id = secrets.token_hex(8)
        body = json.dumps(problem_body(problem, request_id)).encode()
        head = (
            f"content-type: {MEDIA_TYPE}\r\ncontent-length: {len(body)}\r\n"
            f"x-request-id: {request_id}\r\nserver-timing: total;dur=0\r\nconnection: close\r\n\r\n"
        )
        if self.cycle is not None:
            self.cycle.disconnected = True  # for the application, which may be reading a body
            self.cycle.message_event.set()
        self.transport.write(STATUS_LINE[problem.status] + head.encode() + body)
        self.transport.write_eof()
        self._parting, self._received = True, 0
        self._wait(LINGER_S)
