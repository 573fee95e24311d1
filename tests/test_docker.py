"""No container engine is needed here: what the images are told to do is done as plain processes."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from service.settings import Settings, own_bundles
from tests.valkey import valkey

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
TARGETS = ("cpu", "gpu")


@cache
def instructions(target: str) -> tuple[tuple[str, str], ...]:
    """Of an image of the Dockerfile, those of the stage it starts from first."""
    text = re.sub(r"\\\n\s*", " ", (ROOT / "docker" / "Dockerfile").read_text())
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))
    stages: dict[str, list[tuple[str, str]]] = {}
    for word, rest in (line.split(" ", 1) for line in lines):
        if word == "FROM":
            base, name = rest.split(" AS ")
            stages[name] = list(stages.get(base, []))
        stages[name].append((word, rest.strip()))
    return tuple(stages[target])


def last(target: str, word: str) -> str:
    return [rest for found, rest in instructions(target) if found == word][-1]


def environment(target: str) -> dict[str, str]:
    lines = [rest for word, rest in instructions(target) if word == "ENV"]
    pairs = (pair.split("=", 1) for line in lines for pair in line.split())
    return {name: value for name, value in pairs if name != "PATH"}


@cache
def services() -> dict[str, Any]:
    services: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    return services


def told(target: str) -> dict[str, str]:
    """The environment of a compose service's process, with ${NAME:-default} filled in."""
    compose = {
        name: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)
        for name, value in services()[target]["environment"].items()
    }
    return environment(target) | compose


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def container(target: str, cwd: Path, port: int) -> Iterator[subprocess.Popen[str]]:
    command = json.loads(last(target, "ENTRYPOINT")) + json.loads(last(target, "CMD"))
    outside = {"PATH": f"{BIN}:{os.environ['PATH']}", "SUBPOSE_PORT": str(port)}
    env = told(target) | outside | {"SUBPOSE_METRICS_PORT": "0"}
    process = subprocess.Popen(command, cwd=cwd, env=env, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def healthy(target: str, port: int) -> bool:
    options, check = last(target, "HEALTHCHECK").split(" CMD ")
    (seconds,) = re.findall(r"--timeout=(\d+)s", options)
    copies = [rest.split() for word, rest in instructions(target) if word == "COPY"]
    sources = {place: str(ROOT / source) for *_, source, place in copies}
    command = [sources.get(part, part) for part in json.loads(check)]
    command[0] = str(BIN / command[0])
    env = {"SUBPOSE_PORT": str(port), "http_proxy": "http://127.0.0.1:9"}
    done = subprocess.run(command, env=env, timeout=int(seconds), capture_output=True, check=False)
    return done.returncode == 0


def test_the_image_serves_says_when_it_is_ready_and_leaves_in_order(tmp_path: Path) -> None:
    port = free_port()
    assert not healthy("cpu", port)
    with container("cpu", tmp_path, port) as process:
        limit = time.monotonic() + 60
        while not healthy("cpu", port):
            assert process.poll() is None
            assert time.monotonic() < limit
            time.sleep(0.1)
        sample = ROOT / "service" / "page" / "sample.jpg"
        base = f"http://127.0.0.1:{port}"
        post = urllib.request.Request(f"{base}/pose", sample.read_bytes(), method="POST")
        with urllib.request.urlopen(post, timeout=60) as answer:
            assert json.load(answer)["people"]
        # As the README types it: without id, by SUBPOSE_LATEST.
        with urllib.request.urlopen(f"{base}/heatmap?resolution=256", timeout=60) as answer:
            assert answer.read(8) == b"\x89PNG\r\n\x1a\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert not healthy("cpu", port)
    assert list(tmp_path.iterdir()) == []  # the root file system is read-only


def test_the_gpu_image_without_a_gpu_ends_with_an_error_that_names_it(tmp_path: Path) -> None:
    port = free_port()
    with container("gpu", tmp_path, port) as process:
        _, errors = process.communicate(timeout=60)
    assert process.returncode not in (0, None)
    assert "cuda" in errors
    assert "Traceback" not in errors
    assert not healthy("gpu", port)


def test_the_dockerfile_passes_its_linter() -> None:
    linter = shutil.which("hadolint", path=str(BIN))
    assert linter, "install the extra dev"
    done = subprocess.run(
        [linter, "docker/Dockerfile"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_is_not_run_by_root_and_holds_weights_and_code(target: str) -> None:
    user = last(target, "USER")
    assert int(user.split(":")[0]) > 0
    copied = [rest for word, rest in instructions(target) if word == "COPY"]
    assert f"--from=installed-{target} /opt/subpose /opt/subpose" in copied
    installed = instructions(f"installed-{target}")
    assert ("COPY", "models models") in installed
    (install,) = [rest for word, rest in installed if word == "RUN" and "pip install" in rest]
    assert f'".[{target},otel,redis]"' in install


def test_what_the_dockerfile_copies_is_not_ignored_and_data_and_environments_are() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    everything, *rules = [line for line in lines if not line.startswith("#")]
    assert everything == "*"
    kept = {rule[1:] for rule in rules if rule.startswith("!")}
    copied: set[str] = set()
    for target in ("source", *TARGETS):
        for word, rest in instructions(target):
            if word == "COPY" and "--from" not in rest:
                copied |= set(rest.split()[:-1])
    assert copied == kept
    assert all((ROOT / name).exists() for name in copied)


def test_plain_up_is_the_gpu_and_the_cpu_has_a_profile_on_the_same_port() -> None:
    assert [name for name in services() if not services()[name].get("profiles")] == ["gpu"]
    assert "profiles" not in services()["gpu"]
    assert services()["cpu"]["profiles"] == ["cpu"]
    ports = ["127.0.0.1:${PUBLISHED:-8000}:8000"]  # a range where there are replicas
    assert services()["cpu"]["ports"] == services()["gpu"]["ports"] == ports
    (device,) = services()["gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    assert "deploy" not in services()["cpu"]


def test_the_shared_store_bounds_its_memory_drops_the_oldest_and_is_not_published(
    tmp_path: Path,
) -> None:
    import redis

    service = services()["features"]
    assert "ports" not in service
    _, *options = service["command"]
    with valkey(tmp_path, options=options) as url, redis.Redis.from_url(url) as server:
        told = server.config_get("maxmemory*")
        assert told == told | {"maxmemory": str(1 << 30), "maxmemory-policy": "allkeys-lru"}


@pytest.mark.parametrize("target", TARGETS)
def test_prometheus_asks_where_metrics_are_served_whatever_keys_and_names_are_set(
    target: str,
) -> None:
    port = told(target)["SUBPOSE_METRICS_PORT"]
    scraped = yaml.safe_load((ROOT / "docker/prometheus/prometheus.yml").read_text())
    (job,) = scraped["scrape_configs"]
    (replicas,) = job["dns_sd_configs"]  # by name, for there may be several
    assert target in replicas["names"]
    assert str(replicas["port"]) == port
    assert port not in str(services()[target]["ports"])


@pytest.mark.parametrize("target", TARGETS)
def test_imported_bundles_are_mounted_where_the_service_looks(
    target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", told(target)["XDG_DATA_HOME"])
    (mount,) = services()[target]["volumes"]
    assert mount == f"./bundles:{own_bundles()}:ro"


@pytest.mark.parametrize("target", TARGETS)
def test_a_container_can_do_little_and_is_given_time_to_leave(target: str) -> None:
    service = services()[target]
    assert service["build"]["target"] == target
    assert (ROOT / service["build"]["dockerfile"]).is_file()
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert any(mount.startswith("/tmp") for mount in service["tmpfs"])
    settings = Settings()
    longest = settings.drain_lead_seconds + 2 * settings.drain_seconds
    assert int(service["stop_grace_period"].removesuffix("s")) > longest


@pytest.mark.parametrize("target", TARGETS)
def test_every_setting_that_the_images_name_is_one(
    target: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in told(target).items():
        if name.startswith("SUBPOSE_"):
            monkeypatch.setenv(name, value)
    settings = Settings()
    assert (settings.host, settings.port, settings.latest) == ("0.0.0.0", 8000, True)
    assert settings.device == {"cpu": "cpu", "gpu": "cuda"}[target]


def test_both_images_run_one_version_of_the_runtime() -> None:
    constraints = (ROOT / "constraints.txt").read_text()
    (pinned,) = re.findall(r"^onnxruntime==(\S+)$", constraints, re.MULTILINE)
    assert f"ONNXRUNTIME_GPU={pinned}" in (ROOT / "docker/Dockerfile").read_text()


def test_nothing_is_published_beyond_this_machine() -> None:
    ports = [port for each in services().values() for port in each.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)
