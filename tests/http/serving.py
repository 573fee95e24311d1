"""A real server on a free port, in a thread of the test's process."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import numpy as np
from PIL import Image

from service.app import create_app
from service.catalog import load_catalog
from service.server import Server, port_of
from service.settings import Settings
from service.state import State
from tests.fakes import FakeHouse

GREY = (100, 150, 200)


@dataclass(frozen=True)
class Running:
    """A server under test."""

    url: str
    port: int
    server: Server
    state: State

    def client(self, **options: object) -> httpx.Client:
        # No TLS here: loading certificates would be most of a test's time.
        return httpx.Client(base_url=self.url, timeout=60, verify=False, **options)  # type: ignore[arg-type]


@contextmanager
def running(house: FakeHouse | None, *, wait: bool = True, **settings: object) -> Iterator[Running]:
    """Serve a fake house, or the committed bundles where there is none.

    A fake house's device runs one batch at a time unless told, however many cores are here.
    """
    alone = {"threads": 1} if house else {}
    chosen = Settings.model_validate({"port": 0, **alone, **settings})
    app = create_app(chosen, house.load if house else load_catalog)
    server = Server(app, chosen)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started)
    port = port_of(server)
    there = Running(f"http://127.0.0.1:{port}", port, server, app.state.subpose)
    if wait:
        until(lambda: there.state.gate.state == "ready" or server.status)
        assert not server.status, "the server could not start"
    try:
        yield there
    finally:
        if house:
            house.engine.open.set()
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive(), "the server did not end"


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    """Ask again and again until it is so; nothing else tells a test what a server is about."""
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "it did not come to be"
        time.sleep(0.005)


@contextmanager
def later(server: Running) -> Iterator[None]:
    """With the clock of its device an hour ahead."""
    device = server.state.scheduler.device
    device._clock = lambda: time.monotonic() + 3600
    try:
        yield
    finally:
        device._clock = time.monotonic


def photo(
    colour: Sequence[int] = GREY, size: tuple[int, int] = (60, 80), kind: str = "PNG"
) -> bytes:
    """A photo of one colour, as a file."""
    return encoded(Image.new("RGB", size, tuple(colour)), kind)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)))
