"""HTTP/1.1 as a load generator needs it: little work for the client's own core."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from typing import cast
from urllib.parse import urlsplit

import httptools


class Address:
    """Where a server listens.

    Args:
        url: `http://host:port` or `https://…`; a path is ignored.

    Raises:
        ValueError: it is no such URL.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is not http://host:port")
        self.host = parts.hostname
        self.port = parts.port or (443 if parts.scheme == "https" else 80)
        self.netloc = parts.netloc.rpartition("@")[2]
        self.tls = ssl.create_default_context() if parts.scheme == "https" else None

    def request(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes = b""
    ) -> bytes:
        """One request as it goes over the wire."""
        fields = {"Host": self.netloc, **headers}
        if body:
            fields["Content-Length"] = str(len(body))
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body

    async def connect(self) -> Connection:
        """A new connection.

        Raises:
            OSError: nobody listens.
        """
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(Connection, self.host, self.port, ssl=self.tls)
        return connection


class Connection(asyncio.Protocol):
    """One connection with one request at a time on it."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._body: list[bytes] = []
        self._room = asyncio.Event()
        self._room.set()
        self.open = False
        """Whether another request may be sent."""

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Send, and wait for status and body.

        Raises:
            ConnectionError: the server closed without an answer, or it was no HTTP.
        """
        return await self.asked(request)

    def asked(self, request: bytes) -> asyncio.Future[tuple[int, bytes]]:
        """Send; what `ask` waits for.

        Raises:
            ConnectionError: the server has closed.
        """
        self.send(request)
        self._answer = asyncio.get_running_loop().create_future()
        self._body.clear()
        return self._answer

    def send(self, request: bytes) -> None:
        """Send, and wait for nothing."""
        if self._transport is None or self._transport.is_closing():
            raise ConnectionError("the connection is closed")
        self._transport.write(request)

    async def sent(self) -> None:
        """Return once the kernel has taken all that was written."""
        await self._room.wait()

    def hang_up(self) -> None:
        """Close at once, whatever is on its way."""
        self.open = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Of asyncio."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=0)
        self._parser = httptools.HttpResponseParser(self)
        self.open = True

    def pause_writing(self) -> None:
        """Of asyncio."""
        self._room.clear()

    def resume_writing(self) -> None:
        """Of asyncio."""
        self._room.set()

    def data_received(self, data: bytes) -> None:
        """Of asyncio."""
        try:
            if self._parser is not None:
                self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(ConnectionError(f"no HTTP: {error}"))
            self.hang_up()

    def connection_lost(self, exc: Exception | None) -> None:
        """Of asyncio."""
        self.open = False
        self._room.set()
        self._fail(exc if isinstance(exc, ConnectionError) else ConnectionError("closed"))

    def on_body(self, body: bytes) -> None:
        """Of the parser."""
        self._body.append(body)

    def on_message_complete(self) -> None:
        """Of the parser."""
        assert self._parser is not None
        self.open = self.open and self._parser.should_keep_alive()
        if self._answer is not None and not self._answer.done():
            self._answer.set_result((self._parser.get_status_code(), b"".join(self._body)))

    def _fail(self, error: Exception) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
