"""Clients that post one photo again and again, in a process of their own."""

from __future__ import annotations

import http.client
import json
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Load:
    """What came of it."""

    seconds: float
    people: int
    failed: int
    times_ms: list[float]


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


def load(url: str, path: str, photo: bytes, *, clients: int, seconds: float) -> Load:
    """Post for a while from several connections at once; each sends as soon as it is answered."""
    times: list[float] = []
    people: list[int] = []
    failed: list[int] = []
    began = time.perf_counter()

    def one() -> None:
        client = Client(url)
        while time.perf_counter() - began < seconds:
            status, content, took = client.ask("POST", path, photo)
            if status == 200:
                times.append(took)
                people.append(len(json.loads(content)["people"]))
            else:
                failed.append(status)
                time.sleep(0.01)

    threads = [threading.Thread(target=one) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Load(time.perf_counter() - began, sum(people), len(failed), times)


if __name__ == "__main__":
    url, path, file, clients, seconds = sys.argv[1:]
    found = load(url, path, Path(file).read_bytes(), clients=int(clients), seconds=float(seconds))
    print(json.dumps(asdict(found)))
