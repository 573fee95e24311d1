"""Every row of the table of problems, by real bytes over real HTTP."""

import json
import re
import shutil
import struct
import subprocess
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from models.engines import EngineAway
from service.problems import PROBLEMS
from tests.fakes import HEIGHT, POISON, WIDTH, FakeHouse
from tests.http import raw
from tests.http.serving import GREY, Running, encoded, later, photo, running, until

# A promise to callers: status and codes. To change it takes a hand here as well.
TABLE = {
    400: {"bad_request", "unreadable_image", "bad_multipart"},
    401: {"unauthorized"},
    404: {
        "unknown_id", "unknown_person", "unknown_keypoint", "unknown_model", "unknown_detector",
        "not_found",
    },
    405: {"method_not_allowed"},
    406: {"not_acceptable"},
    408: {"slow_body"},
    413: {"body_too_large", "too_many_pixels"},
    415: {"unsupported_image"},
    421: {"unknown_host"},
    422: {"invalid_parameter", "answer_too_large"},
    429: {"client_limit"},
    431: {"headers_too_large"},
    500: {"engine_failed"},
    503: {"overloaded", "starting", "draining"},
    504: {"deadline"},
}  # fmt: skip


def check(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """It is this problem, and has everything that every problem has."""
    assert (response.status_code, response.json().get("code")) == (status, code), response.text
    assert code in TABLE[status]
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert {"type", "title", "status", "detail", "code", "request_id"} <= set(body)
    assert body["status"] == status
    assert body["request_id"] == response.headers["x-request-id"]
    assert body["type"] == f"urn:subpose:problem:{code}"
    assert "total;dur=" in response.headers["server-timing"]
    assert len(body["detail"]) > 10
    assert "Traceback" not in response.text
    assert "/work" not in response.text
    assert ("errors" in body) == (status == 422)
    return body


def test_the_code_has_the_whole_table() -> None:
    by_status: dict[int, set[str]] = {}
    for problem in PROBLEMS:
        by_status.setdefault(problem.status, set()).add(problem.code)
    assert by_status == TABLE


@pytest.mark.parametrize("data", [b"", photo()[:100], photo(kind="JPEG")[:200]])
def test_unreadable_image(client: httpx.Client, data: bytes) -> None:
    check(client.post("/pose", content=data), 400, "unreadable_image")


def multipart(body: bytes) -> dict[str, Any]:
    return {"content": body, "headers": {"content-type": "multipart/form-data; boundary=b"}}


@pytest.mark.parametrize(
    "request_",
    [
        multipart(b""),
        multipart(b"nonsense"),
        multipart(b"--b--\r\n"),
        multipart(b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\nabc'),
        multipart(
            b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\nabc\r\n'
            b'--b\r\nContent-Disposition: form-data; name="image"; filename="b"\r\n\r\nab'
        ),
        multipart(b"--b\r\nContent-Type: image/png\r\n\r\nabc\r\n--b--\r\n"),
        {"content": b"x", "headers": {"content-type": "multipart/form-data"}},
        {"files": {"photo": b"abc"}},
        {"files": {"image": photo()}, "data": {"head": "nerpe"}},
        {"data": {"image": "abc"}, "files": {"image": photo()}},
        {"files": [("image", photo())] * 17},
    ],
)
def test_bad_multipart(client: httpx.Client, request_: dict[str, Any]) -> None:
    check(client.post("/pose", **request_), 400, "bad_multipart")


def test_unauthorized() -> None:
    with running(FakeHouse(), api_keys="one,two") as server, server.client() as client:
        for headers in ({}, {"authorization": "Bearer three"}, {"authorization": "Basic one"}):
            response = client.post("/pose", content=photo(), headers=headers)
            check(response, 401, "unauthorized")
            assert response.headers["www-authenticate"].startswith("Bearer")


def test_unknown_id(client: httpx.Client) -> None:
    check(client.get("/heatmap?id=AAAAAAAAAAAAAAAAAAAAAA"), 404, "unknown_id")


def test_unknown_person(client: httpx.Client) -> None:
    kept = client.post("/pose", content=photo()).json()["id"]
    check(client.get(f"/heatmap?id={kept}&person=1"), 404, "unknown_person")
    check(client.post("/heatmap?person=1", content=photo()), 404, "unknown_person")
    check(client.post("/heatmap?min_box_score=1", content=photo()), 404, "unknown_person")


@pytest.mark.parametrize("keypoint", ["tail", "17", "-1", "²"])
def test_unknown_keypoint(client: httpx.Client, keypoint: str) -> None:
    response = client.post("/heatmap", params={"keypoint": keypoint}, content=photo())
    body = check(response, 404, "unknown_keypoint")
    assert "left_wrist" in body["detail"]


@pytest.mark.parametrize("name", ["huge", "..", "%2e%2e%2fetc"])
def test_unknown_model(client: httpx.Client, name: str) -> None:
    check(client.post(f"/pose?model={name}", content=photo()), 404, "unknown_model")


def test_unknown_model_of_the_catalog(client: httpx.Client) -> None:
    check(client.get("/models/huge"), 404, "unknown_model")


@pytest.mark.parametrize("name", ["psychic", "ultralytics:x.pt", "../strips"])
def test_unknown_detector(client: httpx.Client, name: str) -> None:
    check(client.post("/pose", params={"detector": name}, content=photo()), 404, "unknown_detector")


@pytest.mark.parametrize("path", ["/nothing", "/pose/", "/Pose", "/models/a/b"])
def test_not_found(client: httpx.Client, path: str) -> None:
    check(client.get(path), 404, "not_found")


def test_method_not_allowed(client: httpx.Client) -> None:
    response = client.get("/pose")
    check(response, 405, "method_not_allowed")
    assert response.headers["allow"] == "POST"
    response = client.put("/heatmap", content=photo())
    check(response, 405, "method_not_allowed")
    assert response.headers["allow"] == "GET, POST"


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/models", "/models/fake", "/"])
def test_what_is_cheap_to_get_has_a_head(client: httpx.Client, path: str) -> None:
    head, whole = client.head(path), client.get(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == whole.headers["content-type"]


@pytest.mark.parametrize(
    ("path", "accept"), [("/pose", "application/x-npy"), ("/heatmap", "text/html")]
)
def test_not_acceptable(client: httpx.Client, path: str, accept: str) -> None:
    check(client.post(path, content=photo(), headers={"accept": accept}), 406, "not_acceptable")


def test_all_keypoints_do_not_fit_into_a_png(client: httpx.Client) -> None:
    response = client.post(
        "/heatmap?keypoint=all", content=photo(), headers={"accept": "image/png"}
    )
    check(response, 406, "not_acceptable")
    response = client.post("/heatmap?keypoint=all&format=png", content=photo())
    assert check(response, 422, "invalid_parameter")["errors"][0]["parameter"] == "keypoint"


def test_slow_body() -> None:
    with running(FakeHouse(), body_seconds=0.2) as server, raw.connected(server) as sock:
        sock.sendall(b"POST /pose HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nabc")
        status, headers, body = raw.answer(sock)
        assert (status, raw.code(body)) == (408, "slow_body")
        assert headers["connection"] == "close"
        # The connection is not held for somebody who drips.
        assert sock.recv(100) == b""


def test_headers_too_large(shared_server: Running) -> None:
    head = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n"
    for tail in (
        b"X-Long: " + b"a" * 40_000 + b"\r\n\r\n",  # complete
        b"X-Long: " + b"a" * 40_000,  # never ends
        b"".join(b"X-%d: a\r\n" % number for number in range(8_000)) + b"\r\n",
    ):
        with raw.connected(shared_server) as sock:
            sock.sendall(head + tail)
            status, headers, body = raw.answer(sock)
            assert (status, raw.code(body)) == (431, "headers_too_large")
            assert headers["content-type"] == "application/problem+json"
            assert json.loads(body)["request_id"] == headers["x-request-id"]
    with raw.connected(shared_server) as sock:
        sock.sendall(head + b"X-Long: " + b"a" * 20_000 + b"\r\n\r\n")
        assert raw.answer(sock)[0] == 200


@pytest.mark.parametrize(
    "sent",
    [
        b"GARBAGE\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",  # TLS to a plain port
        b"POST /pose HTTP/1.1\r\nHost: localhost\r\nContent-Length: many\r\n\r\n",
        b"POST /pose HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nten\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX\r\n\r\n",
    ],
)
def test_bad_request(shared_server: Running, sent: bytes) -> None:
    with raw.connected(shared_server) as sock:
        sock.sendall(sent)
        status, headers, body = raw.answer(sock)
        assert (status, raw.code(body)) == (400, "bad_request")
        assert headers["content-type"] == "application/problem+json"
        assert json.loads(body)["request_id"] == headers["x-request-id"]
        assert sock.recv(100) == b""


def test_body_too_large(client: httpx.Client) -> None:
    check(client.post("/pose", content=b"a" * 2_000_001), 413, "body_too_large")


def test_body_too_large_in_chunks(client: httpx.Client) -> None:
    def parts() -> Iterator[bytes]:
        for _ in range(30):
            yield b"a" * 100_000

    check(client.post("/pose", content=parts()), 413, "body_too_large")


def test_body_too_large_in_several_images(client: httpx.Client) -> None:
    files = [("image", b"a" * 300_000)] * 8
    check(client.post("/pose", files=files), 413, "body_too_large")


def test_too_many_pixels(client: httpx.Client) -> None:
    data = photo(size=(2001, 2000))
    assert len(data) < 100_000
    check(client.post("/pose", content=data), 413, "too_many_pixels")


def test_a_header_beyond_all_measure_is_refused_in_our_words(client: httpx.Client) -> None:
    body = check(client.post("/pose", content=header_of(60_000)), 413, "too_many_pixels")
    assert "at most 4 megapixels" in body["detail"]


def header_of(side: int) -> bytes:
    """A png that promises much and has nothing."""
    parts = [(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)), (b"IDAT", b"")]
    chunks = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize("data", [b"GIF89a" + b"\0" * 50, b"%PDF-1.7", b"<svg xmlns='x'/>"])
def test_unsupported_image(client: httpx.Client, data: bytes) -> None:
    headers = {"content-type": "image/png"}  # the declared kind means nothing
    check(client.post("/pose", content=data, headers=headers), 415, "unsupported_image")


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize(
    ("file", "data", "status"),
    [("photo.jpg", photo(kind="JPEG"), 400), ("photo.png", photo(), 415), ("empty.jpg", b"", 400)],
)
@pytest.mark.parametrize("route", ["pose", "heatmap"])
def test_an_image_that_curl_has_mangled_is_told_how_to_be_sent(
    shared_server: Running, tmp_path: Path, file: str, data: bytes, status: int, route: str
) -> None:
    (tmp_path / file).write_bytes(data)

    def sent(*options: str) -> dict[str, Any]:
        command = ["curl", "-s", *options, f"{shared_server.url}/{route}?format=json"]
        answer: dict[str, Any] = json.loads(subprocess.check_output(command, cwd=tmp_path))
        return answer

    mangled = sent("-d", f"@{file}")
    assert mangled["status"] == status
    assert "--data-binary @photo.jpg" in mangled["detail"]
    if data:
        assert "status" not in sent("--data-binary", f"@{file}")


def test_who_sends_no_form_is_told_nothing_of_curl(client: httpx.Client) -> None:
    assert "curl" not in client.post("/pose", content=photo()[:100]).json()["detail"]


def test_unknown_host(client: httpx.Client) -> None:
    for host in ("evil.example", "127.0.0.1.evil.example", "evil.example:8000", ""):
        response = client.post("/pose", content=photo(), headers={"host": host})
        check(response, 421, "unknown_host")
    for host in ("localhost", "LOCALHOST:1234", "[::1]:8000"):
        assert client.get("/models", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("host", ["Pose.example:8443", "[2001:DB8::1]:8000"])
def test_the_remedy_for_an_unknown_host_is_one(client: httpx.Client, host: str) -> None:
    body = check(client.get("/models", headers={"host": host}), 421, "unknown_host")
    (name,) = re.findall("Host '(.+)' is not in SUBPOSE_HOSTS; add it", body["detail"])
    with running(FakeHouse(), hosts=name) as server, server.client() as other:
        assert other.get("/models", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    ("method", "query", "parameters"),
    [
        ("POST /pose", "heads=simcc", ["heads"]),
        ("POST /pose", "head=simc", ["head"]),
        ("POST /pose", "head=", ["head"]),
        ("POST /pose", "model=", ["model"]),
        ("POST /pose", "detector=", ["detector"]),
        ("POST /heatmap", "model=", ["model"]),
        ("POST /pose", "head=simcc,simcc", ["head"]),
        ("POST /pose", "head=simcc&head=nerpe", ["head"]),
        ("POST /pose", "head=simcc&decode=dark", ["decode"]),
        ("POST /pose", "decode=magic", ["decode"]),
        ("POST /pose", "head=simcc&resolution=64", ["resolution"]),
        ("POST /pose", "head=nerpe&resolution=15", ["resolution"]),
        ("POST /pose", "head=nerpe&resolution=2049", ["resolution"]),
        ("POST /pose", "max_people=0", ["max_people"]),
        ("POST /pose", "max_people=101", ["max_people"]),
        ("POST /pose", "min_box_score=1.1", ["min_box_score"]),
        ("POST /pose", "min_box_score=nan", ["min_box_score"]),
        ("POST /pose", "flip=perhaps", ["flip"]),
        ("POST /pose", "format=npy", ["format"]),
        ("POST /pose", "image_id=-1", ["image_id"]),
        ("POST /pose", "deadline_ms=0", ["deadline_ms"]),
        ("POST /pose", "deadline_ms=60001", ["deadline_ms"]),
        ("POST /pose", "head=simcc,nerpe&format=coco", ["head"]),
        ("POST /pose", "head=simcc,nerpe&format=png", ["head"]),
        ("POST /pose", "person=0", ["person"]),
        ("POST /pose", "exact=true&frame=crop", ["exact", "frame"]),
        ("POST /pose", "boxes=[[0,0,9,9]]&detector=whole", ["boxes"]),
        ("POST /pose", "boxes=nonsense", ["boxes"]),
        ("POST /pose", "boxes=[]", ["boxes"]),
        ("POST /pose", "boxes=[[0,0,9]]", ["boxes"]),
        ("POST /pose", "boxes=[[0,0,9,0]]", ["boxes"]),
        ("POST /pose", "boxes=[[0,0,9,NaN]]", ["boxes"]),
        ("POST /pose", "boxes=[[0,0,9,1e300]]", ["boxes"]),
        ("POST /pose", 'boxes=[[0,0,9,"9"]]', ["boxes"]),
        ("POST /pose", "boxes=[[0,0,9,true]]", ["boxes"]),
        ("POST /pose", "boxes=[" + ",".join(["[0,0,9,9]"] * 101) + "]", ["boxes"]),
        ("POST /pose", "boxes=" + "[" * 9000, ["boxes"]),
        ("POST /heatmap", "decode=dark", ["decode"]),
        ("POST /heatmap", "keep=true", ["keep"]),
        ("POST /heatmap", "max_people=3", ["max_people"]),
        ("POST /heatmap", "id=a", ["id"]),
        ("POST /heatmap", "head=simcc,nerpe", ["head"]),
        ("POST /heatmap", "resolution=2049", ["resolution"]),
        ("POST /heatmap", "colormap=jet", ["colormap"]),
        ("POST /heatmap", "frame=body", ["frame"]),
        ("POST /heatmap", "format=coco", ["format"]),
        ("POST /heatmap", "person=-1", ["person"]),
        ("GET /heatmap", "", ["id"]),
        ("GET /heatmap", "id=a&model=fake", ["model"]),
        ("GET /heatmap", "id=a&flip=true", ["flip"]),
        ("GET /heatmap", "id=a&boxes=[]", ["boxes"]),
        ("GET /models", "name=fake", ["name"]),
        ("GET /models/fake", "full=true", ["full"]),
        ("DELETE /pose/a", "person=0", ["person"]),
    ],
)  # fmt: skip
def test_invalid_parameter(
    client: httpx.Client, method: str, query: str, parameters: list[str]
) -> None:
    verb, path = method.split()
    content = photo() if verb == "POST" else None
    body = check(client.request(verb, f"{path}?{query}", content=content), 422, "invalid_parameter")
    assert [error["parameter"] for error in body["errors"]] == parameters
    for error in body["errors"]:
        assert error["message"]


def test_a_wrong_head_is_told_the_right_ones(client: httpx.Client) -> None:
    body = check(client.post("/pose?head=foo", content=photo()), 422, "invalid_parameter")
    assert "'foo', only simcc, nerpe, heatmap" in body["errors"][0]["message"]


@pytest.mark.parametrize(("path", "query"), [
    ("/pose", "format=coco"), ("/pose", "boxes=[[0,0,9,9]]"), ("/heatmap", ""),
])  # fmt: skip
def test_invalid_with_several_images(client: httpx.Client, path: str, query: str) -> None:
    files = [("image", photo())] * 2
    check(client.post(f"{path}?{query}", files=files), 422, "invalid_parameter")


def test_answer_too_large(client: httpx.Client, house: FakeHouse) -> None:
    url = "/heatmap?keypoint=all&format=npy&resolution=2048"
    body = check(client.post(url, content=photo()), 422, "answer_too_large")
    assert "at most" in body["errors"][0]["message"]
    check(client.post(f"{url}&frame=image", content=photo()), 422, "answer_too_large")
    assert house.engine.calls == []


def test_a_png_of_a_large_photo_is_answer_too_large() -> None:
    house = FakeHouse()
    with running(house, answer_bytes=10_000) as server, server.client() as client:
        house.engine.calls.clear()
        check(client.post("/pose?format=png", content=photo()), 422, "answer_too_large")
        assert house.engine.calls == []
        assert client.post("/pose", content=photo()).status_code == 200


def test_client_limit() -> None:
    with running(FakeHouse(), client_limit=1) as server, server.client() as client:
        assert client.post("/pose", content=photo()).status_code == 200
        response = client.post("/pose", content=photo())
        check(response, 429, "client_limit")
        assert int(response.headers["retry-after"]) >= 1
        assert client.get("/readyz").status_code == 200


@pytest.mark.parametrize(("proxies", "second"), [("", 429), ("127.0.0.0/8", 200)])
def test_a_client_goes_by_the_name_that_only_a_known_proxy_gives_it(
    proxies: str, second: int
) -> None:
    asked = (("192.0.2.1", 200), ("192.0.2.2", second), ("192.0.2.1", 429))
    house = FakeHouse()
    with running(house, client_limit=0.01, proxies=proxies) as server, server.client() as client:
        for address, status in asked:
            forwarded = {"x-forwarded-for": address}
            answer = client.post("/pose", content=photo(), headers=forwarded)
            assert answer.status_code == status


def test_engine_failed(client: httpx.Client) -> None:
    check(client.post("/pose", content=photo(POISON)), 500, "engine_failed")


@pytest.mark.parametrize("error", [EngineAway("nobody there"), MemoryError()], ids=repr)
def test_an_engine_that_may_be_back_soon_is_no_failure(error: Exception) -> None:
    house = FakeHouse()
    house.detector.people = 3

    def away(crops: object) -> Any:  # noqa: ANN401
        raise error

    with running(house) as server, server.client() as client:
        encode, house.engine.encode = house.engine.encode, away  # type: ignore[method-assign]
        for request in (
            client.build_request("POST", "/pose", content=photo()),
            client.build_request("POST", "/pose", files=[("image", photo())] * 2),
            client.build_request("POST", "/heatmap", content=photo()),
        ):
            response = client.send(request)
            check(response, 503, "overloaded")
            assert int(response.headers["retry-after"]) >= 1
        house.engine.encode = encode  # type: ignore[method-assign]
        assert client.post("/pose", content=photo()).status_code == 200


def test_a_heatmap_of_a_person_whose_crop_found_no_memory_may_be_had_later() -> None:
    house = FakeHouse()
    encode = house.engine.encode

    def encode_small(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        if (crops[:, HEIGHT // 2, WIDTH // 2] == POISON).all(axis=1).any():
            raise MemoryError
        return encode(crops)

    house.engine.encode = encode_small  # type: ignore[method-assign]
    house.detector.people = 2
    picture = Image.new("RGB", (120, 80), POISON)
    picture.paste(GREY, (60, 0, 120, 80))
    with running(house) as server, server.client() as client:
        body = client.post("/pose", content=encoded(picture)).json()
        assert body["people"][1]["error"]["code"] == "overloaded"
        check(client.post("/heatmap?person=1", content=encoded(picture)), 503, "overloaded")
        assert client.post("/heatmap?person=0", content=encoded(picture)).status_code == 200


def test_a_bug_is_a_problem_too() -> None:
    house = FakeHouse()
    with running(house) as server, server.client() as client:
        house.detector.detect = None  # type: ignore[assignment,method-assign]
        check(client.post("/pose", content=photo()), 500, "engine_failed")
        assert client.post("/pose?detector=whole", content=photo()).status_code == 200


def test_overloaded_when_the_queue_is_full_and_in_no_time() -> None:
    house = FakeHouse()
    with running(house, queue_crops=1) as server, ThreadPoolExecutor(3) as pool:
        house.engine.open.clear()
        _drain(house)
        with server.client() as client:
            held = pool.submit(_post, server)  # on the device
            assert house.engine.entered.acquire(timeout=30)
            queued = pool.submit(_post, server)
            until(lambda: server.state.scheduler.waiting == 1)
            began = time.monotonic()
            response = client.post("/pose", content=photo())
            assert time.monotonic() - began < 5
            check(response, 503, "overloaded")
            assert int(response.headers["retry-after"]) >= 1
            house.engine.open.set()
        assert held.result(30).status_code == queued.result(30).status_code == 200


def test_overloaded_when_too_many_requests_are_in_work() -> None:
    house = FakeHouse()
    with running(house, requests=1) as server, ThreadPoolExecutor(1) as pool:
        house.engine.open.clear()
        _drain(house)
        held = pool.submit(_post, server)
        assert house.engine.entered.acquire(timeout=30)
        with server.client() as client:
            check(client.post("/pose", content=photo()), 503, "overloaded")
            assert client.get("/readyz").status_code == 200
        house.engine.open.set()
        assert held.result(30).status_code == 200


def test_overloaded_when_too_many_bytes_are_being_received() -> None:
    with running(FakeHouse(), bodies_bytes=1000) as server, server.client() as client:
        check(client.post("/pose", content=b"a" * 2000), 503, "overloaded")
        assert client.post("/pose", content=photo()).status_code == 200


def test_starting() -> None:
    house, loaded = FakeHouse(), threading.Event()
    load = house.load

    def slowly(settings: object) -> object:
        assert loaded.wait(30)
        return load(settings)  # type: ignore[arg-type]

    house.load = slowly  # type: ignore[assignment,method-assign]
    with running(house, wait=False) as server, server.client() as client:
        response = client.get("/readyz")
        check(response, 503, "starting")
        assert int(response.headers["retry-after"]) >= 1
        check(client.post("/pose", content=photo()), 503, "starting")
        check(client.get("/models"), 503, "starting")
        assert client.get("/healthz").status_code == 200
        loaded.set()
        until(lambda: client.get("/readyz").status_code == 200)
        assert client.post("/pose", content=photo()).status_code == 200


def test_draining(house: FakeHouse) -> None:
    with running(FakeHouse()) as server, server.client() as client:
        server.state.gate.state = "leaving"
        check(client.get("/readyz"), 503, "draining")
        assert client.post("/pose", content=photo()).status_code == 200
        server.state.gate.state = "closed"
        check(client.post("/pose", content=photo()), 503, "draining")
        assert client.get("/healthz").status_code == 200


def test_health_fails_while_the_device_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.state._FOR_GOOD", 1000)
    house = FakeHouse()
    with (
        running(house) as server,
        ThreadPoolExecutor(1) as pool,
        server.client() as client,
    ):
        assert client.get("/healthz").status_code == 200
        house.engine.open.clear()
        _drain(house)
        held = pool.submit(_post, server)
        assert house.engine.entered.acquire(timeout=30)
        with later(server):
            check(client.get("/healthz"), 500, "engine_failed")
            house.engine.open.set()
            assert held.result(30).status_code == 200
            until(lambda: client.get("/healthz").status_code == 200)
        assert client.get("/healthz").status_code == 200


def test_deadline() -> None:
    house = FakeHouse()
    with running(house) as server, server.client() as client:
        house.engine.open.clear()
        began = time.monotonic()
        check(client.post("/pose?deadline_ms=200", content=photo()), 504, "deadline")
        assert 0.1 < time.monotonic() - began < 10
        house.engine.open.set()
        assert client.post("/pose", content=photo()).status_code == 200


def test_a_deadline_that_leaves_no_time_is_that_and_no_overload(client: httpx.Client) -> None:
    for _ in range(3):
        check(client.post("/pose?deadline_ms=1", content=photo()), 504, "deadline")


def _post(server: Running) -> httpx.Response:
    with server.client() as client:
        return client.post("/pose", content=photo())


def _drain(house: FakeHouse) -> None:
    """Forget the batches of the warm-up."""
    while house.engine.entered.acquire(blocking=False):
        pass
