"""Who is compared, and how each is started."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from service.bench.load import Plan
from service.bench.process import Server, free_port, listening_on, profiler, running
from tests.bench.peers.device import COUNTER, HEIGHT, WIDTH


@dataclass(frozen=True, slots=True)
class Field:
    """What a comparison is run on.

    Attributes:
        name: `photos`, the real model; `device`, the simulated one.
        photos: files that are posted in turn.
        within_ms: how long a client waits in an open loop.
        engine: that all of them run the real model on.
        counter: file in which the simulated device counts crops.
    """

    name: str
    photos: tuple[str, ...]
    within_ms: int
    engine: str = "onnxruntime"
    counter: Path | None = None

    @property
    def env(self) -> dict[str, str]:
        """For the servers."""
        if self.counter:
            return {"BENCH_DEVICE": "simulated", COUNTER: str(self.counter)}
        return {"SUBPOSE_ENGINE": self.engine}


@dataclass(frozen=True, slots=True)
class Contender:
    """A server of the comparison.

    Attributes:
        name: in tables.
        module: that is run.
        health: path of its health route, which also says when it is ready.
        form: name of the form's field, where it takes no raw bodies.
    """

    name: str
    module: str
    health: str = "/healthz"
    form: str | None = None

    @contextmanager
    def serve(
        self, field: Field, *, patient: bool = True, profile: Path | None = None
    ) -> Iterator[Server]:
        """Run it for a while; impatient, its own time limit is that of an open loop's clients."""
        port = free_port()
        argument = "serve" if self.module == "service" else str(port)
        command = [*profiler(profile), sys.executable, "-m", self.module, argument]
        ready = "/readyz" if self.name == OURS else self.health
        limit = {} if patient else {"BENCH_WITHIN_MS": str(field.within_ms)}
        env = {**field.env, **limit, **listening_on(port), **_mosec(port)}
        url = f"http://127.0.0.1:{port}"
        with running(command, url, ready, env=env, profiled=profile is not None) as server:
            yield server

    def plan(self, field: Field, url: str, seconds: float) -> Plan:
        """Posting the field's photos to it."""
        path = "/pose"
        if self.name == OURS:
            path += "?keep=false"
            if field.counter:
                path += f"&boxes=[[0,0,{WIDTH},{HEIGHT}]]"
        return Plan(url, path, field.photos, seconds, form=self.form)


def _mosec(port: int) -> Mapping[str, str]:
    """It reads no argument of a script's."""
    return {
        "MOSEC_ADDRESS": "127.0.0.1",
        "MOSEC_PORT": str(port),
        "MOSEC_LOG_LEVEL": "warning",
    }


OURS = "subpose"


def contenders(field: Field) -> list[Contender]:
    """All of a field."""
    ours = "tests.bench.peers.subpose_server" if field.counter else "service"
    return [
        Contender(OURS, ours),
        Contender("FastAPI", "tests.bench.peers.fastapi_server"),
        Contender("LitServe", "tests.bench.peers.litserve_server", "/health", form="image"),
        Contender("mosec", "tests.bench.peers.mosec_server", "/"),
    ]
