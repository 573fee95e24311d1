"""Many clients, hang-ups, drips: what a stranger may do and what it may not cost the others."""

import contextlib
import json
import runpy
import shutil
import socket
import struct
import subprocess
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

import service.protocol
from models.geometry import Box, CropGeometry
from tests.fakes import HEIGHT, WIDTH, FakeHouse, joints_of
from tests.http import raw
from tests.http.serving import Running, photo, running


def test_every_client_gets_its_own_answer(shared_server: Running, house: FakeHouse) -> None:
    rng = np.random.default_rng(1)
    colours = [tuple(int(c) for c in rng.integers(10, 240, 3)) for _ in range(64)]

    def ask(colour: tuple[int, ...]) -> np.ndarray:
        with shared_server.client() as client:
            (person,) = client.post("/pose", content=photo(colour)).json()["people"]
            return np.array([(joint["x"], joint["y"]) for joint in person["keypoints"]])

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, colours))
    geometry = CropGeometry.from_box(Box(0, 0, 60, 80), (WIDTH, HEIGHT))
    for colour, answer in zip(colours, answers, strict=True):
        np.testing.assert_allclose(answer, geometry.to_image(joints_of(colour)), atol=0.3)
    assert sum(house.engine.batches) == 64


def test_two_hundred_dripping_connections_are_closed_and_cost_nobody_else() -> None:
    starts = (
        b"",
        b"POST /pose HTTP/1.1\r\nHost: loc",
        b"POST /pose HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n\r\n",
        b"POST /pose HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nfff\r\n",
    )
    with (
        running(FakeHouse(), header_seconds=0.5, body_seconds=0.5) as server,
        server.client() as client,
        contextlib.ExitStack() as stack,
    ):
        socks = [stack.enter_context(raw.connected(server)) for _ in range(200)]
        for number, sock in enumerate(socks):
            sock.sendall(starts[number % len(starts)])

        def drip(sock: socket.socket) -> bool:
            """Send one more byte; whether somebody still listens."""
            try:
                sock.sendall(b"a")
            except (BrokenPipeError, ConnectionResetError):
                return False
            return True

        drippers = [sock for number, sock in enumerate(socks) if number % len(starts)]
        while drippers:
            drippers = [sock for sock in drippers if drip(sock)]
            answer = client.post("/pose", content=photo())
            assert answer.status_code == 200, answer.text
        for sock in socks[:: len(starts)]:  # who never says a word
            assert sock.recv(1) == b""


def test_an_empty_line_between_requests_holds_no_connection_open() -> None:
    with running(FakeHouse(), header_seconds=0.5) as server, raw.connected(server) as sock:
        request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
        sock.settimeout(10)
        for _ in range(2):
            sock.sendall(request)
            assert raw.answer(sock)[0] == 200
            sock.sendall(b"\r\n")
        assert sock.recv(1) == b""


def test_who_sends_on_after_the_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.api.parting.LINGER_S", 0.1)
    with running(FakeHouse()) as server, raw.connected(server) as sock:
        sock.sendall(b"POST /nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n\r\n")
        status, headers, _ = raw.answer(sock)
        assert (status, headers["connection"]) == (404, "close")
        sock.sendall(b"a")
        assert sock.recv(1) == b""


def test_who_never_stops_sending_is_cut_off_after_a_megabyte(
    shared_server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.api.parting.LINGER_S", 600)
    with raw.connected(shared_server) as sock:
        sock.sendall(
            b"POST /nothing HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        assert raw.answer(sock)[0] == 404
        chunks = raw.chunked(b"a" * 50_000) * 2_000
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            sock.sendall(chunks)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"POST /nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 800000\r\n\r\n", 404),
        (b"POST /pose?a=b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 800000\r\n\r\n", 422),
        (b"POST /pose HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2800000\r\n\r\n", 413),
        (b"POST /pose HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 150_000, 431),
        (b"NONSENSE\r\n\r\n", 400),
    ],
)
def test_a_refusal_arrives_though_the_client_sends_before_it_reads(
    shared_server: Running, request_: bytes, status: int
) -> None:
    with raw.connected(shared_server) as sock:
        sock.sendall(request_)
        # Were the connection closed on what is still being sent, this would fail, or the answer
        # be lost with it.
        for _ in range(8):
            sock.sendall(b"a" * 100_000)
        answered, _, body = raw.answer(sock)
        assert answered == status
        assert json.loads(body)["status"] == status
        assert sock.recv(1) == b""


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        (b"GET /healthz HTTP/1.1\r\nX: " + b"a" * 150_000, 431, "headers_too_large"),
        (b"NONSENSE\r\n\r\n", 400, "bad_request"),
    ],
)
def test_what_is_refused_unread_is_counted_once(
    shared_server: Running, request_: bytes, status: int, code: str
) -> None:
    metrics = shared_server.state.metrics

    def counted() -> tuple[float | None, float | None]:
        get = metrics.registry.get_sample_value
        labels = {"method": "other", "route": "other", "status": str(status)}
        return get("subpose_requests_total", labels), get("subpose_problems_total", {"code": code})

    requests, problems = (value or 0 for value in counted())
    with raw.connected(shared_server) as sock:
        sock.sendall(request_)
        assert raw.answer(sock)[0] == status
        sock.sendall(b"NONSENSE\r\n\r\n")
        assert sock.recv(1) == b""
    assert counted() == (requests + 1, problems + 1)


def test_a_refused_small_body_does_not_cost_the_connection(shared_server: Running) -> None:
    body = photo()
    head = b" HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
    with raw.connected(shared_server) as sock:
        for path, status in ((b"/pose?a=b", 422), (b"/nothing", 404), (b"/pose", 200)):
            sock.sendall(b"POST " + path + head + body)
            answered, headers, _ = raw.answer(sock)
            assert (answered, headers.get("connection")) == (status, None)


@pytest.mark.parametrize(("path", "status"), [("/pose?a=b", 422), ("/nothing", 404)])
def test_who_asks_before_sending_is_refused_without_a_word_of_going_on(
    shared_server: Running, path: str, status: int
) -> None:
    with raw.connected(shared_server) as sock:
        sock.sendall(
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900\r\n"
            "Expect: 100-continue\r\n\r\n".encode()
        )
        answered, headers, _ = raw.answer(sock)
        assert (answered, headers["connection"]) == (status, "close")


def test_who_asks_before_sending_is_told_to_go_on(shared_server: Running) -> None:
    body = photo()
    with raw.connected(shared_server) as sock:
        sock.sendall(
            b"POST /pose HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n"
            b"Expect: 100-continue\r\n\r\n" % len(body)
        )
        assert raw.answer(sock)[0] == 100
        sock.sendall(body)
        assert raw.answer(sock)[0] == 200


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize(
    ("path", "size", "expect", "status"),
    [
        ("/pose?a=b", 1_900_000, "100-continue", 422),
        ("/pose?a=b", 1_900_000, "", 422),
        ("/pose", 19_000_000, "100-continue", 413),
        ("/pose", 19_000_000, "", 413),
    ],
)
def test_curl_sees_every_refusal(
    shared_server: Running, tmp_path: Path, path: str, size: int, expect: str, status: int
) -> None:
    (tmp_path / "photo").write_bytes(bytes(size))
    command = [
        "curl", "-s", "-S", "--http1.1", "--noproxy", "*", "-H", f"Expect:{expect}",
        "-w", "\n%{http_code} %{size_upload}", "--data-binary", f"@{tmp_path / 'photo'}",
        shared_server.url + path,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    body, _, told = done.stdout.rpartition("\n")
    assert json.loads(body)["status"] == status == int(told.split()[0])
    if expect:
        assert told.split()[1] == "0"


def test_a_kept_connection_serves_many_requests(shared_server: Running) -> None:
    body = photo()
    request = b"POST /pose HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
    with raw.connected(shared_server) as sock:
        for _ in range(3):
            sock.sendall(request + body)
            assert raw.answer(sock)[0] == 200


def test_a_body_of_many_small_chunks_is_read(shared_server: Running) -> None:
    head = b"POST /pose HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = photo()
    with raw.connected(shared_server) as sock:
        sock.sendall(head)
        for start in range(0, len(body), 16):
            sock.sendall(raw.chunked(body[start : start + 16]))
        sock.sendall(b"0\r\n\r\n")
        assert raw.answer(sock)[0] == 200


def test_a_refused_large_body_is_not_asked_for(shared_server: Running) -> None:
    with raw.connected(shared_server) as sock:
        sock.sendall(
            b"POST /pose HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999999\r\n"
            b"Expect: 100-continue\r\n\r\n"
        )
        status, _, body = raw.answer(sock)
        assert (status, raw.code(body)) == (413, "body_too_large")


def bomb(side: int) -> bytes:
    """A png of zeros: small on the wire, huge in memory."""

    def chunk(name: bytes, body: bytes) -> bytes:
        crc = zlib.crc32(name + body)
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", crc)

    packer = zlib.compressobj(9)
    row = bytes(1 + 3 * side)
    packed = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    )  # fmt: skip


def test_a_decompression_bomb_leaves_memory_flat(client: httpx.Client) -> None:
    data = bomb(6_000)
    assert len(data) < 300_000
    client.post("/pose", content=data)
    before = resident()
    for _ in range(5):
        response = client.post("/pose", content=data)
        assert (response.status_code, response.json()["code"]) == (413, "too_many_pixels")
    # Decoded it would be 108 MB.
    assert resident() - before < 20_000_000


def test_bodies_over_the_limit_leave_memory_flat(client: httpx.Client) -> None:
    def parts() -> Iterator[bytes]:
        for _ in range(200):
            yield b"a" * 500_000

    before = resident()
    try:
        response = client.post("/pose", content=parts())
        assert response.status_code == 413
    except httpx.WriteError:
        pass  # cut off while still sending: 100 MB are more than the server lingers for
    assert resident() - before < 30_000_000


def test_a_uvicorn_that_would_never_call_us_ends_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(HttpToolsProtocol, "_start_asgi_task")
    with pytest.raises(AttributeError, match="_start_asgi_task"):
        runpy.run_path(service.protocol.__file__)


@pytest.mark.parametrize(
    "body",
    [
        b"--b\r\n" + b"-" * 1_000_000,
        b"--b\r\n" + b"X: y\r\n" * 10_000 + b"\r\n\r\n--b--\r\n",
        b'--b\r\nContent-Disposition: form-data; name="' + b"a" * 1_000_000,
        b"--b\r\n\r\n\r\n" * 10_000 + b"--b--\r\n",
        b"\r\n" * 500_000,
    ],
)
def test_malicious_multipart_is_refused_quickly(client: httpx.Client, body: bytes) -> None:
    headers = {"content-type": "multipart/form-data; boundary=b"}
    began = time.process_time()
    response = client.post("/pose", content=body, headers=headers)
    assert (response.status_code, response.json()["code"]) == (400, "bad_multipart")
    assert time.process_time() - began < 1


def test_boxes_far_outside_the_photo_are_answered(client: httpx.Client) -> None:
    response = client.post("/pose?boxes=[[-90000,5000,1,1],[0,0,100000,1]]", content=photo())
    assert response.status_code == 200
    assert len(response.json()["people"]) == 2


def resident() -> int:
    """Bytes of memory that this process, server included, has."""
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * 4096
