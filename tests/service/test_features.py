import contextlib
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.features import Features
from models.geometry import Box, CropGeometry
from service.features import Entry, FeatureStore, KeptPhoto
from service.problems import UnknownId

GEOMETRY = CropGeometry.from_box(Box(0, 0, 10, 10), (48, 64))


def kept(people: int = 1, values: int = 1000) -> KeptPhoto:
    features = Features(np.zeros((1, values, 1, 1), np.float16))
    return KeptPhoto(64, 48, "fake", (GEOMETRY,) * people, (features,) * people)


def size_of(photo: KeptPhoto) -> int:
    return photo.nbytes


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Callable[[], float]) -> FeatureStore:
    return FeatureStore(3 * kept().nbytes, 60, clock)


def ids(store: FeatureStore, count: int, owner: str = "") -> list[str]:
    entries = [store.keep(kept(), owner) for _ in range(count)]
    return [entry.id for entry in entries if entry]


def test_what_is_kept_is_found(store: FeatureStore) -> None:
    photo = kept()
    entry = store.keep(photo, "me")
    assert entry
    assert store.get(entry.id, "me").photo is photo


def test_ids_have_128_random_bits(store: FeatureStore) -> None:
    found = ids(store, 3)
    assert len(set(found)) == 3
    assert all(len(one) == 22 for one in found)


def test_the_features_size_is_what_is_counted() -> None:
    assert kept(people=3).nbytes - kept(people=2).nbytes >= 2000
    assert kept(people=0).nbytes > 0


def test_the_least_recently_used_goes_first(store: FeatureStore) -> None:
    first, second, third = ids(store, 3)
    store.get(first, "")
    (fourth,) = ids(store, 1)
    with pytest.raises(UnknownId):
        store.get(second, "")
    for id_ in (first, third, fourth):
        store.get(id_, "")
    assert store.evicted == 1


def test_an_entry_goes_with_its_age_however_often_it_is_used(
    store: FeatureStore, clock: Clock
) -> None:
    (id_,) = ids(store, 1)
    clock.now += 59
    store.get(id_, "")
    clock.now += 1
    with pytest.raises(UnknownId):
        store.get(id_, "")
    assert store.nbytes == 0


def test_another_owners_entry_is_unknown_and_stays(store: FeatureStore) -> None:
    (id_,) = ids(store, 1, "me")
    with pytest.raises(UnknownId):
        store.get(id_, "you")
    store.forget(id_, "you")
    store.get(id_, "me")


def test_forgetting_is_immediate_and_may_be_repeated(store: FeatureStore) -> None:
    (id_,) = ids(store, 1)
    store.forget(id_, "")
    store.forget(id_, "")
    with pytest.raises(UnknownId):
        store.get(id_, "")
    assert store.nbytes == 0


def test_the_latest_is_the_newest_not_the_last_used(store: FeatureStore) -> None:
    first, second = ids(store, 2)
    store.get(first, "")
    assert store.latest("").id == second
    with pytest.raises(UnknownId):
        store.latest("somebody else")


def test_what_is_larger_than_the_store_is_not_kept_and_costs_nobody_theirs(
    store: FeatureStore,
) -> None:
    (id_,) = ids(store, 1)
    assert store.keep(kept(values=100_000), "") is None
    store.get(id_, "")


def test_an_id_is_never_named_whole(store: FeatureStore) -> None:
    with pytest.raises(UnknownId) as raised:
        store.get("abcdefghijklmnopqrstuv", "")
    assert "abcdefghijklmnopqrstuv" not in raised.value.detail


def test_expiry_is_told_in_utc(store: FeatureStore, clock: Clock) -> None:
    clock.now = 1_795_216_745.7 - 60
    entry = store.keep(kept(), "")
    assert entry
    assert entry.expires_at == "2026-11-20T23:19:05Z"


@given(
    st.lists(
        st.tuples(st.sampled_from("kkkgfw"), st.integers(0, 9), st.integers(0, 4)), max_size=60
    )
)
def test_the_bytes_are_those_of_the_entries_whatever_happens(
    steps: list[tuple[str, int, int]],
) -> None:
    clock = Clock()
    store = FeatureStore(20_000, 60, clock)
    held: dict[str, int] = {}
    names: list[str] = []
    for step, which, people in steps:
        if step == "k" and (entry := store.keep(kept(people), "")):
            held[entry.id] = entry.photo.nbytes
            names.append(entry.id)
        elif step == "w":
            clock.now += which * 5
        elif names:
            id_ = names[which % len(names)]
            if step == "f":
                store.forget(id_, "")
            else:
                with contextlib.suppress(UnknownId):
                    store.get(id_, "")
        there = 0
        for id_ in names:
            try:
                store.get(id_, "")
            except UnknownId:
                continue
            there += held[id_]
        assert store.nbytes == there <= 20_000


def adopted(store: FeatureStore, id_: str, expires: float, photo: KeptPhoto) -> bool:
    return store.adopt(Entry(id_, "", photo, expires))


def test_what_another_replica_keeps_is_held_until_it_expires_there(
    store: FeatureStore, clock: Clock
) -> None:
    (own,) = ids(store, 1)
    assert adopted(store, "theirs", clock.now + 5, kept())
    assert adopted(store, "theirs", clock.now + 5, kept())
    assert store.nbytes == 2 * kept().nbytes
    # It came later and is older all the same.
    assert store.latest("").id == own
    clock.now += 5
    with pytest.raises(UnknownId):
        store.get("theirs", "")
    assert store.get(own, "").id == own
    assert store.nbytes == kept().nbytes
    assert not adopted(store, "late", clock.now, kept())


def test_what_another_replica_keeps_longer_lets_nothing_be_found_past_its_own_age(
    store: FeatureStore, clock: Clock
) -> None:
    assert adopted(store, "theirs", clock.now + 600, kept())
    (own,) = ids(store, 1)
    clock.now += 60
    with pytest.raises(UnknownId):
        store.get(own, "")
    assert store.latest("").id == "theirs"
    assert store.nbytes == kept().nbytes


def test_what_another_replica_keeps_makes_room_and_is_not_held_where_there_is_none(
    store: FeatureStore, clock: Clock
) -> None:
    first, *_ = ids(store, 3)
    assert adopted(store, "theirs", clock.now + 5, kept())
    with pytest.raises(UnknownId):
        store.get(first, "")
    assert adopted(store, "huge", clock.now + 5, kept(values=100_000))
    with pytest.raises(UnknownId):
        store.get("huge", "")
    assert store.nbytes == 3 * kept().nbytes
