"""What turning a request away costs a server and its clients: `python -m tests.bench.refusals`.

CPU of each process, user and system, a refusal: a busy machine moves that less than any time. The
server has no room at all; a photo of 36.9 kB is posted by a closed loop on connections that stay,
by one with a connection for each, and by an open loop as `make bench-peers` has it.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import tempfile
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from time import process_time
from typing import Any

import uvloop

from service.app import create_app
from service.bench.connection import Address
from service.bench.load import Crowd, Plan
from service.bench.process import Server as Process
from service.bench.process import ended_in_order, free_port, listening_on, profiler, running
from service.server import Server
from service.settings import Settings
from tests.bench.compare import fields
from tests.bench.peers.contenders import contenders
from tests.bench.peers.subpose_server import load

_AT_ONCE = 32


def serve() -> None:
    """The server around the simulated device, with no room."""
    logging.basicConfig(level=logging.INFO)
    settings = Settings()
    app = create_app(settings, load)
    app.state.subpose.gate._capacity = 0
    Server(app, settings).run()


async def closed(plan: Plan, count: int, *, kept: bool) -> int:
    """Post so often, as soon as there is an answer; how many were refused."""
    address, left, refused = Address(plan.url), count, 0
    ask = address.request("POST", plan.path, {}, Path(plan.photos[0]).read_bytes())

    async def client() -> None:
        nonlocal left, refused
        connection = None
        while left > 0:
            left -= 1
            if connection is None or not connection.open:
                connection = await address.connect()
            status, _ = await connection.ask(ask)
            refused += status == 503
            if not kept:
                connection.hang_up()

    async with asyncio.TaskGroup() as group:
        for _ in range(_AT_ONCE):
            group.create_task(client())
    return refused


async def opened(plan: Plan, count: int, rate: float) -> int:
    """Post so often at a rate; how many were refused."""
    arriving = replace(plan, requests=count, rate=rate)
    record = await Crowd(arriving).run()
    return sum(answer.status == 503 for answer in record.answers)


def each(
    server: Process, refuse: Callable[[int], Coroutine[Any, Any, int]], count: int
) -> tuple[float, float]:
    """Microseconds of the server and of the clients that a refusal takes, once warm."""
    uvloop.run(refuse(count // 10))
    before, own = server.cpu_s, process_time()
    refused = uvloop.run(refuse(count))
    if not refused:
        sys.exit("nothing was refused")
    mine = process_time() - own
    return (server.cpu_s - before) / refused * 1e6, mine / refused * 1e6


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.refusals", description=__doc__)
    parser.add_argument("--count", type=int, default=10_000, help="requests of each kind")
    parser.add_argument("--rate", type=float, default=1000, help="of the open loop, a second")
    parser.add_argument("--profile", type=Path, help="write a flame graph of the server here")
    parser.add_argument("--serve", action="store_true", help="be the server")
    options = parser.parse_args()
    if options.serve:
        serve()
        return
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [*profiler(options.profile), sys.executable, "-m", "tests.bench.refusals", "--serve"]
    with ended_in_order(), tempfile.TemporaryDirectory() as folder:
        (field,) = fields(Path(folder), ["device"])
        plan = contenders(field)[0].plan(field, url, 60)
        env = {**field.env, **listening_on(port)}
        with running(command, url, "/readyz", env=env, profiled=bool(options.profile)) as server:
            kinds: dict[str, Callable[[int], Coroutine[Any, Any, int]]] = {
                "one connection for many": lambda count: closed(plan, count, kept=True),
                "a connection each": lambda count: closed(plan, count, kept=False),
                f"at {options.rate:g} a second": lambda count: opened(plan, count, options.rate),
            }
            for kind, refuse in kinds.items():
                its, mine = each(server, refuse, options.count)
                print(f"{kind}: {its:.0f} us of the server, {mine:.0f} us of the clients")


if __name__ == "__main__":
    main()
