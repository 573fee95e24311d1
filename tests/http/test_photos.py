"""Real photos through a real server with the committed weights."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from models.bundle import find_bundles, load_bundle
from models.detectors import load_detector
from models.engines import load_engine
from models.pose import PoseModel
from models.predictor import Predictor
from service.images import PostedImage
from tests.http.serving import Running, encoded, running

pytestmark = pytest.mark.data


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running(None, latest=True, device="cpu") as server:
        yield server


@pytest.fixture
def real(server: Running) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


@pytest.fixture
def astronaut(data: Path) -> bytes:
    return (data / "demo" / "astronaut.jpg").read_bytes()


def test_the_service_answers_what_the_predictor_predicts(
    real: httpx.Client, astronaut: bytes
) -> None:
    """One product: the same photo gives the same joints with a server and without."""
    bundle = load_bundle(find_bundles()["pose-s"])
    model = PoseModel(bundle, load_engine(bundle))
    predictor = Predictor(model, load_detector("person-n"))
    people = predictor.predict(PostedImage(astronaut, 50_000_000).pixels(), heads=["nerpe"])
    body = real.post("/pose?head=nerpe", content=astronaut).json()
    assert body["engine"] == "onnxruntime/cpu"
    assert body["weights"] == bundle.digest
    assert len(body["people"]) == len(people) >= 1
    for answered, person in zip(body["people"], people, strict=True):
        points = [(joint["x"], joint["y"]) for joint in answered["keypoints"]]
        np.testing.assert_allclose(points, person.pose.points, atol=0.02)
        assert answered["score"] == pytest.approx(person.score, abs=1e-3)


@pytest.mark.parametrize("head", ["simcc", "nerpe", "heatmap"])
def test_a_face_is_found_where_it_is(real: httpx.Client, astronaut: bytes, head: str) -> None:
    (best, *_) = real.post(f"/pose?head={head}", content=astronaut).json()["people"]
    nose = best["keypoints"][0]
    assert nose["name"] == "nose"
    # By eye, to a sixteenth of the photo's side.
    assert abs(nose["x"] - 222) < 32
    assert abs(nose["y"] - 122) < 32


def test_an_exif_rotated_photo_has_the_same_people(real: httpx.Client, astronaut: bytes) -> None:
    upright = Image.open(io.BytesIO(astronaut))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(upright.transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif.tobytes())
    plain = encoded(upright, "PNG")
    a, b = (real.post("/pose", content=content).json() for content in (plain, turned))
    assert a["image"] == b["image"]
    assert a["people"] == b["people"]


def test_heatmaps_of_a_kept_photo_need_no_encoder(
    real: httpx.Client, server: Running, astronaut: bytes
) -> None:
    def encoded_crops() -> float:
        value = server.state.metrics.registry.get_sample_value(
            "subpose_encoded_crops_total", {"model": "pose-s"}
        )
        assert value is not None
        return value

    body = real.post("/pose?head=nerpe", content=astronaut).json()
    passes = encoded_crops()
    nose = body["people"][0]["keypoints"][0]
    for head in ("simcc", "nerpe", "heatmap"):
        response = real.get(
            "/heatmap",
            params={"id": body["id"], "keypoint": "nose", "head": head, "format": "json",
                    "resolution": 128},
        )  # fmt: skip
        (peak,) = response.json()["peaks"]
        assert abs(peak["x"] - nose["x"]) < 16
        assert abs(peak["y"] - nose["y"]) < 16
    assert real.get("/heatmap?resolution=64").status_code == 200
    assert encoded_crops() == passes


def test_every_demo_photo_is_answered(real: httpx.Client, data: Path) -> None:
    photos = sorted((data / "demo").glob("*.jpg"))
    assert photos
    for path in photos:
        response = real.post("/pose", content=path.read_bytes())
        assert response.status_code == 200, path.name
        body = json.loads(response.text, parse_constant=pytest.fail)
        assert len(body["people"]) >= 1, path.name
