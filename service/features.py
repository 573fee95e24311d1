"""Kept features: what GET /heatmap needs of a photo posted before.

A cache in memory, bounded in bytes and in age; losing it loses nothing else.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from models.features import Features
from models.geometry import CropGeometry, Size
from service.problems import UnknownId

_OVERHEAD = 512
"""Bytes of an entry, and of each of its people, besides the features."""


@dataclass(frozen=True, slots=True)
class KeptPhoto:
    """A photo's people as the encoder saw them.

    Attributes:
        width: of the photo, px.
        height: of the photo, px.
        model: the name of the pose model.
        geometries: of each person's crop.
        features: of each person, float16, one crop each; None where the crop failed.
    """

    width: int
    height: int
    model: str
    geometries: tuple[CropGeometry, ...]
    features: tuple[Features | None, ...]

    @property
    def size(self) -> Size:
        """(width, height), px."""
        return self.width, self.height

    @property
    def nbytes(self) -> int:
        """What keeping it costs."""
        held = sum(features.nbytes for features in self.features if features is not None)
        return held + _OVERHEAD * (1 + len(self.features))


@dataclass(frozen=True, slots=True)
class Entry:
    """A kept photo under its id."""

    id: str
    owner: str
    photo: KeptPhoto
    expires: float
    """On the store's wall clock: seconds since the epoch."""

    @property
    def expires_at(self) -> str:
        """RFC 3339, UTC, whole seconds."""
        return datetime.fromtimestamp(int(self.expires), tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class FeatureStore:
    """Photos by id, the least recently used first to go.

    Attributes:
        most_bytes: exact, over all entries.
        most_seconds: the age at which an entry goes, used or not.
        clock: seconds since the epoch.
    """

    most_bytes: int
    most_seconds: float
    clock: Callable[[], float] = time.time
    nbytes: int = field(default=0, init=False)
    evicted: int = field(default=0, init=False)
    # The first to expire comes first.
    _by_age: dict[str, Entry] = field(default_factory=dict, init=False)
    _by_use: OrderedDict[str, None] = field(default_factory=OrderedDict, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def __len__(self) -> int:
        return len(self._by_age)

    def keep(self, photo: KeptPhoto, owner: str) -> Entry | None:
        """Keep a photo for one owner; None if it is larger than the whole store."""
        if photo.nbytes > self.most_bytes:
            return None
        entry = Entry(secrets.token_urlsafe(16), owner, photo, self.clock() + self.most_seconds)
        with self._lock:
            self._insert(entry)
        return entry

    def adopt(self, entry: Entry) -> bool:
        """Hold what another replica keeps, for as long as that does; False where it is too old.

        One that is larger than the whole store is not held, and nevertheless good.
        """
        with self._lock:
            if entry.expires <= self.clock():
                return False
            if entry.id not in self._by_age and entry.photo.nbytes <= self.most_bytes:
                self._insert(entry)
        return True

    def get(self, id: str, owner: str) -> Entry:  # noqa: A002
        """The entry of this id.

        Raises:
            UnknownId: never given out, another owner's, expired or evicted.
        """
        with self._lock:
            self._expire()
            entry = self._by_age.get(id)
            if entry is None or entry.owner != owner:
                raise UnknownId(
                    f"nothing is kept under {id[:4]!r}...: it has expired, made room for newer "
                    "photos or was never given out; post the photo again"
                )
            self._by_use.move_to_end(id)
            return entry

    def latest(self, owner: str) -> Entry:
        """The owner's newest photo, however recently others were used.

        Raises:
            UnknownId: the owner has none.
        """
        with self._lock:
            self._expire()
            for entry in reversed(self._by_age.values()):
                if entry.owner == owner:
                    self._by_use.move_to_end(entry.id)
                    return entry
        raise UnknownId("no photo is kept; post one to /pose first")

    def forget(self, id: str, owner: str) -> None:  # noqa: A002
        """Drop an entry now, if it is there and the owner's."""
        with self._lock:
            entry = self._by_age.get(id)
            if entry is not None and entry.owner == owner:
                self._remove(id)

    def expire(self) -> None:
        """Drop what is too old, though nobody asks for anything."""
        with self._lock:
            self._expire()

    def _insert(self, entry: Entry) -> None:
        self._expire()
        while self.nbytes + entry.photo.nbytes > self.most_bytes:
            self._remove(next(iter(self._by_use)))
            self.evicted += 1
        last = next(reversed(self._by_age.values()), entry)
        self._by_age[entry.id] = entry
        self._by_use[entry.id] = None
        self.nbytes += entry.photo.nbytes
        if entry.expires < last.expires:  # another replica's live longer or shorter
            by_age = sorted(self._by_age.values(), key=lambda each: each.expires)
            self._by_age = {each.id: each for each in by_age}

    def _expire(self) -> None:
        now = self.clock()
        while self._by_age and (oldest := next(iter(self._by_age.values()))).expires <= now:
            self._remove(oldest.id)

    def _remove(self, id: str) -> None:  # noqa: A002
        del self._by_use[id]
        self.nbytes -= self._by_age.pop(id).photo.nbytes
