"""What a server does to neighbours of a bad request, and for clients that are gone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import uvloop

from service.bench.connection import Address, Connection
from service.bench.load import Plan, request
from tests.bench.peers.device import Counter

_QUIET_S = 1.0
_PATIENCE_S = 3.0


@dataclass(frozen=True, slots=True)
class Poison:
    """Bad requests among good ones: how many good ones there were and were lost."""

    good: int
    lost: int


def poison(plan: Plan, *, rounds: int = 5, at_once: int = 16) -> Poison:
    """Send one truncated photo among good ones, again and again."""
    address, photo = Address(plan.url), Path(plan.photos[0]).read_bytes()
    bad = request(plan, address, photo[: len(photo) // 2])
    requests = [bad] + [request(plan, address, photo)] * (at_once - 1)
    lost = uvloop.run(_poison(address, requests, rounds))
    return Poison(rounds * (at_once - 1), lost)


async def _poison(address: Address, requests: Sequence[bytes], rounds: int) -> int:
    lost = 0
    for _ in range(rounds):
        crowd = await asyncio.gather(*(address.connect() for _ in requests))
        answers = await asyncio.gather(
            *(one.ask(ask) for one, ask in zip(crowd, requests, strict=True)),
            return_exceptions=True,
        )
        lost += sum(isinstance(got, BaseException) or got[0] != 200 for got in answers[1:])
        _hang_up(crowd)
    return lost


def abandon(plan: Plan, counter: Counter, clients: int = 400) -> int:
    """Send from many clients, all of whom hang up once the first crops have been computed.

    Returns:
        Crops that were computed for nobody.
    """
    address = Address(plan.url)
    ask = request(plan, address, Path(plan.photos[0]).read_bytes())
    return uvloop.run(_abandon(address, ask, counter, clients))


async def _abandon(address: Address, ask: bytes, counter: Counter, clients: int) -> int:
    crowd = await asyncio.gather(*(address.connect() for _ in range(clients)))
    idle = counter.value
    for one in crowd:
        one.send(ask)
    await asyncio.gather(*(one.sent() for one in crowd))
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_PATIENCE_S):
            while counter.value == idle:
                await asyncio.sleep(0.001)
    _hang_up(crowd)
    before, last = counter.value, -1
    while counter.value != last:
        last = counter.value
        await asyncio.sleep(_QUIET_S)
    return last - before


def _hang_up(crowd: Sequence[Connection]) -> None:
    for one in crowd:
        one.hang_up()
