"""Answers that are given before the body is here arrive all the same."""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LINGER_S = 1.0
"""How long what is left of an unwanted body is still read."""
LINGER_BYTES = 1_000_000
"""How much of it."""


class Parting:
    """Reads on for a moment once it is answered, then closes.

    To close on somebody who sends is to reset the connection, often before the answer is read.
    Somebody who waits for `100 Continue` is answered without, and so need not send at all.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or not _has_body(headers := Headers(scope=scope)):
            await self._app(scope, receive, send)
            return
        waits = headers.get("expect", "").lower() == "100-continue"
        complete = parting = False

        async def receiving() -> Message:
            nonlocal complete
            message = await receive()
            complete = not message.get("more_body", False)
            return message

        async def drain(seconds: float) -> None:
            size = 0
            try:
                async with asyncio.timeout(seconds):
                    while not complete and size < LINGER_BYTES:
                        size += len((await receiving()).get("body", b""))
            except TimeoutError:
                pass

        async def sending(message: Message) -> None:
            nonlocal parting
            if message["type"] == "http.response.start":
                if not (complete or waits):
                    await drain(0)  # most bodies came with their headers: the connection may stay
                if not complete:
                    parting = True
                    MutableHeaders(scope=message)["Connection"] = "close"
            elif parting:
                # Its end would close the connection.
                message = {**message, "more_body": True}
            await send(message)

        await self._app(scope, receiving, sending)
        if parting:
            await drain(LINGER_S)
            await send({"type": "http.response.body", "body": b"", "more_body": False})


def _has_body(headers: Headers) -> bool:
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
