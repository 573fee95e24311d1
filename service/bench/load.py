"""Clients that post photos again and again: `python -m service.bench.load`, plan in, record out.

A closed loop is N clients who each send as soon as they are answered: it finds the most that a
server gives. An open loop is a crowd that knows nothing of the server: arrivals are Poisson's, at
a rate, and who has waited too long hangs up. Times are taken from the moment of sending, so the
client's own lateness is told apart, as `lag_ms`.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
import uuid
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

import uvloop

from service.bench.connection import Address, Connection

GAVE_UP, BROKEN = -1, -2
"""Statuses of what was never answered: the client hung up, or the server did."""

_PATIENCE_S = 60.0
_RETRY_S = 0.01
_PROBE_S = 0.05
_BURST = 16
"""Requests that are begun at the most before answers are looked at, by who is behind."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What one run of the load process does.

    Attributes:
        url: of the server.
        path: that photos are posted to, with its query.
        photos: files, posted in turn.
        seconds: how long requests are begun.
        clients: of a closed loop; None for an open one.
        rate: arrivals a second of an open loop.
        within_s: after which an open loop's client hangs up.
        requests: end after so many, if that comes first.
        health: path asked for 20 times a second meanwhile.
        recover_ms: after an open loop, ask one at a time until an answer is as quick as this.
        headers: of every request.
        form: name of the form's field that the photo goes into; None for a raw body.
    """

    url: str
    path: str
    photos: Sequence[str]
    seconds: float
    clients: int | None = None
    rate: float | None = None
    within_s: float = _PATIENCE_S
    requests: int | None = None
    health: str | None = None
    recover_ms: float | None = None
    headers: dict[str, str] = field(default_factory=dict)
    form: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """One request.

    Attributes:
        sent_s: since the run began.
        ms: until the answer was whole.
        status: HTTP's, or `GAVE_UP`, or `BROKEN`.
        people: in the answer.
    """

    sent_s: float
    ms: float
    status: int
    people: int


@dataclass(frozen=True, slots=True)
class Record:
    """All that a run saw."""

    answers: list[Answer]
    health_ms: list[float]
    lag_ms: list[float]
    recovered_s: float | None

    @staticmethod
    def parse(text: str) -> Record:
        """What the process printed."""
        values = json.loads(text)
        answers = [Answer(*row) for row in values.pop("answers")]
        return Record(answers, **values)


class _Asked(NamedTuple):
    """A request on its way."""

    began: float
    connection: Connection
    answer: asyncio.Future[tuple[int, bytes]]


class Crowd:
    """The clients of one run."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._address = Address(plan.url)
        self._requests = cycle(
            [request(plan, self._address, Path(photo).read_bytes()) for photo in plan.photos]
        )
        self._idle: list[Connection] = []
        self._answers: list[Answer] = []
        self._lag_ms: list[float] = []
        self._health_ms: list[float] = []
        self._asked: deque[_Asked] = deque()
        self._began = time.perf_counter()

    async def run(self) -> Record:
        """Everything that the plan says."""
        probing = asyncio.create_task(self._probe()) if self._plan.health else None
        if self._plan.rate is not None:
            await self._open_loop(self._plan.rate)
        else:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._plan.clients or 1):
                    group.create_task(self._client())
        if probing is not None:
            probing.cancel()
        answers = list(self._answers)
        recovered = None
        if self._plan.recover_ms is not None:
            recovered = await self._recover(self._plan.recover_ms)
        for connection in self._idle:
            connection.hang_up()
        return Record(answers, self._health_ms, self._lag_ms, recovered)

    def _over(self, begun: int) -> bool:
        most = self._plan.requests
        late = time.perf_counter() - self._began >= self._plan.seconds
        return late or (most is not None and begun >= most)

    async def _client(self) -> None:
        while not self._over(len(self._answers)):
            if (await self._post(_PATIENCE_S)).status != 200:
                await asyncio.sleep(_RETRY_S)

    async def _open_loop(self, rate: float) -> None:
        chance = random.Random(0)
        due, begun = time.perf_counter(), 0
        impatient = asyncio.create_task(self._hang_up_late())
        async with asyncio.TaskGroup() as group:
            while not self._over(begun):
                early = due - time.perf_counter()
                if early > 0 or begun % _BURST == 0:
                    await asyncio.sleep(max(0.0, early))
                self._lag_ms.append((time.perf_counter() - due) * 1000)
                if connection := self._take():
                    self._ask(connection)
                else:
                    group.create_task(self._post(self._plan.within_s))
                begun += 1
                due += chance.expovariate(rate)
        await asyncio.gather(*(asked.answer for asked in self._asked), return_exceptions=True)
        impatient.cancel()

    def _ask(self, connection: Connection) -> None:
        """`_post` on a connection that is there, without a task or a timer of its own.

        The clients share the machine with the server: what they take, it lacks.
        """
        began = time.perf_counter()
        answer = connection.asked(next(self._requests))
        answer.add_done_callback(partial(self._answered, began, connection))
        self._asked.append(_Asked(began, connection, answer))

    def _answered(
        self, began: float, connection: Connection, answer: asyncio.Future[tuple[int, bytes]]
    ) -> None:
        status, body = GAVE_UP, b""
        if not answer.cancelled():
            status, body = (BROKEN, b"") if answer.exception() else answer.result()
        self._account(began, connection, status, body)

    async def _hang_up_late(self) -> None:
        """All wait equally long, so who asked first gives up first."""
        within_s = self._plan.within_s
        while True:
            left = within_s
            while self._asked:
                first = self._asked[0]
                left = first.began + within_s - time.perf_counter()
                if not first.answer.done():
                    if left > 0:
                        break
                    first.answer.cancel()
                self._asked.popleft()
            await asyncio.sleep(left if self._asked else within_s)

    async def _post(self, patience_s: float) -> Answer:
        began, connection, body = time.perf_counter(), None, b""
        try:
            async with asyncio.timeout(patience_s):
                connection = self._take() or await self._address.connect()
                status, body = await connection.ask(next(self._requests))
        except TimeoutError:
            status = GAVE_UP
        except OSError:
            status = BROKEN
        return self._account(began, connection, status, body)

    def _account(
        self, began: float, connection: Connection | None, status: int, body: bytes
    ) -> Answer:
        took = time.perf_counter() - began
        if connection is not None:
            if connection.open and status > 0:
                self._idle.append(connection)
            else:
                connection.hang_up()
        people = _people(body) if status == 200 else 0
        answer = Answer(began - self._began, took * 1000, status, people)
        self._answers.append(answer)
        return answer

    def _take(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.open:
                return connection
        return None

    async def _probe(self) -> None:
        assert self._plan.health is not None
        ask = self._address.request("GET", self._plan.health, self._plan.headers)
        connection = None
        while True:
            began, least = time.perf_counter(), 0.0
            try:
                if connection is None or not connection.open:
                    connection = await self._address.connect()
                await connection.ask(ask)
            except OSError:
                least = _PATIENCE_S  # nobody there is as bad as no answer
            finally:  # the run's end may cut the last one off; it took at least this long
                self._health_ms.append(max(least, time.perf_counter() - began) * 1000)
            await asyncio.sleep(max(0.0, began + _PROBE_S - time.perf_counter()))

    async def _recover(self, normal_ms: float) -> float | None:
        """Seconds from the last arrival until a request was sent that took no longer than usual."""
        began = time.perf_counter()
        while (sent := time.perf_counter() - began) < _PATIENCE_S / 2:
            answer = await self._post(_PATIENCE_S)
            if answer.status == 200 and answer.ms <= normal_ms:
                return sent
            if answer.status != 200:
                await asyncio.sleep(_RETRY_S)
        return None


def _people(body: bytes) -> int:
    """People in an answer; 0 where its format does not tell."""
    try:
        return len(json.loads(body)["people"])
    except (ValueError, TypeError, LookupError):
        return 0


def request(plan: Plan, address: Address, photo: bytes) -> bytes:
    """The POST of one photo, as it goes over the wire."""
    headers, body = dict(plan.headers), photo
    if plan.form is None:
        headers["Content-Type"] = "application/octet-stream"
    else:
        boundary = uuid.uuid4().hex
        headers["Content-Type"] = f"multipart/form-data; boundary={boundary}"
        disposition = f'form-data; name="{plan.form}"; filename="photo.jpg"'
        part = f"Content-Disposition: {disposition}\r\nContent-Type: image/jpeg\r\n\r\n"
        body = b"".join(
            [f"--{boundary}\r\n{part}".encode(), photo, f"\r\n--{boundary}--\r\n".encode()]
        )
    return address.request("POST", plan.path, headers, body)


def _yield_to_servers() -> None:
    """Not to take a core from the server that has just woken us: clients have their own elsewhere.

    Here the kernel would let whoever is woken go first, in the midst of the server's answer.
    """
    if hasattr(os, "SCHED_BATCH"):
        with suppress(OSError):  # a sandbox may forbid it
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


async def _main() -> None:
    record = await Crowd(Plan(**json.load(sys.stdin))).run()
    values = asdict(record)
    values["answers"] = [list(answer.values()) for answer in values["answers"]]
    json.dump(values, sys.stdout)


if __name__ == "__main__":
    _yield_to_servers()
    uvloop.run(_main())
