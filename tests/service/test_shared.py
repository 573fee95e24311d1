import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from service.shared import PAUSE_S, SharedPhotos
from tests.valkey import free_port, valkey


class Told(list[tuple[str, str]]):
    def __call__(self, operation: str, outcome: str) -> None:
        self.append((operation, outcome))


def run(url: str, work: Callable[[SharedPhotos], Awaitable[None]], **options: object) -> None:
    async def whole() -> None:
        shared = SharedPhotos(url, 20, **options)  # type: ignore[arg-type]
        try:
            await work(shared)
        finally:
            await shared.close()

    asyncio.run(whole())


def test_what_was_put_is_got_by_its_owner_alone_until_it_expires(tmp_path: Path) -> None:
    async def work(shared: SharedPhotos) -> None:
        await shared.put("a", "me", b"\0\xff", time.time() + 60, newest=False)
        assert await shared.get("a", "me") == b"\0\xff"
        assert await shared.get("a", "you") is None
        assert await shared.get("b", "me") is None
        # Owners and ids that read the same when joined are not the same.
        await shared.put("b", "a/", b"1", time.time() + 60, newest=False)
        assert await shared.get("/b", "a") is None
        await shared.put("late", "me", b"1", time.time() - 1, newest=True)
        assert await shared.get("late", "me") is None
        assert await shared.newest("me") == []

    told = Told()
    with valkey(tmp_path) as url:
        run(url, work, count=told)
    assert told[:4] == [("put", "done"), ("get", "hit"), ("get", "miss"), ("get", "miss")]


def test_the_newest_come_first_and_what_is_forgotten_is_none_of_them(tmp_path: Path) -> None:
    async def work(shared: SharedPhotos) -> None:
        for number, id_ in enumerate("abc"):
            await shared.put(id_, "me", b"1", time.time() + 60 + number, newest=True)
        assert await shared.newest("me") == ["c", "b", "a"]
        assert not await shared.forgotten("c", "me")
        await shared.forget("c", "me", 60)
        assert await shared.newest("me") == ["b", "a"]
        assert await shared.forgotten("c", "me")
        assert not await shared.forgotten("c", "you")
        assert await shared.get("c", "me") is None

    with valkey(tmp_path) as url:
        run(url, work)


def test_a_server_that_was_away_is_tried_again_after_a_pause(tmp_path: Path) -> None:
    port, now, told = free_port(), [0.0], Told()

    async def work(shared: SharedPhotos) -> None:
        assert await shared.get("a", "me") is None
        with valkey(tmp_path, port):
            assert await shared.get("a", "me") is None
            await shared.put("a", "me", b"1", time.time() + 60, newest=False)
            now[0] += PAUSE_S
            await shared.put("a", "me", b"1", time.time() + 60, newest=False)
            assert await shared.get("a", "me") == b"1"

    run(f"redis://127.0.0.1:{port}", work, count=told, clock=lambda: now[0])
    assert told == [
        ("get", "away"), ("get", "away"), ("put", "away"), ("put", "done"), ("get", "hit"),
    ]  # fmt: skip


def test_while_one_tries_again_the_others_do_not_wait_with_it() -> None:
    now, told = [0.0], Told()

    async def work(shared: SharedPhotos) -> None:
        await shared.get("a", "me")
        now[0] += PAUSE_S
        tried: list[int] = []

        async def server_answers(server: object) -> bytes:
            tried.append(1)
            await asyncio.sleep(0)
            return b"1"

        found = await asyncio.gather(*(shared._ask("get", server_answers) for _ in range(3)))
        assert (found, tried) == ([b"1", None, None], [1])

    run(f"redis://127.0.0.1:{free_port()}", work, count=told, clock=lambda: now[0])


@pytest.mark.parametrize("scheme", ["valkey", "redis"])
def test_valkey_s_own_scheme_is_known(tmp_path: Path, scheme: str) -> None:
    async def work(shared: SharedPhotos) -> None:
        await shared.put("a", "me", b"1", time.time() + 60, newest=False)
        assert await shared.get("a", "me") == b"1"

    with valkey(tmp_path) as url:
        run(url.replace("redis", scheme), work)
