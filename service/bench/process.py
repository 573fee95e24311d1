"""Servers and clients as processes of their own, none of which outlives the bench."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

from service.bench.load import Plan, Record

_GRACE_S = 10
_PROFILES = {".svg": "flamegraph", ".json": "speedscope", ".txt": "raw"}


class BenchError(Exception):
    """What keeps the bench from going on; the message says it all."""


class UnreachableError(BenchError):
    """A server that cannot be reached, or is not ready."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running one, with all processes that it started."""

    url: str
    pid: int
    ready_s: float

    @property
    def memory_mb(self) -> float:
        """Of its processes together, pages that they share counted once."""
        return (
            sum(_kilobytes(f"/proc/{pid}/smaps_rollup", "Pss:") for pid in members(self.pid)) / 1e3
        )

    @property
    def cpu_s(self) -> float:
        """Seconds that its living processes have computed: hardly touched by a busy machine."""
        return sum(map(_ticks, members(self.pid))) / os.sysconf("SC_CLK_TCK")

    @property
    def peak_mb(self) -> float:
        """The most that its first process ever held."""
        return _kilobytes(f"/proc/{self.pid}/status", "VmHWM:") / 1e3


@contextmanager
def running(
    command: Sequence[str],
    url: str,
    ready: str,
    *,
    env: Mapping[str, str] | None = None,
    profiled: bool = False,
) -> Iterator[Server]:
    """Start a server, wait until it is ready, end it and whatever it started.

    Args:
        command: that serves at `url`.
        url: where.
        ready: path that is answered 200 once it is ready.
        env: in addition to this process' own.
        profiled: it goes behind `profiler`.

    Raises:
        BenchError: it ended before it was ready.
    """
    with tempfile.TemporaryFile() as log:  # a pipe that nobody reads would block the server
        began = time.perf_counter()
        # A session of its own: Ctrl-C reaches the bench alone, which then ends the server.
        process = subprocess.Popen(
            command, env={**os.environ, **(env or {})}, stdin=subprocess.DEVNULL,
            stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
        try:
            while not _answers(url + ready):
                if process.poll() is not None or time.perf_counter() - began > 120:
                    log.seek(0)
                    told = log.read().decode(errors="replace")[-2000:]
                    raise BenchError(f"{' '.join(command)} did not start:\n{told}")
                time.sleep(0.01)
            yield Server(url, process.pid, time.perf_counter() - began)
        finally:
            # py-spy writes its profile on an interrupt, and passes nothing else on.
            _end(process, signal.SIGINT if profiled else signal.SIGTERM)


@contextmanager
def own_server(
    env: Mapping[str, str] | None = None, *, profile: Path | None = None
) -> Iterator[Server]:
    """This service on a free port, as `subpose serve` starts it.

    Args:
        env: its settings.
        profile: write there where its threads spend their time: .svg, .json (speedscope), .txt.

    Raises:
        BenchError: it did not start; no py-spy to profile with.
    """
    port = free_port()
    command = [*profiler(profile), sys.executable, "-m", "service", "serve"]
    settings = {**listening_on(port), **(env or {})}
    url = f"http://127.0.0.1:{port}"
    with running(command, url, "/readyz", env=settings, profiled=bool(profile)) as server:
        yield server


def listening_on(port: int) -> dict[str, str]:
    """Settings of a server that only the bench knows of, so none has to hear that it leaves."""
    return {
        "SUBPOSE_HOST": "127.0.0.1",
        "SUBPOSE_PORT": str(port),
        "SUBPOSE_DRAIN_LEAD_SECONDS": "0",
    }


def profiler(profile: Path | None) -> list[str]:
    """The command that a server's own goes behind, so that its time is sampled.

    Raises:
        BenchError: no py-spy, or a suffix that says no format.
    """
    if profile is None:
        return []
    if profile.suffix not in _PROFILES:
        raise BenchError(f"--profile: {profile} has none of the suffixes {', '.join(_PROFILES)}")
    spy = shutil.which("py-spy", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
    if spy is None:
        raise BenchError("--profile: py-spy is not installed: pip install py-spy")
    form = _PROFILES[profile.suffix]
    return [spy, "record", "-t", "-f", form, "-o", str(profile), "--"]


def load(plan: Plan) -> Record:
    """Run a plan in a process of its own.

    Raises:
        BenchError: it failed; its last words are the message.
    """
    raise_file_limit()
    done = subprocess.run(
        [sys.executable, "-m", "service.bench.load"],
        input=json.dumps(asdict(plan)), capture_output=True, text=True, start_new_session=True,
    )  # fmt: skip
    if done.returncode:
        raise BenchError(done.stderr.strip()[-2000:] or f"the clients died of {done.returncode}")
    return Record.parse(done.stdout)


@contextmanager
def ended_in_order() -> Iterator[None]:
    """Let SIGTERM and SIGHUP run the `finally` blocks that end the processes."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    signals = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, leave) for number in signals]
    try:
        yield
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


def free_port() -> int:
    """One that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def raise_file_limit() -> None:
    """Thousands of connections need as many descriptors, here and in what is started from here."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def members(session: int) -> list[int]:
    """Processes of a session that are alive, zombies not counted."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            # After the name in brackets: state, parent, group, session.
            state, _, _, of = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(of) == session and state != "Z":
                found.append(int(folder.name))
    return found


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False


def _end(process: subprocess.Popen[bytes], ending: signal.Signals) -> None:
    """In order if it can be, at once if not; then what it left behind."""
    process.send_signal(ending)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE_S)
    for pid in members(process.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def _ticks(pid: int) -> int:
    with contextlib.suppress(OSError):
        user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        return int(user) + int(system)
    return 0


def _kilobytes(file: str, field: str) -> int:
    with contextlib.suppress(OSError):
        for line in Path(file).read_text().splitlines():
            if line.startswith(field):
                return int(line.split()[1])
    return 0
