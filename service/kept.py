"""What is kept of photos: in this replica, and where one is set on a server that all share."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from service.features import Entry, FeatureStore, KeptPhoto
from service.photo_bytes import pack, unpack
from service.problems import Overloaded, UnknownId
from service.shared import PAUSE_S, SharedPhotos


class Kept:
    """Photos by id and owner. What another replica keeps is fetched once and then held here too.

    Args:
        own: this replica's.
        shared: the server's, if there is one.
        newest: somebody may ask for the newest.
    """

    def __init__(
        self, own: FeatureStore, shared: SharedPhotos | None = None, *, newest: bool = False
    ) -> None:
        self.own = own
        self._shared = shared
        self._newest = newest
        self.weights: Mapping[str, str] = {}
        """Digests by the names of the models; photos of others are unknown."""

    async def keep(self, photo: KeptPhoto, owner: str) -> Entry | None:
        """Keep a photo for one owner; None if it is larger than the whole store."""
        entry = self.own.keep(photo, owner)
        if entry and self._shared:
            data = await asyncio.to_thread(pack, entry, self.weights[photo.model])
            await self._shared.put(entry.id, owner, data, entry.expires, newest=self._newest)
        return entry

    async def get(self, id: str, owner: str) -> Entry:  # noqa: A002
        """The entry of this id.

        Raises:
            UnknownId: never given out, another owner's, expired, evicted or forgotten.
        """
        if self._shared is None:
            return self.own.get(id, owner)
        try:
            entry = self.own.get(id, owner)
        except UnknownId:
            fetched = await self._fetched(self._shared, id, owner)
            if fetched is None:
                raise
            return fetched
        if await self._shared.forgotten(id, owner):
            self.own.forget(id, owner)
            return self.own.get(id, owner)  # which says that it is not there
        return entry

    async def latest(self, owner: str) -> Entry:
        """The owner's newest photo, whichever replica it was posted to.

        Raises:
            UnknownId: the owner has none.
        """
        if self._shared:
            for id_ in await self._shared.newest(owner):
                try:
                    return await self.get(id_, owner)
                except UnknownId:
                    continue
        return await self.get(self.own.latest(owner).id, owner)

    async def forget(self, id: str, owner: str) -> None:  # noqa: A002
        """Drop an entry now, if it is there and the owner's.

        Raises:
            Overloaded: not from where all replicas would fetch it again.
        """
        self.own.forget(id, owner)
        if self._shared and not await self._shared.forget(id, owner, self.own.most_seconds):
            raise Overloaded(
                "the store that all replicas share cannot be told now; try again later",
                retry_after=PAUSE_S,
            )

    async def close(self) -> None:
        """End the connections."""
        if self._shared:
            await self._shared.close()

    async def _fetched(self, shared: SharedPhotos, id: str, owner: str) -> Entry | None:  # noqa: A002
        data = await shared.get(id, owner)
        if data is None:
            return None
        entry = await asyncio.to_thread(unpack, data, id, owner, self.weights)
        if entry is None or await shared.forgotten(id, owner):
            return None
        return entry if self.own.adopt(entry) else None
