"""`make bench-peers`: this service and its peers on the same machine, models and photos.

Two fields: the real model on photos of several people, and a simulated device (4 + 0.15 n ms a
batch of n), which shows what the serving alone costs. Servers take turns in rounds, one at a time,
so that a machine's moods touch all of them; a figure is the median of its rounds.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import linear_regression, mean, median
from typing import Any

from PIL import Image

from service.bench.command import finite, machine
from service.bench.figures import Figures, figures
from service.bench.load import Plan
from service.bench.process import Server, ended_in_order, load, raise_file_limit
from service.doctor import SAMPLE
from tests.bench.faults import abandon, poison
from tests.bench.peers.contenders import OURS, Contender, Field, contenders
from tests.bench.peers.device import HEIGHT, WIDTH, Counter
from tests.bench.report import write_report

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "../shared/data/demo"
SEVERAL_PEOPLE = ("coco_000000000790.jpg", "coco_000000000872.jpg", "coco_000000091406.jpg")
BODY_BYTES = 36_900

_LAPS = 5
"""Times that each client of a closed loop is answered, or would be at the ceiling's rate: a shorter
one is over before those who began together have their first answers."""


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is measured.

    Attributes:
        rounds: of the closed loops.
        clients: of each closed loop.
        overload: open loops' rates, times the server's own best closed loop.
        seconds: of a load at least, by field.
        requests: over which memory is watched.
    """

    rounds: int
    clients: tuple[int, ...]
    overload: tuple[float, ...]
    seconds: dict[str, float]
    requests: int


FULL = Extent(2, (1, 4, 16, 32), (0.5, 1, 2, 3, 10), {"photos": 3, "device": 2}, 10_000)
QUICK = Extent(1, (1, 16), (1, 3), {"photos": 2, "device": 1}, 1_000)


def measure(field: Field, extent: Extent, only: Sequence[str]) -> dict[str, Any]:
    """One field's figures, by contender."""
    crew = [one for one in contenders(field) if not only or one.name in only]
    closed: dict[str, dict[int, list[Figures]]] = defaultdict(lambda: defaultdict(list))
    ceilings: list[dict[str, float]] = []
    seen: dict[str, dict[str, Any]] = {one.name: {} for one in crew}
    for number in range(extent.rounds):
        ceilings.append(ceiling(field, extent.seconds[field.name]))
        for one in crew:
            tell(f"{field.name}, round {number + 1}: {one.name}")
            with one.serve(field) as server:
                plan = one.plan(field, server.url, extent.seconds[field.name])
                seen[one.name]["people"] = check(plan)
                each_s = mean(seen[one.name]["people"]) / ceilings[0]["people_s"]
                for clients in extent.clients:
                    seconds = max(plan.seconds, _LAPS * clients * each_s)
                    loop = replace(plan, clients=clients, seconds=seconds, health=one.health)
                    before = server.cpu_s
                    record = load(loop)
                    cpu_ms = (server.cpu_s - before) * 1000 / len(record.answers)
                    closed[one.name][clients].append(figures(loop, record))
                seen[one.name].setdefault("cpu_ms", []).append(cpu_ms)  # of the largest crowd
                if number == extent.rounds - 1:
                    seen[one.name] |= faults(field, extent, server, plan)
    for one in crew:
        typical = {clients: middle(runs) for clients, runs in closed[one.name].items()}
        seen[one.name]["cpu_ms"] = median(seen[one.name]["cpu_ms"])
        seen[one.name]["closed"] = {str(clients): found for clients, found in typical.items()}
        tell(f"{field.name}, overload: {one.name}")
        seen[one.name]["open"] = overload(one, field, extent, typical)
    if len({tuple(found["people"]) for found in seen.values()}) > 1:
        sys.exit(f"the servers do not find the same people: {seen}")
    return {
        "within_ms": field.within_ms,
        "ceiling": {key: median(one[key] for one in ceilings) for key in ceilings[0]},
        "servers": seen,
    }


def faults(field: Field, extent: Extent, server: Server, plan: Plan) -> dict[str, Any]:
    """Bad requests, clients that go away, and what many requests leave in memory."""
    found: dict[str, Any] = {"poison": asdict(poison(plan))}
    if field.counter:
        found["abandoned"] = abandon(plan, Counter(field.counter))
        found["memory_mb"], found["memory_slope_mb"] = memory(plan, server, extent.requests)
    return found


def overload(
    one: Contender, field: Field, extent: Extent, typical: dict[int, dict[str, Any]]
) -> dict[str, Any]:
    """Open loops at multiples of the best closed one, from clients who wait only so long."""
    best = max(run["photos_s"] for run in typical.values())
    lone_ms = typical[min(typical)]["p99_ms"]
    found = {}
    with one.serve(field, patient=False) as server:
        plan = one.plan(field, server.url, extent.seconds[field.name])
        check(plan)
        deadline = f"{'&' if '?' in plan.path else '?'}deadline_ms={field.within_ms}"
        for times in extent.overload:
            loop = replace(
                plan,
                path=plan.path + (deadline if one.name == OURS else ""),
                rate=times * best,
                within_s=field.within_ms / 1000,
                health=one.health,
                recover_ms=1.5 * lone_ms + 20,
            )
            found[f"{times:g}"] = asdict(figures(loop, load(loop)))
    return found


def profile(field: Field, folder: Path, seconds: float) -> None:
    """Where this service's threads spend their time with 16 clients, as a flame graph."""
    ours = contenders(field)[0]
    with ours.serve(field, profile=folder / f"{field.name}.svg") as server:
        plan = ours.plan(field, server.url, seconds)
        check(plan)
        load(replace(plan, clients=16))


def check(plan: Plan) -> list[int]:
    """Post each photo until all is warm; how many people are in each."""
    begun = time.monotonic()
    once = replace(plan, clients=1, seconds=60, requests=3 * len(plan.photos))
    while time.monotonic() - begun < 60:
        answers = load(once).answers[-len(plan.photos) :]
        if all(answer.status == 200 for answer in answers):
            return [answer.people for answer in answers]
    return sys.exit(f"{plan.url}{plan.path} answers {[answer.status for answer in answers]}")


def memory(plan: Plan, server: Server, requests: int) -> tuple[float, float]:
    """MB after so many requests, and by how much they grow in 10^4 of them, once warm."""
    points = []
    for part in range(6):
        load(replace(plan, clients=16, seconds=120, requests=requests // 6))
        points.append(((part + 1) * requests // 6, server.memory_mb))
    slope, _ = linear_regression(*zip(*points[1:], strict=True))
    return points[-1][1], slope * 10_000


def ceiling(field: Field, seconds: float) -> dict[str, float]:
    """The same work in a process of its own without a server: alone, and in batches."""

    def run(batch: int) -> dict[str, float]:
        module = "tests.bench.peers.ceiling"
        command = [sys.executable, "-m", module, str(seconds), str(batch), *field.photos]
        done = subprocess.run(
            command, env={**os.environ, **field.env}, capture_output=True, text=True, check=True,
            start_new_session=True,
        )  # fmt: skip
        result: dict[str, float] = json.loads(done.stdout)
        return result

    alone, batched = run(1), run(16 if field.counter else 4)
    return {
        "lone_people_s": alone["one_loop"],
        "lone_ms": alone["ms"],
        "lone_in_two_people_s": alone["two_loops"],
        "batched_people_s": batched["one_loop"],
        "batched_in_two_people_s": batched["two_loops"],
        "people_s": max(alone["people_s"], batched["people_s"]),
    }


def middle(runs: Sequence[Figures]) -> dict[str, Any]:
    """Each figure's median over the rounds."""
    rows = [asdict(run) for run in runs]
    return {
        key: median(row[key] for row in rows)
        if isinstance(value, float | int) and key != "sent"
        else value
        for key, value in rows[0].items()
    }


def fields(folder: Path, wanted: Sequence[str], engine: str = "onnxruntime") -> Iterator[Field]:
    """What is compared on."""
    if "photos" in wanted:
        several = [DEMO / name for name in SEVERAL_PEOPLE]
        photos = [SAMPLE, *(path.resolve() for path in several if path.exists())]
        yield Field("photos", tuple(map(str, photos)), 2000, engine)
    if "device" in wanted:
        crop = folder / "crop.jpg"
        crop.write_bytes(one_crop())
        Counter.create(folder / "crops")
        yield Field("device", (str(crop),), 250, counter=folder / "crops")


def one_crop() -> bytes:
    """A person of the sample as JPEG of about 36.9 kB, the body that SERVING's figures are for."""
    with Image.open(SAMPLE) as sample:
        person = sample.crop((0, 0, 320, 427)).resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)
    files = []
    for quality in range(70, 101):
        file = io.BytesIO()
        person.save(file, "JPEG", quality=quality, subsampling=0)
        files.append(file.getvalue())
    return min(files, key=lambda data: abs(len(data) - BODY_BYTES))


def tell(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.compare", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two minutes rather than fifteen")
    parser.add_argument("--fields", default="photos,device", help="of these")
    parser.add_argument("--engine", default="onnxruntime", help="of the real model, for all")
    parser.add_argument("--only", default="", help="these servers, by name")
    parser.add_argument("--profile", type=Path, help="folder for flame graphs of this service")
    parser.add_argument("--page", type=Path, help="Markdown page to put the tables into")
    options = parser.parse_args(arguments)
    extent = QUICK if options.quick else FULL
    only = [name for name in options.only.split(",") if name]
    began = time.monotonic()
    raise_file_limit()
    facts = {**machine("litserve", "mosec"), "engine": options.engine}
    result: dict[str, Any] = {"machine": facts, "quick": options.quick, "fields": {}}
    with ended_in_order(), tempfile.TemporaryDirectory() as folder:
        for field in fields(Path(folder), options.fields.split(","), options.engine):
            if options.profile:
                profile(field, options.profile, 10)
            else:
                result["fields"][field.name] = measure(field, extent, only)
    if options.profile:
        return
    result["seconds"] = time.monotonic() - began
    print(write_report(finite(result), options.page))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
