import json
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from models.geometry import Box
from tests.fakes import (
    HEIGHT,
    JOINTS,
    NAN,
    POISON,
    SIGMA,
    SIGMA_BINS,
    WIDTH,
    FakeHouse,
    Floats,
    fake_manifest,
    joints_of,
)
from tests.http.serving import GREY, encoded, photo, pixels


def strips(colours: list[tuple[int, int, int]], width: int = 60, height: int = 80) -> bytes:
    """A photo of vertical strips, which the fake detector takes for people."""
    image = Image.new("RGB", (width * len(colours), height))
    for number, colour in enumerate(colours):
        image.paste(colour, (number * width, 0, (number + 1) * width, height))
    return encoded(image)


def expected(colour: tuple[int, int, int], box: Box) -> np.ndarray:
    """Where the joints of a person of this colour lie in the photo."""
    from models.geometry import CropGeometry

    geometry = CropGeometry.from_box(box, (WIDTH, HEIGHT), padding=fake_manifest().crop.padding)
    return geometry.to_image(joints_of(colour))


def points(person: dict[str, Any]) -> np.ndarray:
    return np.array([(joint["x"], joint["y"]) for joint in person["keypoints"]])


def test_a_photo_gives_people_in_its_own_pixels(client: httpx.Client, house: FakeHouse) -> None:
    house.detector.people = 2
    colours = [(20, 200, 0), (240, 30, 90)]
    response = client.post("/pose", content=strips(colours))
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert body["image"] == {"width": 120, "height": 80}
    assert [person["person"] for person in body["people"]] == [0, 1]
    for person, colour in zip(body["people"], colours, strict=True):
        corner = person["box"]
        box = Box(corner["x"], corner["y"], corner["width"], corner["height"])
        np.testing.assert_allclose(points(person), expected(colour, box), atol=0.2)
        assert len(person["keypoints"]) == JOINTS
        assert person["keypoints"][0]["name"] == "nose"
        assert 0.5 < person["score"] <= corner["score"]


def test_the_answer_tells_what_made_it(client: httpx.Client) -> None:
    body = client.post("/pose?image_id=7&head=nerpe", content=photo()).json()
    del body["people"], body["id"], body["expires"]
    timings = body.pop("timings_ms")
    assert body == {
        "image": {"width": 60, "height": 80},
        "image_id": 7,
        "model": "fake",
        "weights": "sha256:fake",
        "engine": "fake/cpu",
        "detector": "strips",
        "head": "nerpe",
        "decode": "progressive",
        "resolution": 512,
        "keypoint_set": "coco17",
    }
    assert set(timings) == {"decode_image", "detect", "queue", "encode", "head", "total"}
    assert timings["total"] >= timings["decode_image"] > 0


def test_nobody_is_an_answer(client: httpx.Client) -> None:
    response = client.post("/pose?min_box_score=0.95", content=photo())
    assert response.status_code == 200
    assert response.json()["people"] == []


@pytest.mark.parametrize("head", ["simcc", "nerpe", "heatmap"])
def test_every_head_answers(client: httpx.Client, head: str) -> None:
    body = client.post(f"/pose?head={head}", content=photo()).json()
    (person,) = body["people"]
    box = person["box"]
    where = expected(GREY, Box(box["x"], box["y"], box["width"], box["height"]))
    np.testing.assert_allclose(points(person), where, atol=1.0)
    assert "heads" not in person


def test_several_heads_share_one_encoder_pass(client: httpx.Client, house: FakeHouse) -> None:
    body = client.post("/pose?head=nerpe,simcc,heatmap&resolution=100", content=photo()).json()
    assert house.engine.calls.count("encode") == 1
    (person,) = body["people"]
    assert list(person["heads"]) == ["nerpe", "simcc", "heatmap"]
    assert person["keypoints"] == person["heads"]["nerpe"]["keypoints"]
    assert body["head"] == "nerpe"
    assert body["resolution"] == person["heads"]["nerpe"]["resolution"] == 128
    assert person["heads"]["simcc"]["resolution"] is None


def test_a_decode_is_for_the_heads_that_know_it(client: httpx.Client) -> None:
    body = client.post("/pose?head=simcc,heatmap&decode=quarter", content=photo()).json()
    heads = body["people"][0]["heads"]
    assert (heads["simcc"]["decode"], heads["heatmap"]["decode"]) == ("expectation", "quarter")


@pytest.mark.parametrize(("decode", "asked", "used"), [
    ("gaussian", None, 64), ("progressive", None, 512), ("standard", 100, 100),
    ("progressive", 100, 128), ("progressive", 16, 32), ("progressive", 2048, 2048),
    ("gaussian", 100, 128),
])  # fmt: skip
def test_the_answer_says_which_resolution_was_used(
    client: httpx.Client, decode: str, asked: int | None, used: int
) -> None:
    query: dict[str, Any] = {"head": "nerpe", "decode": decode}
    query |= {} if asked is None else {"resolution": asked}
    with_people = client.post("/pose", params=query, content=photo()).json()
    without = client.post("/pose", params={**query, "min_box_score": 1}, content=photo()).json()
    assert with_people["resolution"] == without["resolution"] == used


@pytest.mark.parametrize("head", ["simcc", "nerpe"])
def test_sigma_is_in_pixels_of_the_photo(client: httpx.Client, head: str) -> None:
    boxes = [[0, 0, 60, 80], [0, 0, 30, 40]]
    query = {"head": head, "sigma": "true", "boxes": json.dumps(boxes)}
    body = client.post("/pose", params=query, content=photo()).json()
    large, small = ([joint["sigma"] for joint in p["keypoints"]] for p in body["people"])
    # Half of a bump's spread, of which 3 sigmas along two axes hold all but little.
    crop_px = {"simcc": SIGMA_BINS / 2, "nerpe": SIGMA * HEIGHT / 2}[head] * np.sqrt(2) / 2
    np.testing.assert_allclose(large, crop_px * 80 * 1.25 / HEIGHT, rtol=0.15)
    np.testing.assert_allclose(small, np.array(large) / 2, atol=0.02)
    del query["sigma"]
    plain = client.post("/pose", params=query, content=photo()).json()
    for person, other in zip(plain["people"], body["people"], strict=True):
        for joint, told in zip(person["keypoints"], other["keypoints"], strict=True):
            assert joint == {key: value for key, value in told.items() if key != "sigma"}


def test_several_heads_have_each_their_sigma(client: httpx.Client) -> None:
    body = client.post("/pose?head=nerpe,simcc&sigma=true", content=photo()).json()
    (person,) = body["people"]
    first, second = ([j["sigma"] for j in h["keypoints"]] for h in person["heads"].values())
    assert first != second
    assert [joint["sigma"] for joint in person["keypoints"]] == first


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("sigma=true&format=coco", "json"),
        ("sigma=true&format=png", "json"),
        ("sigma=true&head=heatmap", "not calibrated"),
        ("sigma=true&head=simcc,heatmap", "not calibrated"),
        ("sigma=maybe", "sigma"),
    ],
)
def test_a_sigma_that_there_is_not_is_refused(client: httpx.Client, query: str, named: str) -> None:
    response = client.post(f"/pose?{query}", content=photo())
    assert response.status_code == 422
    (error,) = response.json()["errors"]
    assert error["parameter"] == "sigma"
    assert named in response.text


def test_models_say_which_heads_have_a_sigma(client: httpx.Client) -> None:
    heads = client.get("/models/fake").json()["heads"]
    assert {head["name"]: head["sigma"] for head in heads} == {
        "simcc": True, "nerpe": True, "heatmap": False,
    }  # fmt: skip


def test_flip_is_a_second_encoder_pass(client: httpx.Client, house: FakeHouse) -> None:
    client.post("/pose?flip=true", content=photo())
    assert house.engine.calls.count("encode") == 2


def test_own_boxes_are_answered_all_and_in_their_order(
    client: httpx.Client, house: FakeHouse
) -> None:
    before = house.detector.calls
    boxes = [[30.25, 10, 20, 30], [0, 0, 60, 80], [0, 0, 60, 80]]
    body = client.post("/pose", params={"boxes": json.dumps(boxes)}, content=photo()).json()
    assert house.detector.calls == before
    assert body["detector"] is None
    corners = [
        [person["box"][name] for name in ("x", "y", "width", "height")] for person in body["people"]
    ]
    assert corners == boxes
    assert {person["box"]["score"] for person in body["people"]} == {1.0}


def test_the_same_pose_is_answered_once(client: httpx.Client, house: FakeHouse) -> None:
    # A strip so narrow that its crop is all but its neighbour's.
    house.detector.people = 60
    body = client.post("/pose?max_people=100&min_box_score=0", content=photo()).json()
    assert 1 <= len(body["people"]) < 60


def test_people_have_the_same_numbers_under_every_head_and_route(
    client: httpx.Client, house: FakeHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = house.engine.head

    def doubtful(name: str, features: Floats) -> tuple[Floats, ...]:
        # This head is the surer of a person the less the detector was.
        answer = head(name, features)
        if name != "heatmap":
            return answer
        red = np.asarray(features[:, :1, :1, :1] / 255, np.float32)
        return tuple(part * red for part in answer)

    monkeypatch.setattr(house.engine, "head", doubtful)
    house.detector.people = 3
    content = strips([(100, 50, 50), (150, 50, 50), (200, 50, 50)])
    whole = client.post("/pose", content=content).json()
    boxes = [person["box"] for person in whole["people"]]
    for name in ("heatmap", "heatmap,simcc", "nerpe"):
        answer = client.post(f"/pose?head={name}", content=content).json()
        assert [person["box"] for person in answer["people"]] == boxes
        if name == "heatmap":
            scores = [person["score"] for person in answer["people"]]
            assert scores == sorted(scores)
        for number in range(3):
            query = f"person={number}&head={name.split(',')[0]}"
            kept = client.get(f"/heatmap?id={whole['id']}&{query}")
            posted = client.post(f"/heatmap?{query}", content=content)
            assert posted.headers["subpose-affine"] == kept.headers["subpose-affine"]
            assert (posted.status_code, kept.status_code) == (200, 200)


def test_max_people_takes_the_best_boxes(client: httpx.Client, house: FakeHouse) -> None:
    house.detector.people = 5
    body = client.post("/pose?max_people=2", content=strips([GREY] * 5)).json()
    assert [person["box"]["score"] for person in body["people"]] == [0.9, 0.89]


def test_the_whole_image_is_one_person(client: httpx.Client, house: FakeHouse) -> None:
    house.detector.people = 3
    body = client.post("/pose?detector=whole", content=photo()).json()
    (person,) = body["people"]
    assert body["detector"] == "whole"
    assert person["box"] == {"x": 0, "y": 0, "width": 60, "height": 80, "score": 1}


def test_a_multipart_image_answers_like_the_raw_one(client: httpx.Client) -> None:
    raw = client.post("/pose", content=photo()).json()
    form = client.post("/pose", files={"image": photo()}).json()
    assert raw["people"] == form["people"]


def test_several_images_answer_in_order_and_a_broken_one_in_its_place(
    client: httpx.Client,
) -> None:
    good = [photo((200, 40, 0)), photo((20, 220, 0))]
    files = [
        ("image", good[0]),
        ("image", photo()[:60]),
        ("image", b"GIF89a..."),
        ("image", good[1]),
    ]
    response = client.post("/pose", files=files)
    assert response.status_code == 200
    results = response.json()["results"]
    assert [result.get("code") for result in results] == [
        None, "unreadable_image", "unsupported_image", None,
    ]  # fmt: skip
    for result, data in ((results[0], good[0]), (results[3], good[1])):
        assert result["people"] == client.post("/pose", content=data).json()["people"]
    assert results[1]["request_id"] == response.headers["x-request-id"]
    assert results[0]["id"] != results[3]["id"]


def test_coco_rows_load_in_pycocotools(
    client: httpx.Client, house: FakeHouse, tmp_path: object
) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    house.detector.people = 2
    response = client.post("/pose?format=coco&image_id=42", content=strips([GREY, (9, 9, 9)]))
    assert response.headers["content-type"] == "application/json"
    truth = coco.COCO()
    truth.dataset = {
        "info": {}, "images": [{"id": 42, "width": 120, "height": 80}],
        "annotations": [], "categories": [{"id": 1, "name": "person"}],
    }  # fmt: skip
    truth.createIndex()
    results = truth.loadRes(response.json())
    assert len(results.getAnnIds(imgIds=[42])) == 2


def test_openpose_has_its_own_shape(client: httpx.Client) -> None:
    body = client.post("/pose?format=openpose", content=photo()).json()
    assert body["version"] == 1.3
    assert len(body["people"][0]["pose_keypoints_2d"]) == 75


@pytest.mark.parametrize(
    "how", [{"params": {"format": "png"}}, {"headers": {"accept": "image/png"}}]
)
def test_png_is_the_photo_with_skeletons(client: httpx.Client, how: dict[str, Any]) -> None:
    response = client.post("/pose", content=photo(), **how)
    assert response.headers["content-type"] == "image/png"
    drawn = pixels(response.content)
    assert drawn.shape == (80, 60, 3)
    changed = (drawn != GREY).any(axis=-1)
    assert 10 < changed.sum() < changed.size


def test_a_crop_that_fails_carries_its_error_and_no_other_does(
    client: httpx.Client, house: FakeHouse
) -> None:
    house.detector.people = 4
    colours = [GREY, POISON, (5, 90, 10), NAN]
    response = client.post("/pose", content=strips(colours))
    assert response.status_code == 200
    people = response.json()["people"]
    errors = {person["box"]["x"]: person.get("error", {}).get("code") for person in people}
    assert errors == {0: None, 60: "engine_failed", 120: None, 180: "engine_failed"}
    for person in people:
        assert ("keypoints" in person) != ("error" in person)
        assert ("score" in person) != ("error" in person)


@pytest.mark.parametrize("query", ["format=coco", "format=openpose", "format=png"])
def test_other_formats_leave_out_crops_that_failed(
    client: httpx.Client, house: FakeHouse, query: str
) -> None:
    house.detector.people = 2
    response = client.post(f"/pose?{query}", content=strips([GREY, POISON]))
    assert response.status_code == 200
    if query == "format=coco":
        assert len(response.json()) == 1


def test_if_every_crop_fails_the_answer_is_500(client: httpx.Client) -> None:
    response = client.post("/pose", content=photo(POISON))
    assert (response.status_code, response.json()["code"]) == (500, "engine_failed")


def test_what_is_not_kept_has_no_id(client: httpx.Client) -> None:
    body = client.post("/pose?keep=false", content=photo()).json()
    assert body["id"] is None
    assert body["expires"] is None


def test_numbers_are_rounded_and_finite(client: httpx.Client) -> None:
    text = client.post("/pose", content=photo((33, 77, 0))).text
    assert "NaN" not in text
    person = json.loads(text)["people"][0]
    for joint in person["keypoints"]:
        assert joint["x"] == round(joint["x"], 2)
        assert joint["score"] == round(joint["score"], 4)
