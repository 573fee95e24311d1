from collections.abc import Iterator

import httpx
import pytest

from tests.fakes import FakeHouse
from tests.http.serving import Running, running


@pytest.fixture(scope="package")
def shared_house() -> FakeHouse:
    return FakeHouse()


@pytest.fixture(scope="package")
def shared_server(shared_house: FakeHouse) -> Iterator[Running]:
    with running(shared_house, body_bytes=2_000_000, image_pixels=4_000_000) as server:
        yield server


@pytest.fixture(scope="package")
def shared_client(shared_server: Running) -> Iterator[httpx.Client]:
    with shared_server.client() as client:
        yield client


@pytest.fixture
def house(shared_house: FakeHouse) -> FakeHouse:
    """The house of `client`, as it was at first."""
    shared_house.detector.people = 1
    shared_house.engine.batches.clear()
    shared_house.engine.calls.clear()
    return shared_house


@pytest.fixture
def client(shared_client: httpx.Client, house: FakeHouse) -> httpx.Client:
    """Of a server that all these tests share, with its house as it was at first."""
    return shared_client
