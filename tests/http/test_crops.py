"""An engine that cuts crops where it computes, behind a real server."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch")

import torch

from models.arrays import Array
from models.engines.torch import upload
from models.engines.torch_crops import cut_crops
from models.geometry import CropGeometry
from tests.fakes import FakeEngine, FakeHouse, Floats
from tests.http.serving import photo, running

place = partial(upload, device=torch.device("cpu"))


@dataclass
class CutsItself(FakeEngine):
    """Has its crops as tensors and takes nothing else; batches are filled up as for a GPU."""

    device: str = "fake:0"
    failure: Exception | None = None

    def cut(self, photo: NDArray[np.uint8], geometries: Sequence[CropGeometry]) -> Sequence[Array]:
        if self.failure:
            raise self.failure
        return cut_crops(photo, geometries, place)

    def encode(self, crops: Array) -> Floats:
        assert isinstance(crops, torch.Tensor)
        return super().encode(crops.numpy())


@pytest.fixture(scope="module")
def house() -> FakeHouse:
    house = FakeHouse(engine=CutsItself())
    house.detector.people = 3
    return house


@pytest.fixture(scope="module")
def client(house: FakeHouse) -> Iterator[httpx.Client]:
    with running(house) as server, server.client() as client:
        yield client


def _people(client: httpx.Client, **parameters: float) -> list[list[tuple[float, float]]]:
    answer = client.post("/pose", params=parameters, content=photo(size=(240, 160)))
    assert answer.status_code == 200, answer.text
    return [[(k["x"], k["y"]) for k in p["keypoints"]] for p in answer.json()["people"]]


@pytest.mark.parametrize("flip", [False, True])
def test_people_are_where_they_are_when_the_host_cuts(
    client: httpx.Client, shared_client: httpx.Client, shared_house: FakeHouse, flip: bool
) -> None:
    shared_house.detector.people = 3
    ours, theirs = (_people(one, flip=flip) for one in (client, shared_client))
    assert ours == theirs
    assert len(ours) == 3


def test_batches_are_filled_up_and_a_photo_without_people_makes_none(
    client: httpx.Client, house: FakeHouse
) -> None:
    house.engine.batches.clear()
    assert len(_people(client)) == 3
    assert house.engine.batches == [4]
    assert _people(client, min_box_score=1) == []
    assert house.engine.batches == [4]


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), 503, "overloaded"),
        (RuntimeError("CUDA error: misaligned address"), 500, "engine_failed"),
    ],
)
def test_a_photo_that_could_not_be_cut_is_a_problem(
    client: httpx.Client, house: FakeHouse, failure: Exception, status: int, code: str
) -> None:
    assert isinstance(house.engine, CutsItself)
    house.engine.failure = failure
    try:
        answer = client.post("/pose", content=photo())
    finally:
        house.engine.failure = None
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert "CUDA" not in answer.text
    assert client.post("/pose", content=photo()).status_code == 200
