"""A real process: what it imports, how it starts, how it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import Queue

import httpx
import pytest

from tests.http.serving import photo, until

ROOT = Path(__file__).parents[2]

# The real server around a fake house, whose engine takes as long as the test lets it.
FAKE = """
import logging, sys
from service import app, server
from service.settings import Settings
from tests.fakes import FakeHouse
logging.basicConfig(level=logging.INFO)
house = FakeHouse()
settings = Settings()
application = app.create_app(settings, house.load)
encode = house.engine.encode
def slowly(crops):
    if application.state.subpose.gate.state != "starting":  # the warm-up is not meant
        print("encoding", flush=True)
        sys.stdin.readline()
    return encode(crops)
house.engine.encode = slowly
server.Server(application, settings).run()
"""


class Process:
    """A server process and what it says."""

    def __init__(self, arguments: list[str], **environment: str) -> None:
        kept = {name: value for name, value in os.environ.items() if name[:8] != "SUBPOSE_"}
        self.process = subprocess.Popen(
            [sys.executable, "-u", *arguments],
            cwd=ROOT,
            env={**kept, "SUBPOSE_PORT": "0", "SUBPOSE_DRAIN_LEAD_SECONDS": "0.5", **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self._queue: Queue[str | None] = Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self._queue.put(line)
        self._queue.put(None)

    def until(self, pattern: str) -> re.Match[str]:
        while True:
            line = self._queue.get(timeout=120)
            assert line is not None, f"ended before {pattern!r}: {''.join(self.lines)}"
            self.lines.append(line)
            if match := re.search(pattern, line):
                return match


@contextmanager
def process(arguments: list[str], **environment: str) -> Iterator[Process]:
    started = Process(arguments, **environment)
    try:
        yield started
    finally:
        started.process.kill()
        started.process.communicate()


def test_sigterm_finishes_what_was_accepted_and_refuses_the_rest() -> None:
    environment = {
        "SUBPOSE_LATEST": "true", "SUBPOSE_MODEL": "fake", "SUBPOSE_DRAIN_LEAD_SECONDS": "3",
        "SUBPOSE_THREADS": "1",  # one batch at a time asks for a line of ours
    }  # fmt: skip
    with process(["-c", FAKE], **environment) as server:
        url = (
            server.until(r"listening on (http://\S+)|running on (http://\S+)").group(0).split()[-1]
        )
        with httpx.Client(base_url=url, timeout=60) as client:
            until(lambda: client.get("/readyz").status_code == 200)
            answers: list[int] = []

            def ask() -> None:
                response = httpx.post(f"{url}/pose", content=photo(), timeout=60, verify=False)
                answers.append(response.status_code)

            asking = [threading.Thread(target=ask) for _ in range(12)]
            for thread in asking:
                thread.start()
            server.until("encoding")
            until(lambda: "subpose_requests_in_work 12.0" in client.get("/metrics").text)
            server.process.send_signal(signal.SIGTERM)
            server.until("leaving")
            # Balancers are told at once, and what is in work goes on.
            ready = client.get("/readyz")
            assert (ready.status_code, ready.json()["code"]) == (503, "draining")
            until(lambda: client.post("/pose", content=b"no photo").status_code == 503)
            late = client.post("/pose", content=photo())
            assert (late.status_code, late.json()["code"]) == (503, "draining")
            assert not answers
            assert server.process.stdin
            server.process.stdin.write("\n" * 12)
            server.process.stdin.flush()
            for thread in asking:
                thread.join(60)
        assert answers == [200] * 12
        assert server.process.wait(60) == 0


def test_sigterm_waits_for_a_batch_that_never_ends_no_longer_than_it_may() -> None:
    environment = {
        "SUBPOSE_MODEL": "fake", "SUBPOSE_DRAIN_LEAD_SECONDS": "0", "SUBPOSE_DRAIN_SECONDS": "0.2",
    }  # fmt: skip
    with process(["-c", FAKE], **environment) as server, ThreadPoolExecutor(1) as pool:
        url = server.until(r"ready on (http://\S+)").group(1)
        asked = pool.submit(httpx.post, f"{url}/pose", content=photo(), timeout=60)
        server.until("encoding")
        server.process.send_signal(signal.SIGTERM)
        answer = asked.result(60)
        assert (answer.status_code, answer.json()["code"]) == (503, "draining")
        assert answer.headers["retry-after"]
        assert server.process.wait(60) == 0
        assert "Traceback" not in "".join(server.lines)


LOADING = """
import logging, time
from service import app, server
from service.settings import Settings
logging.basicConfig(level=logging.INFO)
def load(settings):
    time.sleep(3600)
settings = Settings()
server.Server(app.create_app(settings, load), settings).run()
"""


def test_sigterm_does_not_wait_for_weights_that_nobody_will_ask_for() -> None:
    with process(["-c", LOADING], SUBPOSE_DRAIN_LEAD_SECONDS="0") as server:
        server.until("running on")
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0


def test_sigterm_in_the_midst_of_a_runtime_s_warm_up_ends_in_order() -> None:
    with process(["-m", "service", "serve"], SUBPOSE_DRAIN_LEAD_SECONDS="0") as server:
        server.until("serving models")
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0


DYING = """
import logging
from service import app, server
from service.settings import Settings
from tests.fakes import FakeHouse
logging.basicConfig(level=logging.INFO)
house = FakeHouse()
settings = Settings()
running = server.Server(app.create_app(settings, house.load), settings)
encode = house.engine.encode
def die(crops):
    if running._state.gate.inside:
        raise SystemExit
    return encode(crops)
house.engine.encode = die
running.run()
raise SystemExit(running.status)
"""


def test_when_the_device_dies_nobody_hangs_and_the_process_ends_with_a_code() -> None:
    with process(["-c", DYING], SUBPOSE_MODEL="fake", SUBPOSE_STALL_SECONDS="1000") as server:
        url = server.until(r"ready on (http://\S+)").group(1)
        answer = httpx.post(f"{url}/pose", content=photo(), timeout=60)
        assert (answer.status_code, answer.json()["code"]) == (500, "engine_failed")
        assert server.process.wait(60) == 3


def test_a_setting_that_nothing_has_ends_the_process_with_its_name() -> None:
    with process(["-m", "service", "serve"], SUBPOSE_PROT="1") as server:
        server.until("no setting SUBPOSE_PROT; did you mean SUBPOSE_PORT")
        assert server.process.wait(60) == 2
        assert "Traceback" not in "".join(server.lines)


def test_weights_that_cannot_be_loaded_end_the_process_with_a_reason() -> None:
    with process(["-m", "service", "serve"], SUBPOSE_MODEL="nothing") as server:
        server.until("cannot start: .*'nothing'")
        assert server.process.wait(60) == 2
        assert "Traceback" not in "".join(server.lines)


def test_a_missing_device_ends_the_process_and_never_falls_back() -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine has the device")
    with process(["-m", "service", "serve"], SUBPOSE_DEVICE="cuda") as server:
        server.until("cannot start: .*[Cc][Uu][Dd][Aa]")
        assert server.process.wait(60) == 2


SERVE_ONE = """
import sys
from tests.http.serving import photo, running
with running(None) as server, server.client() as client:
    url = "/pose?detector=whole&head=simcc,nerpe,heatmap"
    assert client.post(url, content=photo()).json()["people"]
print("imported:", *sorted({name.split(".")[0] for name in sys.modules}))
"""


def test_serving_a_photo_imports_no_torch() -> None:
    with process(["-c", SERVE_ONE]) as server:
        imported = server.until("imported: (.*)").group(1).split()
        assert server.process.wait(60) == 0
    assert "onnxruntime" in imported
    for name in ("torch", "torchvision", "timm", "ultralytics", "training", "matplotlib", "scipy"):
        assert name not in imported
