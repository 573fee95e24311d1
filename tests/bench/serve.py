"""`make bench`: what the service takes on this machine, measured over HTTP.

The server is a process of its own, as `subpose serve` starts it, and so are the clients that load
it. The photo is the page's sample at 640x480, of which four people are asked for, so that figures
of different machines are of the same work.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlencode, urlsplit

from PIL import Image, ImageOps

from service.bench.figures import figures
from service.bench.load import Plan
from service.bench.process import Server, load, own_server
from service.doctor import SAMPLE

SIZE = (640, 480)
PEOPLE = 4
CLIENTS = (1, 4, 16)
SAMPLES = [64, 256, 1024]


class Client:
    """One connection, kept."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname
        self._connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=120)

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes, float]:
        """Status, body and milliseconds of a call."""
        began = time.perf_counter()
        self._connection.request(method, path, body)
        answer = self._connection.getresponse()
        content = answer.read()
        return answer.status, content, (time.perf_counter() - began) * 1000


def photo() -> bytes:
    """The sample at 640x480, as JPEG."""
    with Image.open(SAMPLE) as sample:
        fitted = ImageOps.fit(sample, SIZE, Image.Resampling.LANCZOS)
    file = io.BytesIO()
    fitted.save(file, "JPEG", quality=90)
    return file.getvalue()


def p50(client: Client, method: str, path: str, body: bytes | None, repeats: int) -> float:
    """Milliseconds, one call after the other."""
    times = []
    for _ in range(3 + repeats):  # the first three only warm caches
        status, content, took = client.ask(method, path, body)
        if status != 200:
            sys.exit(f"{method} {path.split('?')[0]} answered {status}: {content[:300]!r}")
        times.append(took)
    return median(times[3:])


def pose(**parameters: object) -> str:
    """POST /pose for the bench's people."""
    return f"/pose?{urlencode({'max_people': PEOPLE, **parameters})}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.serve", description=__doc__)
    parser.add_argument("--repeats", type=int, default=30, help="calls behind each median")
    parser.add_argument("--seconds", type=float, default=10, help="of load per number of clients")
    parser.add_argument("--samples", type=int, nargs="+", default=SAMPLES, help="of heatmaps")
    options = parser.parse_args()
    data = photo()
    with own_server() as server, tempfile.TemporaryDirectory() as folder:
        client = Client(server.url)
        card = next(card for card in _json(client, "/models")["models"] if card["default"])
        heads = [head["name"] for head in card["heads"]]
        print(f"{card['name']} on {card['engine']}/{card['device']}, {os.cpu_count()} cores, "
              f"Python {platform.python_version()}, {platform.machine()}")  # fmt: skip
        print(f"time to ready        {server.ready_s:6.2f} s")
        _photos(client, heads, data, options.repeats)
        print(f"peak RSS so far      {server.peak_mb:6.0f} MB")
        _heatmaps(client, heads, data, options.samples, options.repeats)
        file = Path(folder) / "photo.jpg"
        file.write_bytes(data)
        _load(server, file, options.seconds)
        print(f"\npeak RSS             {server.peak_mb:6.0f} MB")


def _photos(client: Client, heads: list[str], data: bytes, repeats: int) -> None:
    answer = _json(client, pose(), data)
    count = len(answer["people"])
    print(f"\none {SIZE[0]}x{SIZE[1]} photo, {count} people: p50, ms")
    print(f"{'head':<10}{'detector':>10}{'boxes':>10}")
    for head in heads:
        found = p50(client, "POST", pose(head=head), data, repeats)
        given = p50(client, "POST", pose(head=head, boxes=_boxes(answer)), data, repeats)
        print(f"{head:<10}{found:>10.1f}{given:>10.1f}")


def _heatmaps(
    client: Client, heads: list[str], data: bytes, sizes: list[int], repeats: int
) -> None:
    answer = _json(client, pose(), data)
    box = _boxes(answer, 1)
    print("\nheatmap of one person as png: p50, ms (POST with its box, so without a detector)")
    print(f"{'head':<10}{'samples':>8}{'GET':>10}{'POST':>10}{'POST/GET':>10}")
    for head in heads:
        for samples in sizes:
            wish = {"head": head, "resolution": samples}
            kept = f"/heatmap?{urlencode({'id': answer['id'], **wish})}"
            whole = f"/heatmap?{urlencode({'boxes': box, **wish})}"
            get = p50(client, "GET", kept, None, repeats)
            post = p50(client, "POST", whole, data, repeats)
            print(f"{head:<10}{samples:>8}{get:>10.1f}{post:>10.1f}{post / get:>10.1f}")


def _load(server: Server, file: Path, seconds: float) -> None:
    print("\nphoto to joints, the default head, with the detector")
    print("clients  people/s  photos/s    p50 ms    p99 ms  failed")
    for clients in CLIENTS:
        plan = Plan(server.url, pose(keep=False), [str(file)], seconds, clients=clients)
        found = figures(plan, load(plan))
        lost = found.sent - found.answered
        print(f"{clients:>7}{found.people_s:>10.1f}{found.photos_s:>10.1f}"
              f"{found.p50_ms:>10.0f}{found.p99_ms:>10.0f}{lost:>8}")  # fmt: skip


def _json(client: Client, path: str, body: bytes | None = None) -> Any:  # noqa: ANN401
    status, content, _ = client.ask("POST" if body else "GET", path, body)
    if status != 200:
        sys.exit(f"{path} answered {status}: {content[:300]!r}")
    return json.loads(content)


def _boxes(answer: dict[str, Any], most: int = PEOPLE) -> str:
    people = answer["people"][:most]
    return json.dumps([[p["box"][side] for side in ("x", "y", "width", "height")] for p in people])


if __name__ == "__main__":
    main()
