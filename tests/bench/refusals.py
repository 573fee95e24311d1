"""What turning a request away costs the server: `python -m tests.bench.refusals`.

CPU of the server's process, user and system, over the requests that it refused: hardly moved by
what else the machine does. The server has no room at all; clients post a photo of 36.9 kB each, on
connections that stay or on a new one for each.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import tempfile
from pathlib import Path

import uvloop

from service.app import create_app
from service.bench.connection import Address
from service.bench.process import ended_in_order, free_port, listening_on, profiler, running
from service.server import Server
from service.settings import Settings
from tests.bench.compare import fields
from tests.bench.peers.contenders import contenders
from tests.bench.peers.subpose_server import load

_AT_ONCE = 32
_COUNT = 10_000
_WARM = 1_000


async def refused(address: Address, ask: bytes, count: int, *, kept: bool) -> None:
    """Post so often, all refused."""
    left = count

    async def client() -> None:
        nonlocal left
        connection = None
        while left > 0:
            left -= 1
            if connection is None or not connection.open:
                connection = await address.connect()
            status, _ = await connection.ask(ask)
            assert status == 503, status
            if not kept:
                connection.hang_up()

    async with asyncio.TaskGroup() as group:
        for _ in range(_AT_ONCE):
            group.create_task(client())


def serve() -> None:
    """The server around the simulated device, with no room."""
    logging.basicConfig(level=logging.INFO)
    settings = Settings()
    app = create_app(settings, load)
    app.state.subpose.gate._capacity = 0
    Server(app, settings).run()


def main(profile: Path | None = None) -> None:
    """Measure and print."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [*profiler(profile), sys.executable, "-m", "tests.bench.refusals", "serve"]
    with ended_in_order(), tempfile.TemporaryDirectory() as folder:
        (field,) = fields(Path(folder), ["device"])
        plan = contenders(field)[0].plan(field, url, 0)
        body = Path(field.photos[0]).read_bytes()
        ask = Address(url).request("POST", plan.path, {}, body)
        env = {**field.env, **listening_on(port)}
        with running(command, url, "/readyz", env=env, profiled=bool(profile)) as server:
            for kept in (True, False):
                uvloop.run(refused(Address(url), ask, _WARM, kept=kept))
                before, own = server.cpu_s, sum(os.times()[:2])
                uvloop.run(refused(Address(url), ask, _COUNT, kept=kept))
                each = (server.cpu_s - before) / _COUNT * 1e6
                clients = (sum(os.times()[:2]) - own) / _COUNT * 1e6
                kind = "one connection for many" if kept else "a connection each"
                print(f"{kind}: {each:.0f} us of the server, {clients:.0f} us of the clients")


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        serve()
    else:
        main(Path(sys.argv[1]) if sys.argv[1:] else None)
