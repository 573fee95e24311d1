"""Who may ask, from where, and what answers say of themselves."""

import logging
import re
from collections.abc import Iterator

import httpx
import pytest

from service.server import port_of
from tests.fakes import FakeHouse
from tests.http import raw
from tests.http.serving import Running, photo, running

KEY = {"authorization": "Bearer one"}


@pytest.fixture(scope="module")
def locked() -> Iterator[Running]:
    with running(FakeHouse(), api_keys="one,two", latest=True) as server:
        yield server


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/pose"), ("POST", "/heatmap"), ("GET", "/heatmap?id=a"), ("GET", "/metrics"),
        ("DELETE", "/pose/a"),
    ],
)  # fmt: skip
def test_pixels_joints_and_metrics_need_a_key(locked: Running, method: str, path: str) -> None:
    with locked.client() as client:
        content = photo() if method == "POST" else None
        assert client.request(method, path, content=content).status_code == 401
        with_key = client.request(method, path, content=content, headers=KEY)
        assert with_key.status_code in (200, 204, 404)


@pytest.mark.parametrize("path", ["/", "/docs", "/openapi.json", "/healthz", "/readyz"])
def test_page_schema_and_health_stay_open(locked: Running, path: str) -> None:
    with locked.client() as client:
        assert client.get(path).status_code == 200


def test_a_refused_key_costs_no_body(locked: Running) -> None:
    with locked.client() as client:
        response = client.post("/pose", content=b"a" * 1_000_000)
        assert response.status_code == 401


@pytest.mark.parametrize("query", ["head=simcc&head=nerpe", "head=foo", "nothing=1"])
def test_without_a_key_nothing_is_learnt_of_parameters(locked: Running, query: str) -> None:
    with locked.client() as client:
        for method, path in (("POST", "/pose"), ("GET", "/heatmap"), ("DELETE", "/pose/a")):
            assert client.request(method, f"{path}?{query}").status_code == 401


def test_what_one_key_keeps_is_unknown_to_the_other(locked: Running) -> None:
    other = {"authorization": "Bearer two"}
    with locked.client() as client:
        kept = client.post("/pose", content=photo(), headers=KEY).json()["id"]
        url = f"/heatmap?id={kept}"
        assert client.get(url, headers=KEY).status_code == 200
        assert client.get(url, headers=other).json()["code"] == "unknown_id"
        assert client.delete(f"/pose/{kept}", headers=other).status_code == 204
        assert client.get(url, headers=KEY).status_code == 200
        # The newest is the key's own too.
        assert client.get("/heatmap", headers=KEY).status_code == 200
        assert client.get("/heatmap", headers=other).json()["code"] == "unknown_id"


@pytest.mark.parametrize("given", ["a", "A-z_0.9", "x" * 64])
def test_a_callers_request_id_is_echoed(client: httpx.Client, given: str) -> None:
    assert client.get("/models", headers={"x-request-id": given}).headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "x" * 65, "a b", "a\tb", "ä", "x" * 10_000])
def test_any_other_request_id_is_replaced(client: httpx.Client, given: str) -> None:
    response = client.get("/nothing", headers={b"x-request-id": given.encode()})
    assert re.fullmatch(r"[0-9a-f]{16}", response.headers["x-request-id"])
    assert response.json()["request_id"] == response.headers["x-request-id"]


def test_an_id_is_not_logged(client: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    kept = client.post("/pose", content=photo()).json()["id"]
    client.get(f"/heatmap?id={kept}")
    client.delete(f"/pose/{kept}")
    client.get(f"/heatmap?id={kept}")
    ours = [record.getMessage() for record in caplog.records if record.name[:4] != "http"]
    assert not any(kept in message for message in ours)
    assert any("DELETE /pose/{id} 204" in message for message in ours)


@pytest.mark.parametrize("upgrade", ["websocket", "h2c"])
def test_what_a_stranger_sends_wrong_is_no_warning_in_the_log(
    client: httpx.Client, caplog: pytest.LogCaptureFixture, upgrade: str
) -> None:
    offer = {"connection": "upgrade", "upgrade": upgrade}
    assert client.get("/models", headers=offer).status_code == 200
    body, kind = b"--b\r\n\r\nabc\r\n--b--\r\n", "multipart/form-data; boundary=another"
    assert client.post("/pose", content=body, headers={"content-type": kind}).status_code == 400
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("hosts", ["localhost", "*"])
def test_a_request_for_two_hosts_is_for_nobody(hosts: str) -> None:
    with running(FakeHouse(), hosts=hosts, wait=False) as server, raw.connected(server) as sock:
        sock.sendall(b"GET /models HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n")
        status, _, body = raw.answer(sock)
        assert (status, raw.code(body)) == (400, "bad_request")


def test_server_timing_tells_the_stages(client: httpx.Client) -> None:
    header = client.post("/pose", content=photo()).headers["server-timing"]
    stages = dict(re.findall(r"(\w+);dur=([\d.]+)", header))
    assert list(stages)[-1] == "total"
    assert {"decode_image", "detect", "encode", "head"} <= set(stages)
    assert float(stages["total"]) >= float(stages["decode_image"])


def test_other_origins_get_nothing_by_default(client: httpx.Client) -> None:
    response = client.post("/pose", content=photo(), headers={"origin": "https://a.example"})
    assert "access-control-allow-origin" not in response.headers


def test_chosen_origins_may_call_and_read_our_headers() -> None:
    with running(FakeHouse(), cors_origins="https://a.example") as server:
        with server.client(headers={"origin": "https://a.example"}) as client:
            asked = {"access-control-request-method": "POST"}
            preflight = client.options("/pose", headers=asked)
            assert preflight.status_code == 200
            assert preflight.headers["access-control-allow-origin"] == "https://a.example"
            for response in (client.post("/pose", content=photo()), client.post("/pose")):
                assert response.headers["access-control-allow-origin"] == "https://a.example"
                exposed = response.headers["access-control-expose-headers"].lower()
                for name in ("subpose-affine", "x-request-id", "server-timing", "retry-after"):
                    assert name in exposed
        with server.client(headers={"origin": "https://b.example"}) as client:
            response = client.post("/pose", content=photo())
            assert "access-control-allow-origin" not in response.headers


def test_metrics_count_by_route_status_and_code(client: httpx.Client) -> None:
    client.post("/pose", content=photo())
    client.post("/pose", content=b"nonsense")
    for path in ("/wp-login.php", "/pose/../etc", "/%00", "/models/" + "a" * 500):
        client.get(path)
    text = client.get("/metrics").text
    assert 'subpose_requests_total{method="POST",route="/pose",status="200"}' in text
    assert 'subpose_problems_total{code="unsupported_image"}' in text
    assert 'subpose_encoded_crops_total{model="fake"}' in text
    assert 'subpose_stage_seconds_count{route="/pose",stage="encode"}' in text
    assert "subpose_kept_photos" in text
    assert 'subpose_engine_info{device="cpu",engine="fake",model="fake"} 1.0' in text
    # No caller's words become series.
    assert "wp-login" not in text
    assert "aaaa" not in text


def test_metrics_may_have_a_port_of_their_own() -> None:
    with running(FakeHouse(), metrics_port=0, api_keys="one", hosts="pose.example.org") as server:
        assert server.server.metrics
        own = f"http://127.0.0.1:{port_of(server.server.metrics)}"
        with server.client(headers={**KEY, "Host": "pose.example.org"}) as client:
            client.post("/pose", content=photo())
            assert client.get("/metrics").status_code == 404
            assert client.get(f"{own}/pose").status_code == 404
            assert client.post(f"{own}/pose", content=photo()).status_code == 404
        # Prometheus has no key, and calls it by a name of its own.
        assert 'route="/pose"' in httpx.get(f"{own}/metrics", headers={"Host": "cpu:9100"}).text


def test_two_applications_share_nothing(client: httpx.Client) -> None:
    with running(FakeHouse()) as server, server.client() as other:
        kept = client.post("/pose", content=photo()).json()["id"]
        assert other.get(f"/heatmap?id={kept}").status_code == 404
        assert 'route="/pose"' not in other.get("/metrics").text


def test_the_catalog_tells_what_can_be_asked_for(client: httpx.Client) -> None:
    body = client.get("/models").json()
    (model,) = body["models"]
    assert model == client.get("/models/fake").json()
    assert [head["name"] for head in model["heads"]] == ["simcc", "nerpe", "heatmap"]
    assert model["heads"][2]["decodes"] == ["dark", "quarter", "argmax"]
    assert (model["default_head"], model["default"]) == ("simcc", True)
    assert (model["engine"], model["device"]) == ("fake", "cpu")
    assert model["input"] == {"width": 48, "height": 64}
    assert len(model["keypoints"]) == 17
    assert [detector["name"] for detector in body["detectors"]] == ["strips", "whole"]
    assert client.get("/models/whole").json()["kind"] == "detector"
