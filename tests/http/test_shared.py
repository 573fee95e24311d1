"""Two replicas and a real Valkey or Redis server between them."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fakes import FakeHouse
from tests.http.serving import photo, running
from tests.valkey import free_port, valkey


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    with valkey(tmp_path) as url:
        yield url


@contextmanager
def replicas(url: str, *digests: str, **settings: object) -> Iterator[list[tuple[FakeHouse, Any]]]:
    """Houses and clients of servers that share a store."""
    # The limit is not what these tests are about; a busy machine may take long to answer.
    options: dict[str, Any] = {"features_url": url, "features_ms": 20_000, **settings}
    with ExitStack() as stack:
        houses = [FakeHouse(digest=digest) for digest in digests or ("sha256:1", "sha256:1")]
        servers = [stack.enter_context(running(house, **options)) for house in houses]
        clients = [stack.enter_context(server.client()) for server in servers]
        yield list(zip(houses, clients, strict=True))


def post(client: httpx.Client, **options: Any) -> str:  # noqa: ANN401
    response = client.post("/pose", content=photo(), **options)
    assert response.status_code == 200, response.text
    return str(response.json()["id"])


def heatmap(client: httpx.Client, id_: str | None, **options: Any) -> httpx.Response:  # noqa: ANN401
    query: dict[str, str | int] = {"resolution": 64, "format": "npy"}
    if id_:
        query["id"] = id_
    return client.get("/heatmap", params=query, **options)


def counted(client: httpx.Client, operation: str, outcome: str) -> float:
    name = f'subpose_shared_store_total{{operation="{operation}",outcome="{outcome}"}} '
    lines = [line for line in client.get("/metrics").text.splitlines() if line.startswith(name)]
    return float(lines[0].removeprefix(name)) if lines else 0.0


def test_any_replica_answers_for_a_photo_posted_to_one(url: str) -> None:
    with replicas(url) as ((_, here), (house, there)):
        house.engine.calls.clear()  # of the warm-up
        kept = post(here)
        own, other = heatmap(here, kept), heatmap(there, kept)
        assert (own.status_code, other.status_code) == (200, 200)
        assert other.content == own.content
        assert other.headers["etag"] == own.headers["etag"]
        assert other.headers["subpose-affine"] == own.headers["subpose-affine"]
        assert "encode" not in house.engine.calls
        # From then on the other replica has it itself, and a tag saves even its engine.
        calls = list(house.engine.calls)
        again = heatmap(there, kept, headers={"if-none-match": own.headers["etag"]})
        assert again.status_code == 304
        assert house.engine.calls == calls
        assert counted(there, "get", "hit") == 1


def test_forgotten_on_one_it_is_gone_from_all(url: str) -> None:
    with replicas(url) as ((_, here), (_, there)):
        kept = post(here)
        assert heatmap(there, kept).status_code == 200
        assert there.delete(f"/pose/{kept}").status_code == 204
        for client in (here, there):
            response = heatmap(client, kept)
            assert (response.status_code, response.json()["code"]) == (404, "unknown_id")


def test_another_owner_s_photo_is_unknown_everywhere_and_stays(url: str) -> None:
    with replicas(url, api_keys=("one", "two")) as ((_, here), (_, there)):
        mine, yours = ({"authorization": f"Bearer {key}"} for key in ("one", "two"))
        kept = post(here, headers=mine)
        for client in (here, there):
            assert heatmap(client, kept, headers=yours).status_code == 404
            assert client.delete(f"/pose/{kept}", headers=yours).status_code == 204
        assert heatmap(there, kept, headers=mine).status_code == 200


def test_features_of_other_weights_are_unknown(url: str) -> None:
    with replicas(url, "sha256:1", "sha256:2") as ((_, here), (_, there)):
        kept = post(here)
        assert heatmap(here, kept).status_code == 200
        assert heatmap(there, kept).status_code == 404


def test_the_newest_is_that_of_all_replicas(url: str) -> None:
    with replicas(url, latest=True) as ((_, here), (_, there)):
        assert heatmap(there, None).status_code == 404
        first, second = post(here), post(there)
        assert heatmap(here, None).headers["etag"] == heatmap(here, second).headers["etag"]
        there.delete(f"/pose/{second}")
        assert heatmap(here, None).headers["etag"] == heatmap(here, first).headers["etag"]


def test_the_server_learns_no_id_and_forgets_with_the_features(url: str, tmp_path: Path) -> None:
    import redis

    with replicas(url, keep_seconds=300) as ((_, here), _):
        kept = post(here)
        with redis.Redis.from_url(url) as server:
            keys = [key for key in server.scan_iter() if isinstance(key, bytes)]
            assert len(keys) == 1
            assert kept.encode() not in keys[0]
            left = server.pttl(keys[0])
            assert isinstance(left, int)
            assert 0 < left <= 300_000


def test_what_somebody_else_wrote_there_is_a_miss(url: str) -> None:
    import redis

    with replicas(url) as ((_, here), (_, there)):
        kept = post(here)
        with redis.Redis.from_url(url) as server:
            (key,) = server.scan_iter()
            server.set(key, b"SPF1 rubbish")
        assert heatmap(there, kept).status_code == 404
        assert heatmap(here, kept).status_code == 200


def test_without_the_server_each_replica_answers_for_its_own(tmp_path: Path) -> None:
    server = ExitStack()
    url = server.enter_context(valkey(tmp_path))
    with server, replicas(url) as ((_, here), (_, there)):
        before = post(here)
        assert heatmap(there, before).status_code == 200
        server.close()
        after = post(here)
        assert heatmap(here, after).status_code == 200
        assert heatmap(there, before).status_code == 200
        missed = heatmap(there, after)
        assert (missed.status_code, missed.json()["code"]) == (404, "unknown_id")
        assert counted(here, "put", "away") == 1


def test_nobody_is_told_that_a_photo_is_forgotten_which_would_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.shared.PAUSE_S", 0)
    lasting, port = ("--appendonly", "yes"), free_port()
    with valkey(tmp_path, port, lasting) as url, replicas(url) as ((_, here), (_, there)):
        kept = post(here)
    with replicas(url) as ((_, here), (_, there)):
        refused = here.delete(f"/pose/{kept}")
        assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
        assert int(refused.headers["retry-after"]) >= 1
        with valkey(tmp_path, port, lasting):
            assert heatmap(there, kept).status_code == 200
            assert here.delete(f"/pose/{kept}").status_code == 204
            for client in (here, there):
                assert heatmap(client, kept).status_code == 404


def test_a_server_that_never_answers_is_asked_once_and_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("service.shared.PAUSE_S", 3600)
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        replicas(f"redis://127.0.0.1:{silent.getsockname()[1]}", "sha256:1", features_ms=30) as (
            (_, client),
        ),
    ):
        kept = post(client)
        assert [heatmap(client, kept).status_code for _ in range(4)] == [200] * 4
        assert heatmap(client, "unknown").status_code == 404
        silent.setblocking(False)
        silent.accept()[0].close()
        with pytest.raises(BlockingIOError):
            silent.accept()
