"""Kept photos on a Valkey or Redis server that replicas share.

It is a cache beside the replica's own: where it is away or slow, that is a miss and no error but
to who wants a photo forgotten, and for a while nobody asks it.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from redis.asyncio import Redis

logger = logging.getLogger(__name__)

T = TypeVar("T")

PAUSE_S = 5.0
"""How long a server that failed is left alone. Then one request tries it, and waits for it."""
_NEWEST = 8
"""Of an owner's photos, how many are looked through for one that is still there."""


class SharedPhotos:
    """Bytes by id and owner. An id is readable neither in the keys nor without its owner.

    Args:
        url: `redis://`, `rediss://`, `valkey://`, `valkeys://` or `unix://`, as redis-py reads it.
        limit_s: the most that a request waits for the server.
        count: told of each call: what was asked, and `hit`, `miss`, `done` or `away`.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        url: str,
        limit_s: float,
        *,
        count: Callable[[str, str], None] = lambda operation, outcome: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        from redis.asyncio import Redis  # only where a server's own setting names one
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
        from redis.exceptions import RedisError

        self._errors = (RedisError, OSError, TimeoutError)
        self._server: Redis = Redis.from_url(
            url.replace("valkey", "redis", 1) if url.startswith("valkey") else url,
            socket_connect_timeout=limit_s,
            socket_timeout=limit_s,
            retry=Retry(NoBackoff(), 0),
        )
        self._limit_s = limit_s
        self._count = count
        self._clock = clock
        self._failing = False
        self._next_try = 0.0

    async def put(self, id: str, owner: str, data: bytes, expires: float, *, newest: bool) -> None:  # noqa: A002
        """Keep bytes.

        Args:
            id: of the photo.
            owner: of the photo.
            data: of the photo.
            expires: seconds since the epoch.
            newest: let `newest` find it.
        """
        moment_ms = int(expires * 1000)

        async def work(server: Redis) -> bool:
            async with server.pipeline(transaction=False) as pipe:
                pipe.set(_key("photo", owner, id), data, pxat=moment_ms)
                if newest:
                    index = _key("newest", owner)
                    pipe.zadd(index, {id: moment_ms})
                    pipe.zremrangebyscore(index, 0, time.time() * 1000)
                    pipe.pexpireat(index, moment_ms)
                await pipe.execute()
            return True

        await self._ask("put", work)

    async def get(self, id: str, owner: str) -> bytes | None:  # noqa: A002
        """The bytes of this id, if they are there and the server is."""

        async def work(server: Redis) -> bytes | None:
            found = await server.get(_key("photo", owner, id))
            return found if isinstance(found, bytes) else None

        return await self._ask("get", work)

    async def forget(self, id: str, owner: str, seconds: float) -> bool:  # noqa: A002
        """Drop it, and tell the replicas that hold it themselves; False where nobody was told.

        Args:
            id: of the photo.
            owner: of the photo.
            seconds: how long replicas may hold it.
        """

        async def work(server: Redis) -> bool:
            async with server.pipeline(transaction=False) as pipe:
                pipe.set(_key("gone", owner, id), b"", px=int(seconds * 1000) + 1)
                pipe.delete(_key("photo", owner, id))
                pipe.zrem(_key("newest", owner), id)
                await pipe.execute()
            return True

        return bool(await self._ask("forget", work))

    async def forgotten(self, id: str, owner: str) -> bool:  # noqa: A002
        """Whether another replica was told to forget it."""

        async def work(server: Redis) -> bool | None:
            return bool(await server.exists(_key("gone", owner, id))) or None

        return bool(await self._ask("forgotten", work))

    async def newest(self, owner: str) -> list[str]:
        """Ids of the owner's newest photos, newest first; some may be gone."""

        async def work(server: Redis) -> list[str] | None:
            found = await server.zrange(_key("newest", owner), 0, _NEWEST - 1, desc=True)
            return [id_.decode("ascii", "replace") for id_ in found if isinstance(id_, bytes)]

        return await self._ask("newest", work) or []

    async def close(self) -> None:
        """End the connections."""
        await self._server.aclose()

    async def _ask(self, operation: str, work: Callable[[Redis], Awaitable[T | None]]) -> T | None:
        """What the server says within the limit; None where it says nothing."""
        now = self._clock()
        if self._failing and now < self._next_try:
            self._count(operation, "away")
            return None
        # While it fails, others do not wait beside the one who tries.
        self._next_try = now + PAUSE_S
        try:
            async with asyncio.timeout(self._limit_s):
                answer = await work(self._server)
        except self._errors as error:
            if not self._failing:
                logger.warning("the shared store is away: %s", type(error).__name__)
            self._failing = True
            self._next_try = self._clock() + PAUSE_S
            self._count(operation, "away")
            return None
        if self._failing:
            logger.info("the shared store is back")
        self._failing = False
        found = "done" if operation in ("put", "forget") else "hit"
        self._count(operation, "miss" if answer is None else found)
        return answer


def _key(kind: str, owner: str, id: str = "") -> str:  # noqa: A002
    # Whoever may watch the server's keys learns no id that GET /heatmap would take.
    return f"subpose:{kind}:{hashlib.sha256(repr((owner, id)).encode()).hexdigest()}"
