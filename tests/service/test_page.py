import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

import service
from service.app import create_app
from service.settings import Settings

PAGE = Path(service.__file__).parent / "page"
SCRIPTS = {path.name: path.read_text() for path in PAGE.glob("*.js")}


class Loads(HTMLParser):
    """Addresses that a page loads by itself (a link that one may follow is none)."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.ids: set[str] = set()
        self.inline: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.ids |= {values["id"] or ""} if "id" in values else set()
        wanted = {"link": "href", "a": ""}.get(tag, "src")
        if address := values.get(wanted):
            self.addresses.append(address)
        elif tag in ("script", "style"):
            self.inline.append(tag)
        self.inline += [name for name, _ in attrs if name.startswith("on") or name == "style"]


@pytest.fixture(scope="module")
def app() -> FastAPI:
    return create_app(Settings())


@pytest.fixture(scope="module")
def client(app: FastAPI) -> TestClient:
    # Not entered: no weights are loaded, the page needs none.
    return TestClient(app, base_url="http://localhost")


@pytest.mark.parametrize("route", ["/", "/docs"])
def test_a_page_and_all_it_loads_come_from_this_server(client: TestClient, route: str) -> None:
    answer = client.get(route)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    loads = Loads(answer.text)
    assert len(loads.addresses) >= 3
    for address in loads.addresses:
        assert not re.match(r"\w+:|//|/", address), f"{address} is not relative"
        part = client.get(f"/{address}")
        assert part.status_code == 200, address
        assert len(part.content) > 50, address


@pytest.mark.parametrize("route", ["/", "/docs", "/page/page.js", "/docs/swagger-ui-bundle.js"])
def test_the_browser_is_told_to_load_nothing_from_elsewhere(client: TestClient, route: str) -> None:
    headers = client.get(route).headers
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == "'self'"
    assert not re.search(r"https?:|\*", headers["content-security-policy"])
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("route", ["/", "/docs"])
def test_pages_have_nothing_inline_that_the_policy_would_stop(
    client: TestClient, route: str
) -> None:
    assert Loads(client.get(route).text).inline == []


def test_scripts_import_and_fetch_only_what_is_there(client: TestClient) -> None:
    for name, script in SCRIPTS.items():
        for module in re.findall(r'from "\./([\w.]+)"', script):
            assert module in SCRIPTS, f"{name} imports {module}"
        for address in re.findall(r'fetch\("([^"]+)"\)', script):
            assert client.get(f"/{address}").status_code == 200, address
        assert not re.search(r"https?://|[\"']//", script), f"{name} names another host"
    assert not re.search(r"https?:|@import|//", (PAGE / "page.css").read_text())


def test_every_element_that_the_script_names_is_on_the_page() -> None:
    ids = Loads((PAGE / "index.html").read_text()).ids
    for name, script in SCRIPTS.items():
        assert set(re.findall(r'\$\("([\w-]+)"\)', script)) <= ids, name


def parameters(app: FastAPI, route: str, method: str) -> set[str]:
    return {parameter["name"] for parameter in app.openapi()["paths"][route][method]["parameters"]}


def test_every_parameter_that_the_page_sends_is_one_of_the_api(app: FastAPI) -> None:
    pose = set(re.findall(r"parameters\.(\w+) =", SCRIPTS["settings.js"]))
    assert {"head", "decode", "resolution", "flip"} <= pose <= parameters(app, "/pose", "post")
    (body,) = re.findall(
        r"function heatmapParameters\(.*?return \{(.*?)\};", SCRIPTS["page.js"], re.S
    )
    heatmap = {part.split(":")[0].strip() for part in body.split(",") if part.strip()}
    assert {"id", "person", "keypoint"} <= heatmap <= parameters(app, "/heatmap", "get")


def test_every_choice_that_the_page_offers_is_one_of_the_api(app: FastAPI) -> None:
    text = (PAGE / "index.html").read_text()
    offered = {
        name: re.findall(r"<option[^>]*?(?:value=\"(\w+)\"[^>]*)?>(\w+)", inner)
        for name, inner in re.findall(r'<select id="(samples|colormap)">(.*?)</select>', text, re.S)
    }
    query = {
        p["name"]: p["schema"] for p in app.openapi()["paths"]["/heatmap"]["get"]["parameters"]
    }
    assert {label for _, label in offered["colormap"]} == set(query["colormap"]["enum"])
    sizes = [int(value) for value, _ in offered["samples"]]
    assert query["resolution"]["minimum"] <= min(sizes)
    assert max(sizes) <= query["resolution"]["maximum"]


def test_the_page_leaves_the_lattice_to_the_decode_until_one_is_chosen(app: FastAPI) -> None:
    text = (PAGE / "index.html").read_text()
    (inner,) = re.findall(r'<select id="lattice">(.*?)</select>', text, re.S)
    first, *sizes = re.findall(r'<option(?: value="(\w*)")?>(\w+)', inner)
    assert first == ("", "default")
    (query,) = (
        parameter["schema"]
        for parameter in app.openapi()["paths"]["/pose"]["post"]["parameters"]
        if parameter["name"] == "resolution"
    )
    bounds = next(kind for kind in query["anyOf"] if "minimum" in kind)
    assert all(bounds["minimum"] <= int(size) <= bounds["maximum"] for _, size in sizes)
    assert "if (lattice) parameters.resolution = lattice;" in SCRIPTS["settings.js"]


def test_the_page_reads_only_fields_that_the_answer_has(app: FastAPI) -> None:
    (fields,) = re.findall(r"const \{([^}]*)\} = answer;", SCRIPTS["page.js"])
    names = {field.split(":")[0].strip() for field in fields.split(",")}
    names |= set(re.findall(r"answer\??\.(\w+)", SCRIPTS["page.js"]))
    schemas = app.openapi()["components"]["schemas"]
    assert {"people", "head"} <= names <= schemas["PoseBody"]["properties"].keys()
    (models,) = re.findall(r"const \{([^}]*)\} = chosenHead\(\);", SCRIPTS["settings.js"])
    heads = {field.strip() for field in models.split(",")}
    assert heads <= schemas["HeadCard"]["properties"].keys()


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_the_page_counts_the_people_that_it_draws() -> None:
    people = [
        {"keypoints": [{"score": 0.2}, {"score": 0.5}]},
        {"keypoints": [{"score": 0.2}, {"score": 0.49}]},
        {"error": {"detail": "its crop failed"}},
    ]
    counted = f"[0, 0.5, 0.6].map((least) => shownPeople({json.dumps(people)}, least).length)"
    script = f"{SCRIPTS['stage.js']}\nconsole.log({counted})"
    command = ["node", "--input-type=module", "--eval", script]
    assert json.loads(subprocess.check_output(command, timeout=60)) == [2, 1, 0]


def test_the_sample_is_a_photo_with_its_credit_beside_it() -> None:
    with Image.open(PAGE / "sample.jpg") as photo:
        assert photo.size == (640, 427)
    text = (PAGE / "index.html").read_text()
    assert "9546010205" in text
    assert "creativecommons.org/licenses/by/2.0" in text


def test_a_file_that_is_not_part_of_the_page_is_a_problem_and_not_given_out(
    client: TestClient,
) -> None:
    for route in (
        "/page/nothing.js",
        "/page/..%2fcli.py",
        "/page/%2e%2e/cli.py",
        "/docs/__init__.py",
    ):
        answer = client.get(route)
        assert answer.status_code == 404, route
        assert answer.json()["code"] == "not_found"


def test_a_browser_that_has_a_file_is_not_sent_it_again(client: TestClient) -> None:
    first = client.get("/page/page.js")
    again = client.get("/page/page.js", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.head("/").status_code == 200


def test_keys_leave_the_page_and_its_files_open() -> None:
    closed = TestClient(create_app(Settings(api_keys="secret")), base_url="http://localhost")
    for route in ("/", "/page/page.js", "/docs", "/openapi.json"):
        assert closed.get(route).status_code == 200, route
