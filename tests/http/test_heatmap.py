import io
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.fakes import POISON, FakeHouse
from tests.http.serving import Running, photo, pixels, running, until


def load(response: httpx.Response) -> np.ndarray:
    assert response.status_code == 200, response.text
    return np.asarray(np.load(io.BytesIO(response.content)))


def keep(client: httpx.Client, **query: str | bool) -> dict[str, Any]:
    response = client.post("/pose", params=query, content=photo())
    assert response.status_code == 200
    body: dict[str, Any] = response.json()
    return body


def affine(response: httpx.Response) -> np.ndarray:
    numbers = [float(number) for number in response.headers["subpose-affine"].split(",")]
    return np.array(numbers).reshape(2, 3)


@pytest.mark.parametrize("head", ["simcc", "nerpe", "heatmap"])
def test_kept_features_answer_without_an_encoder_pass(
    client: httpx.Client, house: FakeHouse, head: str
) -> None:
    answer = keep(client)
    passes = house.engine.calls.count("encode")
    assert passes == 1
    for resolution in (16, 64, 300):
        response = client.get(
            "/heatmap",
            params={"id": answer["id"], "head": head, "resolution": resolution, "format": "npy"},
        )
        assert load(response).shape == (1, resolution, -(-resolution * 48 // 64))
    assert house.engine.calls.count("encode") == passes


@pytest.mark.parametrize("head", ["simcc", "nerpe", "heatmap"])
@pytest.mark.parametrize("frame", ["crop", "image"])
def test_the_peak_lies_on_the_joint(client: httpx.Client, head: str, frame: str) -> None:
    answer = keep(client, head=head)
    nose = answer["people"][0]["keypoints"][0]
    response = client.get(
        "/heatmap",
        params={"id": answer["id"], "head": head, "keypoint": "nose", "frame": frame,
                "resolution": 512, "format": "npy", "exact": True},
    )  # fmt: skip
    (values,) = load(response)
    row, column = np.unravel_index(values.argmax(), values.shape)
    x, y = affine(response) @ (column, row, 1)
    assert abs(x - nose["x"]) < 1
    assert abs(y - nose["y"]) < 1
    assert values.max() == pytest.approx(nose["score"], abs=0.05)


def test_posting_gives_the_same_as_keeping_and_getting(client: httpx.Client) -> None:
    query: dict[str, Any] = {"head": "nerpe", "keypoint": "all", "format": "npy", "resolution": 64}
    posted = client.post("/heatmap", params=query, content=photo())
    kept = client.get("/heatmap", params={**query, "id": keep(client, head="nerpe")["id"]})
    np.testing.assert_allclose(load(posted), load(kept), atol=2e-3)
    assert posted.headers["subpose-affine"] == kept.headers["subpose-affine"]
    assert load(posted).shape == (17, 64, 48)


def test_a_keypoint_goes_by_name_and_by_index(client: httpx.Client) -> None:
    kept = keep(client)["id"]
    by_name, by_index = (
        load(client.get("/heatmap", params={"id": kept, "keypoint": keypoint, "format": "npy"}))
        for keypoint in ("left_wrist", "9")
    )
    np.testing.assert_array_equal(by_name, by_index)


def test_max_is_the_maximum_of_all(client: httpx.Client) -> None:
    kept = keep(client)["id"]
    merged, every = (
        load(client.get("/heatmap", params={"id": kept, "keypoint": keypoint, "format": "npy"}))
        for keypoint in ("max", "all")
    )
    np.testing.assert_array_equal(merged[0], every.max(axis=0))


def test_png_is_the_default_and_json_tells_peaks(client: httpx.Client) -> None:
    kept = keep(client)["id"]
    png = client.get("/heatmap", params={"id": kept})
    assert png.headers["content-type"] == "image/png"
    grey = pixels(png.content)
    assert grey.shape == (256, 192)
    response = client.get("/heatmap", params={"id": kept}, headers={"accept": "application/json"})
    body = response.json()
    np.testing.assert_allclose(np.array(body["values"][0]), grey / 255, atol=0.003)
    (peak,) = body["peaks"]
    assert peak["value"] == pytest.approx(grey.max() / 255, abs=0.003)
    np.testing.assert_allclose(body["affine"], affine(response).ravel())


def test_colour_with_alpha_is_transparent_where_low(client: httpx.Client) -> None:
    kept = keep(client)["id"]
    response = client.get("/heatmap", params={"id": kept, "colormap": "turbo", "alpha": "true"})
    image = Image.open(io.BytesIO(response.content))
    assert image.mode == "RGBA"
    opacity = np.asarray(image)[..., 3]
    assert opacity.min() == 0
    assert opacity.max() > 200


def test_features_with_flip_answer_for_both(client: httpx.Client) -> None:
    plain, flipped = (keep(client, flip=flip)["id"] for flip in (False, True))
    query: dict[str, Any] = {"format": "npy", "keypoint": "nose", "head": "heatmap"}
    a, b = (load(client.get("/heatmap", params={**query, "id": id_})) for id_ in (plain, flipped))
    assert a.shape == b.shape
    assert np.abs(a - b).max() > 0.01


def test_large_ones_are_made_in_bands_and_are_the_same(
    client: httpx.Client, house: FakeHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.nerpe_field.QUERIES", {})  # a band is one call
    query = {"id": keep(client)["id"], "format": "npy", "head": "nerpe", "exact": "true"}
    whole = load(client.get("/heatmap", params=query))
    calls = house.engine.calls.copy()
    monkeypatch.setattr("service.work.SAMPLES_A_BAND", 192 * 100)
    banded = load(client.get("/heatmap", params=query))
    assert house.engine.calls[len(calls) :] == ["nerpe", "field", "field", "field"]
    np.testing.assert_allclose(banded, whole, atol=1e-6)


def test_an_etag_saves_the_engine(client: httpx.Client, house: FakeHouse) -> None:
    kept = keep(client)["id"]
    first = client.get("/heatmap", params={"id": kept, "head": "nerpe"})
    assert first.headers["vary"] == "Accept"
    calls = list(house.engine.calls)
    again = client.get(
        "/heatmap",
        params={"id": kept, "head": "nerpe"},
        headers={"if-none-match": f'"other", W/{first.headers["etag"]}'},
    )
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    assert house.engine.calls == calls


def test_every_parameter_changes_the_etag(client: httpx.Client, house: FakeHouse) -> None:
    house.detector.people = 2
    queries: list[dict[str, Any]] = [
        {}, {"head": "nerpe"}, {"head": "heatmap"}, {"resolution": 64}, {"keypoint": "nose"},
        {"keypoint": "all", "format": "npy"}, {"frame": "image"}, {"format": "json"},
        {"colormap": "turbo"}, {"alpha": "true"}, {"exact": "true"}, {"person": 1},
    ]  # fmt: skip
    ids = [keep(client)["id"] for _ in range(2)]
    tags = [
        client.get("/heatmap", params={"id": id_, **query}).headers["etag"]
        for id_ in ids
        for query in queries
    ]
    assert len(set(tags)) == len(tags)


def test_caches_may_keep_it_until_the_features_expire(client: httpx.Client) -> None:
    response = client.get("/heatmap", params={"id": keep(client)["id"]})
    private, age = response.headers["cache-control"].split(", max-age=")
    assert private == "private"
    assert 0 < int(age) <= 600


def test_deleting_what_is_not_there_is_done(client: httpx.Client) -> None:
    for unknown in ("a", "a" * 500):
        response = client.delete(f"/pose/{unknown}")
        assert (response.status_code, response.content) == (204, b"")
        assert "content-type" not in response.headers


def test_deleted_features_are_gone(client: httpx.Client) -> None:
    kept = keep(client)["id"]
    for _ in range(2):
        assert client.delete(f"/pose/{kept}").status_code == 204
    response = client.get("/heatmap", params={"id": kept})
    assert (response.status_code, response.json()["code"]) == (404, "unknown_id")


def test_of_a_callers_boxes_only_the_one_asked_for_is_encoded(
    client: httpx.Client, house: FakeHouse
) -> None:
    boxes = "[[0,0,30,80],[30,0,30,80],[0,0,60,80]]"
    query: dict[str, Any] = {"boxes": boxes, "format": "npy", "resolution": 32}
    both = [client.post("/heatmap", params={**query, "person": p}, content=photo()) for p in (0, 1)]
    assert house.engine.batches == [1, 1]
    assert both[0].headers["subpose-affine"] != both[1].headers["subpose-affine"]
    missing = client.post("/heatmap", params={**query, "person": 3}, content=photo())
    assert missing.json()["code"] == "unknown_person"


def test_a_failed_crop_has_no_heatmap(client: httpx.Client) -> None:
    response = client.post("/heatmap", content=photo(POISON))
    assert (response.status_code, response.json()["code"]) == (500, "engine_failed")


def test_an_answer_within_the_limit_may_be_asked_for_instead(client: httpx.Client) -> None:
    kept = keep(client)["id"]
    query: dict[str, Any] = {"id": kept, "keypoint": "all", "format": "npy"}
    refused = client.get("/heatmap", params={**query, "resolution": 2048})
    assert (refused.status_code, refused.json()["code"]) == (422, "answer_too_large")
    (error,) = refused.json()["errors"]
    assert error["parameter"] == "resolution"
    fits = int(error["message"].split("at most ")[1].split(" ")[0])
    assert 1000 < fits < 2048


@pytest.fixture
def latest() -> Iterator[Running]:
    with running(FakeHouse(), latest=True) as server:
        yield server


def test_without_an_id_it_is_the_newest_where_that_is_set(latest: Running) -> None:
    with latest.client() as client:
        nobody = client.get("/heatmap")
        assert (nobody.status_code, nobody.json()["code"]) == (404, "unknown_id")
        ids = [keep(client)["id"] for _ in range(2)]
        newest = client.get("/heatmap?resolution=64")
        named = client.get("/heatmap", params={"id": ids[1], "resolution": 64})
        assert newest.headers["etag"] == named.headers["etag"]
        # The next photo changes what this address means.
        assert newest.headers["cache-control"] == "private, max-age=0"


@pytest.mark.parametrize(
    "header", ["forwarded", "x-forwarded-for", "x-real-ip", "via", "cf-connecting-ip"]
)
def test_the_newest_is_never_given_through_a_proxy(latest: Running, header: str) -> None:
    with latest.client() as client:
        keep(client)
        response = client.get("/heatmap", headers={header: "192.0.2.1"})
        assert response.status_code == 422
        assert response.json()["errors"][0]["parameter"] == "id"


def test_features_expire_though_nobody_asks() -> None:
    with running(FakeHouse(), keep_seconds=0.2) as server, server.client() as client:
        kept = keep(client)["id"]
        until(lambda: server.state.store.own.nbytes == 0)
        assert client.get("/heatmap", params={"id": kept}).status_code == 404
