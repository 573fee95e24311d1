"""The verb: measure, show a table, write the figures."""

from __future__ import annotations

import json
import math
import os
import platform
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from http.client import HTTPException
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from models.files import write_whole
from service.bench.figures import Figures, failure, figures
from service.bench.load import Plan
from service.bench.process import BenchError, UnreachableError, ended_in_order, load, own_server

_DIRECTLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # as the clients do
_PATIENCE_S = 10
_PACKAGES = ("numpy", "onnxruntime", "openvino", "torch", "fastapi", "uvicorn", "uvloop")


@dataclass(frozen=True, slots=True)
class Wish:
    """What the command line asks for.

    Attributes:
        photos: posted in turn.
        url: of the server; None to start one.
        clients: of each closed loop.
        rates: of each open loop, photos a second; with an `x` times the best closed loop's.
        seconds: of each.
        within_ms: how long an open loop's client waits, and the deadline that it tells the server.
        query: of POST /pose.
        key: sent as bearer token.
        profile: of the server that is started.
    """

    photos: Sequence[Path]
    url: str | None
    clients: Sequence[int]
    rates: Sequence[str]
    seconds: float
    within_ms: int
    query: str
    key: str | None
    profile: Path | None


def bench(wish: Wish, console: Console) -> dict[str, Any]:
    """Measure, showing each load as it is done.

    Returns:
        The machine's facts and every load's figures, for JSON.

    Raises:
        UnreachableError: no server, or one that is not ready.
        BenchError: one that does not answer the photos.
    """
    with ended_in_order(), ExitStack() as stack:
        url = wish.url
        if url is None:
            url = stack.enter_context(own_server(profile=wish.profile)).url
        else:
            _look(url)
        plan = _plan(url, wish)
        lone_ms = _check(plan, wish.photos)
        facts = {**machine(), **_engine(url, wish.key)}
        console.print(", ".join(f"{name} {value}" for name, value in facts.items()))
        done: list[dict[str, Any]] = []
        for found in _measured(plan, wish, lone_ms):
            if not done:
                console.print(_row(_HEADINGS))
            console.print(_row(_cells(found)))
            done.append(asdict(found))
    return {"machine": facts, "photos": [photo.name for photo in wish.photos], "loads": done}


def write_json(path: Path, result: dict[str, Any]) -> None:
    """Write figures; what there was none of becomes null."""
    write_whole(path, (json.dumps(finite(result), indent=1) + "\n").encode())


def finite(value: Any) -> Any:  # noqa: ANN401
    """The same for JSON, which knows no NaN; four significant digits are enough."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.4g}") if math.isfinite(value) else None
    return value


def machine(*further: str) -> dict[str, str]:
    """What figures depend on: the processor and versions, of `further` packages too."""
    facts = {
        "cores": str(len(os.sched_getaffinity(0))),
        "processor": _processor(),
        "python": platform.python_version(),
    }
    for package in (*_PACKAGES, *further):
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            continue
    return facts


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _look(url: str) -> None:
    """See whether a server is there, before clients find nothing but broken connections."""
    try:
        with _DIRECTLY.open(f"{url}/readyz", timeout=_PATIENCE_S):
            pass
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 503:  # any other answer is that of a server without this route
            raise UnreachableError(f"{url} is not ready: try again in a moment") from error
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        why = getattr(reason, "strerror", None) or reason
        raise UnreachableError(f"{url} cannot be reached: {why}") from error


def _plan(url: str, wish: Wish) -> Plan:
    return Plan(
        url=url,
        path=f"/pose?{wish.query}",
        photos=[str(photo) for photo in wish.photos],
        seconds=wish.seconds,
        headers={"Authorization": f"Bearer {wish.key}"} if wish.key else {},
    )


def _check(plan: Plan, photos: Sequence[Path]) -> float:
    """Post each photo once, then each again; milliseconds that the slowest took the second time."""
    once = replace(plan, clients=1, requests=2 * len(photos), seconds=math.inf)
    record = load(once)
    for photo, answer in zip(photos, record.answers, strict=False):
        if answer.status != 200:
            raise BenchError(f"{plan.url}{plan.path}: {photo}: {failure(answer)}")
    return max(answer.ms for answer in record.answers[len(photos) :])


def _measured(plan: Plan, wish: Wish, lone_ms: float) -> Iterator[Figures]:
    best = 0.0
    for clients in wish.clients:
        closed = replace(plan, clients=clients, health="/healthz")
        found = figures(closed, load(closed))
        best = max(best, found.photos_s)
        yield found
    for rate in wish.rates:
        if not (arrivals := float(rate[:-1]) * best if rate.endswith("x") else float(rate)):
            raise BenchError(f"--rate {rate}: no closed loop had an answer in {wish.seconds:g} s")
        separator = "&" if wish.query else ""
        arriving = replace(
            plan,
            path=f"{plan.path}{separator}deadline_ms={wish.within_ms}",
            rate=arrivals,
            within_s=wish.within_ms / 1000,
            health="/healthz",
            recover_ms=2 * lone_ms + 20,
        )
        yield figures(arriving, load(arriving))


def _engine(url: str, key: str | None) -> dict[str, str]:
    """What the server says it runs on."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    with _DIRECTLY.open(urllib.request.Request(f"{url}/models", headers=headers)) as answer:
        models = json.load(answer)["models"]
    card = next(card for card in models if card["default"])
    return {"model": card["name"], "engine": f"{card['engine']}/{card['device']}"}


_HEADINGS = (
    "load", "sent/s", "photos/s", "people/s", "p50 ms", "p99 ms",
    "refused", "p99 ms", "late", "failed", "healthz p99", "recovered s",
)  # fmt: skip


def _cells(found: Figures) -> tuple[str, ...]:
    rates = (found.offered_s, found.photos_s, found.people_s)
    times = (found.p50_ms, found.p99_ms, found.refused_p99_ms, found.health_p99_ms)
    p50, p99, refused, health = ("" if math.isnan(ms) else f"{ms:.0f}" for ms in times)
    lost = (str(number or "") for number in (found.late, found.failed))
    recovered = "" if found.recovered_s is None else f"{found.recovered_s:.1f}"
    return (
        found.load, *(f"{rate:.1f}" for rate in rates), p50, p99,
        str(found.refused or ""), refused, *lost, health, recovered,
    )  # fmt: skip


def _row(cells: Sequence[str]) -> Table:
    """A line of the table: printed as soon as it is known."""
    table = Table.grid(padding=(0, 2))
    for number, heading in enumerate(_HEADINGS):
        table.add_column(justify="right" if number else "left", min_width=max(8, len(heading)))
    table.add_row(*cells)
    return table
