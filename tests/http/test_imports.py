"""Imported networks, served: HTTP answers what a direct run of the original file says."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from PIL import Image

from models.bundle import BUNDLES
from models.imports import Told, import_network
from models.keypoints import COCO17, HALPE26
from service.bench.process import own_server
from service.doctor import SAMPLE
from tests.http.serving import Running, running
from tests.models.elsewhere import SIZE, simcc_network

# Small enough at 48x64 for no crop to be reduced by area before the warp.
BOXES = [[100, 120, 30, 45], [210, 130, 28, 50], [230, 300, 40, 30]]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simcc_network(tmp_path_factory.mktemp("files") / "theirs.onnx", joints=26)


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Without loss, so that every decoder reads the same pixels."""
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    Image.open(SAMPLE).convert("RGB").save(path)
    return path


@pytest.fixture(scope="module")
def server(network: Path) -> Iterator[Running]:
    told = Told(name="theirs", licence="MIT", source="a test")
    import_network(network, network.parent / "bundles", told)
    folders = (BUNDLES, network.parent / "bundles")
    with running(None, bundles=folders, latest=True) as there:
        yield there


@pytest.fixture
def client(server: Running) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


def post(client: httpx.Client, photo: Path, boxes: Any, **query: Any) -> dict[str, Any]:  # noqa: ANN401
    response = client.post(
        "/pose", content=photo.read_bytes(), params={"boxes": json.dumps(boxes), **query}
    )
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def joints(answer: dict[str, Any]) -> NDArray[np.float64]:
    """(people, K, 3): x, y, score."""
    return np.array(
        [[[k["x"], k["y"], k["score"]] for k in p["keypoints"]] for p in answer["people"]]
    )


def normalised(path: Path, box: list[float], size: tuple[int, int], last: int) -> tuple[Any, Any]:
    """mmpose's recipe: a crop 1.25 times the box, and its matrix; `last` is 1 for UDP's steps."""
    image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)  # type: ignore[arg-type]
    x, y, w, h = box
    width = max(w, h * size[0] / size[1]) * 1.25
    extent = np.array([width, width * size[1] / size[0]])
    steps = np.array(size) - last
    scale = steps / extent
    offset = steps / 2 - scale * (x + w / 2, y + h / 2)
    matrix = np.array([[scale[0], 0, offset[0]], [0, scale[1], offset[1]]])
    crop = cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR)
    pixels = (crop - [123.675, 116.28, 103.53]) / [58.395, 57.12, 57.375]
    return pixels.transpose(2, 0, 1)[None].astype(np.float32), matrix


def test_a_simcc_network_answers_over_http_as_its_file_does(
    client: httpx.Client, network: Path, photo: Path
) -> None:
    answer = post(client, photo, BOXES, model="theirs")
    assert (answer["model"], answer["head"], answer["decode"]) == ("theirs", "simcc", "argmax")
    assert answer["keypoint_set"] == "halpe26"
    assert [k["name"] for k in answer["people"][0]["keypoints"]] == list(HALPE26.names)
    session = ort.InferenceSession(network)
    for found, box in zip(joints(answer), BOXES, strict=True):
        pixels, matrix = normalised(photo, [float(n) for n in box], SIZE, 0)
        x, y = (part[0] for part in session.run(None, {"input": pixels}))
        points = np.stack([x.argmax(-1), y.argmax(-1)], -1) / 2
        expected = (points - matrix[:, 2]) / matrix[[0, 1], [0, 1]]
        np.testing.assert_allclose(found[:, :2], expected, atol=0.011)
        scores = np.minimum(x.max(-1), y.max(-1)).clip(0, 1)
        np.testing.assert_allclose(found[:, 2], scores, atol=1e-4)


def test_models_lists_it_and_its_heatmap_is_drawn(client: httpx.Client, photo: Path) -> None:
    (card,) = [card for card in client.get("/models").json()["models"] if card["name"] == "theirs"]
    assert card["licence"] == "MIT"
    assert [(head["name"], head["sigma"]) for head in card["heads"]] == [("simcc", False)]
    assert card["input"] == {"width": SIZE[0], "height": SIZE[1]}
    assert card["skeleton"] == [list(edge) for edge in HALPE26.skeleton]
    answer = post(client, photo, BOXES[:1], model="theirs", decode="argmax")
    query = {"id": answer["id"], "keypoint": "all", "format": "npy", "resolution": "256"}
    drawn = client.get("/heatmap", params=query)
    assert drawn.status_code == 200, drawn.text
    a, b, c, d, e, f = map(float, drawn.headers["Subpose-Affine"].split(","))
    (found,) = joints(answer)
    for (x, y, score), values in zip(found, np.load(io.BytesIO(drawn.content)), strict=True):
        # As high as the joint's score, where the joint was answered to be.
        row, column = np.unravel_index(values.argmax(), values.shape)
        assert values.max() == pytest.approx(score, rel=0.15)
        assert a * column + b * row + c == pytest.approx(x, abs=3 * a)
        assert d * column + e * row + f == pytest.approx(y, abs=3 * e)
    assert (found[:, 2] > 0.1).mean() > 0.5


def test_its_scores_are_raw_so_a_sigma_is_refused(client: httpx.Client) -> None:
    response = client.post(
        "/pose", content=SAMPLE.read_bytes(), params={"model": "theirs", "sigma": "true"}
    )
    assert response.status_code == 422
    assert "not calibrated" in response.json()["errors"][0]["message"]


@contextmanager
def serving(folder: Path, *command: str) -> Iterator[httpx.Client]:
    """What a user types: a model imported by one process, served by another."""
    env = {**os.environ, "XDG_DATA_HOME": str(folder)}
    subprocess.run(
        [sys.executable, "-m", "service", "models", "import", *command],
        env=env, check=True, capture_output=True, timeout=200,
    )  # fmt: skip
    with (
        own_server({"XDG_DATA_HOME": str(folder), "SUBPOSE_MODEL": "tinypose"}) as server,
        httpx.Client(base_url=server.url, timeout=120, verify=False) as client,
    ):
        yield client


def dark(maps: NDArray[np.float32]) -> NDArray[np.float64]:
    """(K, 64, 48) to (K, 3), crop px and score: blur 3x3, argmax, a Newton step on the log."""
    found = []
    for heatmap in maps:
        smooth = cv2.GaussianBlur(heatmap, (3, 3), 0)
        row, column = np.unravel_index(heatmap.argmax(), heatmap.shape)
        step = np.zeros(2)
        if 2 <= column < 46 and 2 <= row < 62:
            log = np.log(np.maximum(smooth, 1e-10))[row - 1 : row + 2, column - 1 : column + 2]
            slope = np.array([log[1, 2] - log[1, 0], log[2, 1] - log[0, 1]]) / 2
            xx, yy = log[1, 2] - 2 * log[1, 1] + log[1, 0], log[2, 1] - 2 * log[1, 1] + log[0, 1]
            xy = (log[2, 2] - log[2, 0] - log[0, 2] + log[0, 0]) / 4
            step = -np.linalg.solve(np.array([[xx, xy], [xy, yy]]), slope)
        cell = np.array([column, row]) + step
        found.append([*cell * (191 / 47, 255 / 63), min(heatmap.max(), 1)])
    return np.array(found)


@pytest.mark.data
def test_tinypose_answers_over_http_what_its_file_does(data: Path, tmp_path: Path) -> None:
    file = data / "models" / "teacher" / "tinypose_256x192.onnx"
    labels = json.loads((data / "coco/annotations/person_keypoints_val.json").read_text())
    names = {row["id"]: row["file_name"] for row in labels["images"]}
    people: dict[int, list[list[float]]] = {}
    for row in labels["annotations"]:
        # Of a size at which no crop is reduced by area before the warp.
        if row["num_keypoints"] > 12 and 60 < row["bbox"][3] < 300 and row["bbox"][2] < 200:
            people.setdefault(row["image_id"], []).append(row["bbox"])
    session = ort.InferenceSession(file)
    options = ("--name", "tinypose", "--licence", "Apache-2.0", "--source", "PaddleDetection")
    mirror = list(COCO17.mirror)
    compared = 0
    with serving(tmp_path, str(file), *options, "--matrix", "udp", "--blur", "3") as client:
        for image_id, boxes in list(people.items())[:6]:
            photo = data / "coco" / "images" / names[image_id]
            plain, flipped = (
                joints(post(client, photo, boxes, flip=flip)) for flip in ("false", "true")
            )
            for number, box in enumerate(boxes):
                pixels, matrix = normalised(photo, box, (192, 256), 1)
                own, other = (
                    session.run(["heatmap"], {"image": each})[0][0]
                    for each in (pixels, np.ascontiguousarray(pixels[..., ::-1]))
                )
                both = (own + other[mirror][..., ::-1]) / 2
                for found, maps in ((plain, own), (flipped, both)):
                    expected = dark(maps)
                    points = (expected[:, :2] - matrix[:, 2]) / matrix[[0, 1], [0, 1]]
                    np.testing.assert_allclose(found[number, :, 2], expected[:, 2], atol=0.002)
                    sure = expected[:, 2] > 0.3
                    px = np.abs(found[number, :, :2] - points).max(-1)[sure]
                    assert np.median(px) < 0.05
                    assert (px < 0.5).mean() > 0.95
                    compared += int(sure.sum())
    assert compared > 100
