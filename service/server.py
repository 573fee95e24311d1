"""The process: uvicorn around the application, and an orderly way out."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Generator
from functools import partial
from types import FrameType

import uvicorn
from fastapi import FastAPI

from models.bundle import BundleError
from models.engines import EngineError
from service.app import create_app, create_metrics_app
from service.memory import give_back_large_blocks
from service.overdue import Overdue
from service.protocol import BoundedProtocol
from service.settings import Settings
from service.state import State

logger = logging.getLogger("service")

_LOG = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_FLUSH_S = 5
"""How long the last answers may take to be sent, once their work is done."""
_ACCEPTED = 16
"""Connections that are taken in a round of the event loop."""
FAILED = 1
"""Exit status of a server that could not start."""
MISCONFIGURED = 2
"""Exit status where bundles or device are not as the settings say."""
DEAD = 3
"""Exit status where the device no longer answers."""


def serve(settings: Settings) -> int:
    """Serve until told to stop.

    Args:
        settings: every knob.

    Returns:
        The process' exit status: 0 after an orderly end.
    """
    logging.basicConfig(level=logging.INFO, format=_LOG)
    if settings.shows_newest_to_all:
        logger.warning(
            "whoever reaches %s:%d can see heatmaps of the newest photo: unless that is you "
            "alone, set SUBPOSE_LATEST=false or SUBPOSE_API_KEYS",
            settings.host, settings.port,
        )  # fmt: skip
    give_back_large_blocks()
    server = Server(create_app(settings), settings)
    try:
        server.run()
    except SystemExit:
        return FAILED  # uvicorn has said why, with an exit status of its own
    _end_now_if_it_must(server.status)
    return server.status


def _end_now_if_it_must(status: int) -> None:
    """End the process here where threads are still within a runtime: loading, or on the device.

    They are not waited for. At the interpreter's own end one that comes back would abort it.
    """
    if any(thread.daemon for thread in threading.enumerate()):
        logging.shutdown()
        os._exit(status)


class Server(uvicorn.Server):
    """A server that says it is leaving before it refuses work, and finishes what it accepted.

    Args:
        app: by `create_app`.
        settings: the same.
    """

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        super().__init__(_config(app, settings, settings.port))
        self._app = app
        self._state: State = app.state.subpose
        self._leaving: asyncio.Task[None] | None = None
        self.status = 0
        self.metrics: uvicorn.Server | None = None
        if settings.metrics_port is not None:
            config = _config(create_metrics_app(app), settings, settings.metrics_port)
            self.metrics = _Companion(config)

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve, with the metrics beside where they have a port of their own."""
        async with asyncio.TaskGroup() as group:
            if self.metrics is not None:
                group.create_task(self.metrics.serve())
            await super().serve(sockets)
            if self.metrics is not None:
                self.metrics.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen at once; end the process should the weights fail to load."""
        await super().startup(sockets)
        self._loop = asyncio.get_running_loop()
        if self.started:
            await self._accept_faster()
        self._app.state.opening.add_done_callback(self._opened)
        self._watch = asyncio.create_task(self._state.watch())
        self._watch.add_done_callback(self._died)

    async def _accept_faster(self) -> None:
        """Take several new connections in a round of the loop.

        uvloop takes one for each socket that it listens on. Under load a round is long, and
        requests would grow old in the kernel's queue, where nobody can refuse them: so it listens
        several times on the same socket.
        """
        make: Callable[..., asyncio.Protocol] = self.config.http_protocol_class
        protocol = partial(
            make,
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        numbers = [sock.fileno() for server in self.servers for sock in server.sockets]
        for number in numbers * (_ACCEPTED - 1):
            again = socket.socket(fileno=os.dup(number))
            again.setblocking(False)
            backlog = self.config.backlog
            self.servers.append(
                await self._loop.create_server(protocol, sock=again, backlog=backlog)
            )

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """On the first SIGTERM leave in order; on anything more leave now."""
        if sig == signal.SIGTERM and self.started and not self._state.gate.going:
            self._loop.call_soon_threadsafe(self._leave)
        elif self.should_exit:
            self.force_exit = True
        else:
            self.should_exit = True

    def _leave(self) -> None:
        self._leaving = asyncio.create_task(self._drain())

    async def _drain(self) -> None:
        settings, gate = self._state.settings, self._state.gate
        logger.info("leaving: %d requests in work", gate.inside)
        gate.state = "leaving"
        await asyncio.sleep(settings.drain_lead_seconds)
        self._state.leave()
        try:
            async with asyncio.timeout(settings.drain_seconds):
                await gate.empty()
        except TimeoutError:
            logger.warning("%d requests were not ready in time", gate.inside)
            for task in self.server_state.tasks:
                task.cancel()
        self.should_exit = True

    def _died(self, watch: asyncio.Task[None]) -> None:
        if watch.cancelled():
            return
        logger.critical("the device is dead; ending, so that a new process can take over")
        self.status = DEAD
        self.should_exit = self.force_exit = True

    def _opened(self, opening: asyncio.Task[None]) -> None:
        if opening.cancelled():
            return
        error = opening.exception()
        if error is None:
            logger.info("ready on http://%s:%d", self.config.host, port_of(self))
            return
        self.should_exit = True
        if isinstance(error, BundleError | EngineError):
            self.status = MISCONFIGURED
            logger.error("cannot start: %s", error)
        else:
            self.status = FAILED
            logger.error("cannot start", exc_info=error)


def port_of(server: uvicorn.Server) -> int:
    """The port that a started server listens on."""
    return int(server.servers[0].sockets[0].getsockname()[1])


class _Companion(uvicorn.Server):
    """A second server in the same loop, which the first one's signals end."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


def _config(app: FastAPI, settings: Settings, port: int) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host=settings.host,
        port=port,
        loop="uvloop",
        http=partial(BoundedProtocol, state=app.state.subpose, overdue=Overdue()),  # type: ignore[arg-type]
        ws="none",
        log_config=None,
        server_header=False,
        proxy_headers=bool(settings.proxies),
        forwarded_allow_ips=list(settings.proxies),
        timeout_graceful_shutdown=_FLUSH_S,
    )
