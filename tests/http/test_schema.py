"""The OpenAPI schema against what callers were promised, which is written down here."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import numpy as np
import pytest

from tests.fakes import POISON, FakeHouse
from tests.http.serving import Running, photo
from tests.http.test_problems import TABLE

ROUTES = {
    "/pose": {"post"},
    "/pose/{id}": {"delete"},
    "/heatmap": {"get", "post"},
    "/models": {"get"},
    "/models/{name}": {"get"},
    "/healthz": {"get"},
    "/readyz": {"get"},
    "/metrics": {"get"},
}

# Parameter: the routes that have it, and what OpenAPI must say of it (default first).
POSE, POST, GET = ("/pose", "post"), ("/heatmap", "post"), ("/heatmap", "get")
HEADS = {"simcc", "nerpe", "heatmap"}
PARAMETERS: dict[str, tuple[set[tuple[str, str]], dict[str, Any]]] = {
    "head": ({POSE, POST, GET}, {}),
    "decode": ({POSE}, {"enum": {"expectation", "argmax", "progressive", "standard",
                                 "gaussian", "dark", "quarter"}}),
    "resolution": ({POSE, POST, GET}, {"minimum": 16, "maximum": 2048}),
    "model": ({POSE, POST}, {}),
    "detector": ({POSE, POST}, {}),
    "boxes": ({POSE, POST}, {}),
    "max_people": ({POSE}, {"default": 20, "minimum": 1, "maximum": 100}),
    "min_box_score": ({POSE, POST}, {"minimum": 0, "maximum": 1}),
    "flip": ({POSE, POST}, {"default": False}),
    "sigma": ({POSE}, {"default": False}),
    "keep": ({POSE}, {"default": True}),
    "format": ({POSE, POST, GET}, {}),
    "image_id": ({POSE}, {"default": 0}),
    "deadline_ms": ({POSE, POST, GET}, {"minimum": 1, "maximum": 60000}),
    "id": ({GET}, {}),
    "person": ({POST, GET}, {"default": 0, "minimum": 0}),
    "keypoint": ({POST, GET}, {"default": "max"}),
    "frame": ({POST, GET}, {"default": "crop", "enum": {"crop", "image"}}),
    "colormap": ({POST, GET}, {"default": "grey", "enum": {"grey", "viridis", "turbo"}}),
    "alpha": ({POST, GET}, {"default": False}),
    "exact": ({POST, GET}, {"default": False}),
}  # fmt: skip

# Answered before a route is known.
ANYWHERE = {"bad_request", "not_found", "method_not_allowed", "headers_too_large"}


@pytest.fixture(scope="module")
def schema(shared_server: Running) -> dict[str, Any]:
    with shared_server.client() as client:
        body: dict[str, Any] = client.get("/openapi.json").json()
        return body


def query_parameters(schema: dict[str, Any], route: tuple[str, str]) -> dict[str, dict[str, Any]]:
    """By name, each with its constraints in one dictionary."""
    path, method = route
    parameters = {}
    for parameter in schema["paths"][path][method].get("parameters", []):
        if parameter["in"] == "query":
            declared = parameter["schema"]
            options = [one for one in declared.get("anyOf", [{}]) if one.get("type") != "null"]
            parameters[parameter["name"]] = {**options[0], **declared}
    return parameters


def test_the_routes_are_those_of_the_contract(schema: dict[str, Any]) -> None:
    assert {path: set(methods) for path, methods in schema["paths"].items()} == ROUTES


@pytest.mark.parametrize("route", [POSE, POST, GET])
def test_the_parameters_are_those_of_the_contract(
    schema: dict[str, Any], route: tuple[str, str]
) -> None:
    declared = query_parameters(schema, route)
    assert set(declared) == {name for name, (routes, _) in PARAMETERS.items() if route in routes}
    for name, found in declared.items():
        for key, value in PARAMETERS[name][1].items():
            assert (set(found[key]) if isinstance(value, set) else found[key]) == value, name


def test_every_parameter_says_what_it_means(schema: dict[str, Any]) -> None:
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            for parameter in operation.get("parameters", []):
                if parameter["in"] == "query":
                    assert parameter.get("description"), f"{method} {path} {parameter['name']}"


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_line_of_curl_that_boxes_are_described_with_works(
    schema: dict[str, Any], shared_server: Running, tmp_path: Path
) -> None:
    (tmp_path / "photo.jpg").write_bytes(photo(size=(200, 420), kind="JPEG"))
    described = {
        parameter["name"]: parameter for parameter in schema["paths"]["/pose"]["post"]["parameters"]
    }
    (line,) = re.findall("`(curl .*?)`", described["boxes"]["description"])
    command = shlex.split(line.replace("http://127.0.0.1:8000", shared_server.url))
    answer = json.loads(subprocess.check_output([*command, "-s"], cwd=tmp_path))
    assert [person["box"]["height"] for person in answer["people"]] == [303]


def test_default_resolution_of_heatmaps(schema: dict[str, Any]) -> None:
    for route in (POST, GET):
        assert query_parameters(schema, route)["resolution"]["default"] == 256


def test_formats_are_those_of_the_contract(schema: dict[str, Any]) -> None:
    assert set(query_parameters(schema, POSE)["format"]["enum"]) == {
        "json", "coco", "openpose", "png",
    }  # fmt: skip
    for route in (POST, GET):
        assert set(query_parameters(schema, route)["format"]["enum"]) == {"png", "npy", "json"}
        assert set(query_parameters(schema, route)["head"]["enum"]) == HEADS


def test_bodies_are_described(schema: dict[str, Any]) -> None:
    for path, method in (POSE, POST):
        content = schema["paths"][path][method]["requestBody"]["content"]
        assert {"image/jpeg", "image/png", "image/webp", "multipart/form-data"} <= set(content)


def test_problems_are_those_of_the_contract(schema: dict[str, Any]) -> None:
    found: dict[int, set[str]] = {}
    for methods in schema["paths"].values():
        for operation in methods.values():
            for status, response in operation["responses"].items():
                if status >= "400":
                    examples = response["content"]["application/problem+json"]["examples"]
                    found.setdefault(int(status), set()).update(examples)
                    for example in examples.values():
                        assert example["value"]["status"] == int(status)
    documented = {status: codes - ANYWHERE for status, codes in TABLE.items()}
    assert found == {status: codes for status, codes in documented.items() if codes}


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/pose", {}),
        ("/pose", {"head": "simcc,nerpe"}),
        ("/pose", {"keep": "false"}),
        ("/pose", {"head": "nerpe,simcc", "sigma": "true"}),
        ("/pose", {"boxes": "[[0,0,9,9]]"}),
        ("/heatmap", {"format": "json", "resolution": 16}),
    ],
)
def test_answers_are_as_the_schema_says(
    client: httpx.Client, schema: dict[str, Any], path: str, query: dict[str, Any]
) -> None:
    response = client.post(path, params=query, content=photo())
    assert response.status_code == 200
    validate(schema, path, "post", response)


def test_a_failed_crop_is_as_the_schema_says(
    client: httpx.Client, schema: dict[str, Any], house: FakeHouse
) -> None:
    response = client.post("/pose", files=[("image", photo()), ("image", photo(POISON))])
    assert response.status_code == 200
    validate(schema, "/pose", "post", response)


def test_problems_are_as_the_schema_says(client: httpx.Client, schema: dict[str, Any]) -> None:
    for response in (client.post("/pose?a=b", content=photo()), client.post("/pose", content=b"")):
        validate(schema, "/pose", "post", response)


def test_the_catalog_is_as_the_schema_says(client: httpx.Client, schema: dict[str, Any]) -> None:
    validate(schema, "/models", "get", client.get("/models"))
    for name in ("fake", "strips"):
        validate(schema, "/models/{name}", "get", client.get(f"/models/{name}"))


def test_random_queries_are_answered_or_named(client: httpx.Client) -> None:
    rng = np.random.default_rng(5)
    values = ["", "0", "-1", "1e9", "nan", "true", "simcc", "a" * 200, "[[0,0,9,9]]", "\x00", "ü"]
    content = photo()
    for _ in range(60):
        names = rng.choice([*PARAMETERS, "other"], size=2, replace=False)
        query = {str(name): values[rng.integers(len(values))] for name in names}
        for path in ("/pose", "/heatmap"):
            response = client.post(path, params=query, content=content)
            assert response.status_code in (200, 404, 422), (query, response.text)
            if response.status_code == 422:
                named = {error["parameter"] for error in response.json()["errors"]}
                assert named <= set(query)


def validate(schema: dict[str, Any], path: str, method: str, response: httpx.Response) -> None:
    """The body has the shape that the schema gives for its status."""
    described = schema["paths"][path][method]["responses"][str(response.status_code)]
    shape = described["content"][response.headers["content-type"]]["schema"]
    jsonschema_rs.validate({**shape, "components": schema["components"]}, response.json())
    json.loads(response.text, parse_constant=pytest.fail)
