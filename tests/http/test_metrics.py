"""What Prometheus, the dashboard and the alerts are told."""

import json
import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml  # type: ignore[import-untyped]
from prometheus_client.parser import text_string_to_metric_families

from service.doctor import SAMPLE
from service.timings import ALL
from tests.fakes import FakeHouse
from tests.http.serving import photo, running, until

DOCKER = Path(__file__).parents[2] / "docker"
DASHBOARD = DOCKER / "grafana" / "subpose.json"
RULES = DOCKER / "prometheus" / "alerts.yml"
SCRAPED = {"instance", "job"}
"""Labels that Prometheus adds."""


def samples(client: httpx.Client) -> dict[str, list[tuple[dict[str, str], float]]]:
    """Of every metric, by the name that an expression has for it."""
    found = defaultdict(list)
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for sample in family.samples:
            if sample.name.endswith("_created"):
                continue
            found[sample.name].append((sample.labels, sample.value))
    return found


def test_stages_add_up_to_the_request() -> None:
    with running(None) as server, server.client() as client:
        data = SAMPLE.read_bytes()

        def ask(method: str, url: str, **options: Any) -> None:  # noqa: ANN401
            """Until its stages are nearly all of it: this machine may do other things between."""

            def told() -> bool:
                response = client.request(method, url, **options)
                assert response.status_code == 200
                parts = response.headers["server-timing"].split(", ")
                *stages, total = (float(part.split("=")[1]) for part in parts)
                return sum(stages) > 0.95 * total

            until(told)

        for query in ("head=nerpe&decode=standard&resolution=128", "format=png", "flip=true"):
            ask("POST", f"/pose?{query}", content=data)
        id_ = client.post("/pose", content=data).json()["id"]
        for head in ("nerpe", "heatmap"):
            wish = {"head": head, "keypoint": "all", "format": "json", "exact": "true"}
            ask("GET", "/heatmap", params={"id": id_, **wish})
            ask("POST", "/heatmap", params=wish, content=data)
        found = samples(client)
    for route in ("/pose", "/heatmap"):
        spent = {
            labels["stage"]: value
            for labels, value in found["subpose_stage_seconds_sum"]
            if labels["route"] == route
        }
        (total,) = (
            value
            for labels, value in found["subpose_request_seconds_sum"]
            if labels["route"] == route
        )
        assert set(spent) == {*ALL, "rest"}
        assert sum(spent.values()) == pytest.approx(total, rel=1e-6)


@pytest.fixture(scope="module")
def exported() -> Iterator[dict[str, list[tuple[dict[str, str], float]]]]:
    """After a photo, a heatmap and a mistake."""
    with running(FakeHouse()) as server, server.client() as client:
        id_ = client.post("/pose", content=photo()).json()["id"]
        client.get("/heatmap", params={"id": id_})
        client.post("/pose", content=b"no photo")
        server.state.metrics.shared("get", "miss")
        yield samples(client)


def expressions() -> list[str]:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [target["expr"] for panel in panels for target in panel["targets"]] + [
        rule["expr"] for group in groups for rule in group["rules"]
    ]


def test_every_metric_and_label_that_dashboard_and_alerts_name_is_exported(
    exported: dict[str, list[tuple[dict[str, str], float]]],
) -> None:
    seen = set()
    for expression in expressions():
        named = re.findall(r"\b((?:subpose|process)_\w+)(?:\{([^}]*)\})?", expression)
        grouped = re.findall(r"\bby \(([^)]*)\)", expression)
        labels = {label.strip() for group in grouped for label in group.split(",")}
        assert named or "up{" in expression
        assert labels <= SCRAPED.union(*(exported[name][0][0] for name, _ in named))
        for name, selector in named:
            assert name in exported, f"{name} in {expression}"
            known = set(exported[name][0][0]) | SCRAPED
            wanted = set(re.findall(r"(\w+)\s*=~?\s*\"", selector))
            assert wanted <= known, f"{wanted - known} of {name} in {expression}"
            seen.add(re.sub("_(bucket|sum|count)$", "", name))
    ours = {re.sub("_(bucket|sum|count)$", "", name) for name in exported}
    unseen = {name for name in ours - seen if name.startswith("subpose_")}
    assert unseen <= {"subpose_engine_info"}, "the dashboard shows all there is"


def test_routes_that_alerts_and_dashboard_ask_for_are_routes(
    exported: dict[str, list[tuple[dict[str, str], float]]],
) -> None:
    asked = {route for one in expressions() for route in re.findall(r'route="([^"]*)"', one)}
    told = {labels["route"] for labels, _ in exported["subpose_requests_total"]}
    assert asked
    assert asked <= told


@pytest.fixture
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed: apt-get install prometheus")
    return found


def test_the_alerts_fire_when_they_should_and_only_then(promtool: str) -> None:
    for arguments in (["check", "config", "prometheus.yml"], ["test", "rules", "alerts.test.yml"]):
        done = subprocess.run(
            [promtool, *arguments], cwd=RULES.parent, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_can_read_what_the_dashboard_asks(promtool: str, tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{number}", "expr": expression.replace("$__rate_interval", "1m")}
        for number, expression in enumerate(expressions())
    ]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = subprocess.run(
        [promtool, "check", "rules", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_can_read_what_the_service_tells(promtool: str) -> None:
    with running(FakeHouse()) as server, server.client() as client:
        client.post("/pose", content=photo())
        text = client.get("/metrics").content
    done = subprocess.run(
        [promtool, "check", "metrics"], input=text, capture_output=True, check=False
    )
    assert done.returncode in (0, 3), done.stderr  # 3: a matter of style
    assert b"error while linting" not in done.stderr
