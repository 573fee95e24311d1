"""A real Valkey or Redis server on a free port, for as long as a test needs it."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

NAMES = ("valkey-server", "redis-server")


@contextmanager
def valkey(
    folder: Path, port: int | None = None, options: Sequence[str] = ("--save", "")
) -> Iterator[str]:
    """Its URL."""
    binary = next((found for name in NAMES if (found := shutil.which(name))), None)
    if binary is None:
        pytest.skip(f"none of {', '.join(NAMES)} is installed: apt-get install valkey-server")
    port = port or free_port()
    command = [binary, "--port", str(port), "--bind", "127.0.0.1", *options]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
    try:
        _until_it_answers(port, process)
        yield f"redis://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _until_it_answers(port: int, process: subprocess.Popen[bytes]) -> None:
    limit = time.monotonic() + 30
    while process.poll() is None and time.monotonic() < limit:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                if connection.recv(16).startswith(b"+PONG"):
                    return
        except OSError:
            time.sleep(0.01)
    raise AssertionError("the server did not start")
