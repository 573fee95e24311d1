"""Writes of one round of the event loop, sent as one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any


class GatheredTransport:
    """A transport that sends what is written in a round of the loop at the round's end.

    A server writes head and body one by one, and uvloop sends each at once. Each wakes whoever
    reads, who with half an answer can do nothing, and on a host that both share takes the core
    from the loop.

    Args:
        transport: what is written to in the end, and does all else.
        loop: its own.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._parts: list[bytes] = []

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send soon."""
        if not self._parts:
            self._loop.call_soon(self._send)
        self._parts.append(data)

    def writelines(self, parts: Iterable[bytes]) -> None:
        """Send them soon."""
        self.write(b"".join(parts))

    def write_eof(self) -> None:
        """Send now, and nothing more."""
        self._send()
        self._transport.write_eof()

    def close(self) -> None:
        """Send now, then close."""
        self._send()
        self._transport.close()

    def _send(self) -> None:
        parts, self._parts = self._parts, []
        if parts and not self._transport.is_closing():
            self._transport.writelines(parts)
