"""Real sockets, a device that a test holds: what waits, what is refused, what is dropped."""

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from models.nerpe_field import QUERIES
from service.api.parameters import PoseQuery
from service.api.tasks import pose_task
from service.costs import Cost
from service.images import PostedImage
from service.model_lanes import ModelLanes
from service.timings import Timings
from tests.fakes import NAN, POISON, FakeHouse
from tests.http import raw
from tests.http.serving import Running, later, photo, running, until

Floats = NDArray[np.float32]
FOUR = "/pose?boxes=[[0,0,60,80],[60,0,60,80],[120,0,60,80],[180,0,60,80]]"


@pytest.fixture
def house() -> FakeHouse:
    return FakeHouse()


@pytest.fixture
def server(house: FakeHouse) -> Iterator[Running]:
    with running(house) as started:
        yield started


def hold(house: FakeHouse) -> None:
    """From now on the device stays in whatever batch it is given."""
    house.engine.open.clear()
    house.engine.batches.clear()
    while house.engine.entered.acquire(blocking=False):
        pass


def lanes_of(server: Running) -> ModelLanes:
    return server.state.loaded.pipeline._models["fake"]


def even(server: Running, seconds: float = 0.001) -> None:
    """From now on each batch is counted as long and thus full, whatever this machine measures."""

    class Even(Cost):
        def __call__(self, work: float) -> float:
            return seconds

    cost = lanes_of(server).plain.cost = Even()
    cost.version = -int(1e6 * seconds)  # plans made by any other are not its own


def head(url: str, body: bytes) -> bytes:
    return f"POST {url} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()


def test_crops_of_different_requests_share_a_batch_and_bad_ones_fail_alone(
    server: Running, house: FakeHouse
) -> None:
    hold(house)
    even(server)

    def ask(colour: tuple[int, int, int]) -> int:
        with server.client() as client:
            return client.post("/pose?detector=whole", content=photo(colour)).status_code

    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(ask, (1, 1, 1))
        assert house.engine.entered.acquire(timeout=30)
        rest = [pool.submit(ask, colour) for colour in [(2, 2, 2), POISON, NAN, (4, 4, 4)]]
        until(lambda: server.state.scheduler.waiting == 4)
        house.engine.open.set()
        assert first.result(30) == 200
        assert [future.result(30) for future in rest] == [200, 500, 500, 200]
    assert house.engine.batches[:2] == [1, 4]
    # Halving: 4 fails, 2 and 2, and of the one that fails 1 and 1.
    assert sorted(house.engine.batches[2:]) == [1, 1, 2, 2]


def test_clients_that_hang_up_free_their_crops(server: Running, house: FakeHouse) -> None:
    hold(house)
    even(server)
    body = photo(size=(240, 80))
    request = head(FOUR, body) + body
    with ExitStack() as stack:
        held = stack.enter_context(raw.connected(server))
        held.sendall(request)
        until(lambda: house.engine.batches == [4])
        gone = [stack.enter_context(raw.connected(server)) for _ in range(40)]
        for sock in gone:
            sock.sendall(request)
        until(lambda: server.state.scheduler.waiting == 160)
        for sock in gone:
            sock.close()
        until(lambda: server.state.scheduler.waiting == 0)
        house.engine.open.set()
        assert raw.answer(held)[0] == 200
    with server.client() as client:
        assert client.post("/pose?detector=whole", content=photo()).status_code == 200
    until(lambda: server.state.gate.inside == 0)
    # Of the 160 crops of those who hung up not one was encoded.
    assert house.engine.batches == [4, 1]


@pytest.mark.parametrize(("threads", "batches"), [(None, 3), (2, 2), (9, 4)])
def test_one_batch_more_than_cores_runs_at_once_or_as_many_as_one_is_told(
    monkeypatch: pytest.MonkeyPatch, house: FakeHouse, threads: int | None, batches: int
) -> None:
    monkeypatch.setattr("service.state.available_cores", lambda: 2)
    before = {thread for thread in threading.enumerate() if thread.name == "device"}
    with running(house, threads=threads):
        now = [thread for thread in threading.enumerate() if thread.name == "device"]
        assert len(set(now) - before) == batches


def test_the_deadline_is_answered_while_the_batch_still_runs(
    server: Running, house: FakeHouse
) -> None:
    hold(house)
    with server.client() as client:
        response = client.post("/pose?detector=whole&deadline_ms=2000", content=photo())
    assert (response.status_code, response.json()["code"]) == (504, "deadline")
    assert house.engine.batches == [1]
    assert not house.engine.open.is_set()
    house.engine.open.set()


def test_what_cannot_be_done_in_time_is_refused_before_its_body_is_sent(
    server: Running, house: FakeHouse
) -> None:
    hold(house)
    even(server)
    body = photo(size=(240, 80))
    with ExitStack() as stack:
        held, queued, refused = (stack.enter_context(raw.connected(server)) for _ in range(3))
        held.sendall(head(FOUR, body) + body)
        assert house.engine.entered.acquire(timeout=30)
        even(server, 4.0)
        queued.sendall(head(FOUR, body) + body)
        until(lambda: server.state.scheduler.waiting == 4)
        refused.sendall(head(FOUR + "&deadline_ms=2000", body))
        status, headers, answer = raw.answer(refused)
        assert (status, raw.code(answer)) == (503, "overloaded")
        assert int(headers["retry-after"]) > 1
        house.engine.open.set()
        assert raw.answer(held)[0] == raw.answer(queued)[0] == 200


def test_a_photo_gives_its_room_back_before_its_people_wait_for_the_device(
    house: FakeHouse,
) -> None:
    body = photo(size=(240, 80))
    with (
        running(house, decoded_bytes=240 * 80 * 12) as server,
        raw.connected(server) as first,
        raw.connected(server) as second,
    ):
        hold(house)
        even(server)
        first.sendall(head(FOUR, body) + body)
        until(lambda: house.engine.batches == [4])
        second.sendall(head(FOUR, body) + body)
        until(lambda: server.state.scheduler.waiting == 4)
        assert server.state.loaded.pipeline._decoded.held == 0
        house.engine.open.set()
        assert raw.answer(first)[0] == raw.answer(second)[0] == 200


def test_long_work_lets_others_in_and_ends_with_its_deadline(
    server: Running, house: FakeHouse
) -> None:
    parts, go = threading.Semaphore(0), threading.Semaphore(0)
    field = house.engine.field

    def slowly(cells: Floats, points: Floats) -> Floats:
        if points.shape[1] == QUERIES["cpu"]:
            parts.release()
            assert go.acquire(timeout=30)
        return field(cells, points)

    house.engine.field = slowly  # type: ignore[method-assign]
    url = "/pose?head=nerpe&decode=standard&resolution=2048"

    def post(path: str) -> httpx.Response:
        with server.client() as client:
            return client.post(path, content=photo())

    with ThreadPoolExecutor(2) as pool:
        long = pool.submit(post, url)
        assert parts.acquire(timeout=30)
        other = pool.submit(post, "/pose")
        while not other.done():
            go.release()
            until(lambda: other.done() or parts.acquire(blocking=False))
        assert other.result().status_code == 200
        assert not long.done()
        while parts.acquire(blocking=False):
            pass
        with later(server):
            for _ in range(9):
                go.release()
            assert long.result(30).json()["code"] == "deadline"
        # Of its many parts no other one was begun, but one that may have been about to.
        assert sum(parts.acquire(blocking=False) for _ in range(9)) <= 1
        assert post("/pose").status_code == 200


def test_a_heatmap_that_cannot_be_drawn_in_time_is_refused_like_any_work(
    server: Running, house: FakeHouse
) -> None:
    with server.client() as client, ThreadPoolExecutor(1) as pool:
        kept = client.post("/pose", content=photo()).json()["id"]
        lane = server.state.loaded.pipeline._models["fake"].fields["simcc"]
        for _ in range(64):
            lane.cost.learn(4096, 40.0)
        hold(house)
        held = pool.submit(lambda: client.post("/pose?detector=whole", content=photo()))
        assert house.engine.entered.acquire(timeout=30)
        with server.client() as other:
            response = other.get(f"/heatmap?id={kept}&head=simcc&resolution=64&deadline_ms=8000")
        assert (response.status_code, response.json()["code"]) == (503, "overloaded")
        house.engine.open.set()
        assert held.result(30).status_code == 200


def test_one_callers_wishes_move_nobody_elses_forecast(server: Running, house: FakeHouse) -> None:
    loaded = server.state.loaded
    task = pose_task(PoseQuery(), loaded.catalog, "json", answer_bytes=10**9)
    even(server)

    def forecast(query: str, people: int) -> float:
        house.detector.people = people
        with server.client() as client:
            for _ in range(3):
                assert client.post(f"/pose{query}", content=photo((1, 1, 1))).status_code == 200
        return loaded.pipeline.forecast(task).crops_s

    at_first = forecast("", people=1)
    assert forecast("?min_box_score=0&max_people=1", people=50) == at_first
    assert forecast("?max_people=1", people=50) == at_first
    crowds = forecast("", people=50)
    assert crowds > at_first
    assert forecast("?detector=whole", people=1) == crowds


def test_what_was_promised_of_a_photo_is_taken_back_whatever_was_learnt_meanwhile(
    server: Running,
) -> None:
    pipeline, scheduler = server.state.loaded.pipeline, server.state.scheduler
    task = pose_task(PoseQuery(), server.state.loaded.catalog, "json", answer_bytes=10**9)
    even(server, 1.0)
    promised = pipeline.forecast(task)
    with scheduler.admit(time.monotonic() + 60, sum(promised), here=True) as visit:
        even(server, 0.25)
        seeing = pipeline.see(photo(), task, promised, visit, Timings())
        seen = asyncio.run_coroutine_threadsafe(seeing, server.server._loop).result(30)
        assert visit.promised == 0.0
    assert len(seen.people) == 1


@pytest.mark.parametrize("frame", ["crop", "image"])
def test_a_heatmap_that_cannot_be_drawn_in_time_costs_no_crop(
    server: Running, house: FakeHouse, frame: str
) -> None:
    class Slow(Cost):
        def __call__(self, work: float) -> float:
            return 1e-4 * work

    hold(house)
    even(server)
    lanes_of(server).fields["simcc"].cost = Slow()
    body = photo(size=(240, 80))
    ask = "/heatmap?head=simcc&detector=whole&deadline_ms=5000&resolution="
    with ExitStack() as stack:
        held, small, large = (stack.enter_context(raw.connected(server)) for _ in range(3))
        held.sendall(head(FOUR, body) + body)
        assert house.engine.entered.acquire(timeout=30)
        large.sendall(head(f"{ask}1024&frame={frame}", body))
        if frame == "image":  # how many samples that makes, is up to the photo
            large.sendall(body)
        status, _, answer = raw.answer(large)
        assert (status, raw.code(answer)) == (503, "overloaded")
        small.sendall(head(f"{ask}16&frame={frame}", body) + body)
        until(lambda: server.state.scheduler.waiting == 1)
        house.engine.open.set()
        assert raw.answer(small)[0] == 200
    assert house.engine.batches == [4, 1]


def test_a_full_server_turns_work_away_at_the_door_and_keeps_the_connection(
    house: FakeHouse,
) -> None:
    body = photo()
    request = head("/pose?detector=whole", body) + body
    with (
        running(house, requests=1) as server,
        raw.connected(server) as held,
        raw.connected(server) as other,
    ):
        hold(house)
        held.sendall(request)
        assert house.engine.entered.acquire(timeout=30)
        for _ in range(3):
            other.sendall(request.replace(b"\r\n\r\n", b"\r\nX-Request-Id: mine\r\n\r\n", 1))
            status, headers, answer = raw.answer(other)
            assert (status, raw.code(answer)) == (503, "overloaded")
            assert int(headers["retry-after"]) >= 1
            assert headers["x-request-id"] == "mine"
            assert "connection" not in headers
        house.engine.open.set()
        assert raw.answer(held)[0] == 200
        until(lambda: server.state.gate.inside == 0)
        other.sendall(request)
        assert raw.answer(other)[0] == 200
        counted = server.state.metrics.text().decode()
        assert 'requests_total{method="POST",route="/pose",status="503"} 3.0' in counted
        assert 'problems_total{code="overloaded"} 3.0' in counted


def test_a_deadline_is_read_of_its_own_parameter_alone(house: FakeHouse) -> None:
    body = photo()
    with (
        running(house) as server,
        raw.connected(server) as held,
        raw.connected(server) as other,
    ):
        hold(house)
        held.sendall(head("/pose?detector=whole", body) + body)
        assert house.engine.entered.acquire(timeout=30)
        even(server, 2.0)
        for query, status in (("xdeadline_ms=1", 422), ("deadline_ms=1", 503)):
            other.sendall(head(f"/pose?{query}", body) + body)
            assert raw.answer(other)[0] == status
        house.engine.open.set()
        assert raw.answer(held)[0] == 200


def test_an_empty_line_while_a_request_is_in_work_costs_no_answer(house: FakeHouse) -> None:
    body = photo()
    with (
        running(house, header_seconds=2) as server,
        raw.connected(server) as held,
    ):
        hold(house)
        held.sendall(head("/pose?detector=whole", body) + body)
        assert house.engine.entered.acquire(timeout=30)
        held.sendall(b"\r\n")
        with raw.connected(server) as silent:
            assert silent.recv(1) == b""
        house.engine.open.set()
        assert raw.answer(held)[0] == 200


@pytest.mark.parametrize(
    ("length", "more"), [(2_000_000, ""), (900, "Expect: 100-continue\r\n")], ids=str
)
def test_who_is_turned_away_need_not_send_a_large_body(
    house: FakeHouse, length: int, more: str
) -> None:
    body = photo()
    with (
        running(house, requests=1) as server,
        raw.connected(server) as held,
        raw.connected(server) as other,
    ):
        hold(house)
        held.sendall(head("/pose?detector=whole", body) + body)
        assert house.engine.entered.acquire(timeout=30)
        other.sendall(
            f"POST /pose HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n"
            f"{more}\r\n".encode()
        )
        status, headers, _ = raw.answer(other)
        assert (status, headers["connection"]) == (503, "close")
        house.engine.open.set()
        assert raw.answer(held)[0] == 200


def test_a_page_may_read_why_it_was_turned_away(house: FakeHouse) -> None:
    body = photo()
    with (
        running(house, requests=1, cors_origins=["http://page"]) as server,
        raw.connected(server) as held,
        server.client() as client,
    ):
        hold(house)
        held.sendall(head("/pose?detector=whole", body) + body)
        assert house.engine.entered.acquire(timeout=30)
        response = client.post("/pose", content=body, headers={"Origin": "http://page"})
        assert response.status_code == 503
        assert response.headers["access-control-allow-origin"] == "http://page"
        house.engine.open.set()
        assert raw.answer(held)[0] == 200


def test_who_drips_keeps_nobody_out(house: FakeHouse) -> None:
    with running(house, requests=2) as server, ExitStack() as stack, server.client() as client:
        for _ in range(20):
            sock = stack.enter_context(raw.connected(server))
            sock.sendall(head("/pose", bytes(900)))
        until(lambda: client.post("/pose", content=photo()).status_code == 200)


def test_a_photo_whose_deadline_passes_before_its_turn_is_not_decoded(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[PostedImage] = []
    pixels = PostedImage.pixels

    def counted(posted: PostedImage) -> NDArray[np.uint8]:
        decoded.append(posted)
        return pixels(posted)

    monkeypatch.setattr(PostedImage, "pixels", counted)
    go, pool = threading.Event(), server.state.loaded.pipeline._images
    for _ in range(pool._max_workers):
        pool.submit(go.wait, 30)
    with server.client() as client:
        response = client.post("/pose?deadline_ms=100", content=photo(kind="JPEG"))
        assert (response.status_code, response.json()["code"]) == (504, "deadline")
        go.set()
        assert client.post("/pose", content=photo()).status_code == 200
    assert len(decoded) == 1


def test_a_header_that_takes_long_is_not_read_by_who_serves_all(server: Running) -> None:
    go, pool = threading.Event(), server.state.loaded.pipeline._images
    for _ in range(pool._max_workers):
        pool.submit(go.wait, 30)
    endless = b"\xff\xd8" + b"\xff" * 500_000
    with server.client() as client:
        waits = client.post("/pose?deadline_ms=100", content=endless)
        assert (waits.status_code, waits.json()["code"]) == (504, "deadline")
        go.set()
        refused = client.post("/pose", content=endless)
        assert (refused.status_code, refused.json()["code"]) == (400, "unreadable_image")


def test_connections_that_came_while_the_loop_was_busy_are_taken_in_few_rounds(
    server: Running,
) -> None:
    connections = server.server.server_state.connections
    busy, go = threading.Event(), threading.Event()

    async def rounds() -> int:
        busy.set()
        go.wait(30)
        count = 0
        while len(connections) < 64:
            await asyncio.sleep(0)
            count += 1
        return count

    counting = asyncio.run_coroutine_threadsafe(rounds(), server.server._loop)
    assert busy.wait(30)
    with ExitStack() as stack:
        for _ in range(64):
            stack.enter_context(raw.connected(server))
        go.set()
        # uvloop alone would take one in each.
        assert counting.result(30) <= 16
