from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest
from pydantic import ValidationError

from service.settings import Settings
from tests.settings_page import PAGE, page


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def test_environment_variables_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUBPOSE_PORT", "9000")
    monkeypatch.setenv("SUBPOSE_API_KEYS", "one, two")
    settings = Settings()
    assert settings.port == 9000
    assert [key.get_secret_value() for key in settings.api_keys] == ["one", "two"]


def test_keys_are_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUBPOSE_API_KEYS", "hush")
    assert "hush" not in repr(Settings())


@pytest.mark.parametrize(
    "url", ["redis://:hush@host:6379/0", "rediss://host", "valkey://host", "unix:///run/valkey"]
)
def test_a_shared_store_is_named_by_its_url_which_is_not_printed(url: str) -> None:
    settings = Settings.model_validate({"features_url": url})
    assert settings.features_url
    assert settings.features_url.get_secret_value() == url
    assert "hush" not in repr(settings)


def test_a_shared_store_of_another_kind_or_without_its_extra_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ValidationError, match="not one of redis://"):
        Settings.model_validate({"features_url": "http://host"})
    monkeypatch.setattr("service.settings.find_spec", lambda name: None)
    with pytest.raises(ValidationError, match="extra `redis`"):
        Settings.model_validate({"features_url": "redis://host"})


def test_a_collector_of_another_kind_or_without_its_extra_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = "http://host:4318/v1/traces"
    assert Settings.model_validate({"otlp_url": url}).otlp_url == url
    with pytest.raises(ValidationError, match="OTLP over HTTP"):
        Settings.model_validate({"otlp_url": "host:4317"})
    monkeypatch.setattr("service.settings.find_spec", lambda name: None)
    with pytest.raises(ValidationError, match="extra `otel`"):
        Settings.model_validate({"otlp_url": url})


def test_an_unknown_variable_is_named_with_a_guess(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUBPOSE_PROT", "9000")
    with pytest.raises(ValidationError, match="no setting SUBPOSE_PROT; did you mean SUBPOSE_PORT"):
        Settings()


@pytest.mark.parametrize("value", ["9000", ""])
def test_an_unknown_name_in_the_env_file_is_named_alike(tmp_path: Path, value: str) -> None:
    (tmp_path / ".env").write_text(f"SUBPOSE_PROT={value}\n")
    with pytest.raises(ValidationError, match="no setting SUBPOSE_PROT; did you mean SUBPOSE_PORT"):
        Settings()


def test_an_env_file_of_other_programs_is_none_of_ours(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(
        "DATABASE_URL=x\nDEBUG=1\nCOMPOSE_PROFILES=metrics\nPORT=1\nHOST=x\nSUBPOSE_PORT=9000\n"
    )
    assert (Settings().port, Settings().host) == (9000, "127.0.0.1")


@pytest.mark.parametrize("service", ["SUBPOSE", "SUBPOSE_METRICS", "SUBPOSE_GPU"])
def test_what_kubernetes_tells_of_a_service_is_no_setting(
    service: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    links = {
        "SERVICE_HOST": "10.96.1.2",
        "SERVICE_PORT": "8000",
        "SERVICE_PORT_HTTP": "8000",
        "PORT": "tcp://10.96.1.2:8000",
        "PORT_8000_TCP": "tcp://10.96.1.2:8000",
        "PORT_8000_TCP_PROTO": "tcp",
        "PORT_8000_TCP_PORT": "8000",
        "PORT_8000_TCP_ADDR": "10.96.1.2",
        "PORT_53_UDP": "udp://10.96.1.2:53",
    }
    for name, value in links.items():
        monkeypatch.setenv(f"{service}_{name}", value)
    assert (Settings().port, Settings().metrics_port) == (8000, None)
    (tmp_path / ".env").write_text("SUBPOSE_PORT=9000\n")
    assert Settings().port == 9000


@pytest.mark.parametrize("port", ["http://10.96.1.2:8000", "many"])
def test_a_port_that_is_neither_a_number_nor_a_service_is_refused(
    port: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUBPOSE_PORT", port)
    with pytest.raises(ValidationError, match="port"):
        Settings()


def test_the_page_of_settings_says_what_the_settings_are() -> None:
    """`python -m tests.settings_page` writes it anew."""
    assert PAGE.read_text() == page()


@pytest.mark.parametrize("name", Settings.model_fields)
def test_a_setting_says_what_it_means_in_a_line_with_every_choice(name: str) -> None:
    field = Settings.model_fields[name]
    assert field.description
    assert not set(field.description) & set("\n|")
    if get_origin(field.annotation) is Literal:
        for choice in get_args(field.annotation):
            assert f"`{choice}`" in field.description


def test_environment_wins_over_the_env_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("SUBPOSE_PORT=1\nSUBPOSE_LATEST=true\n")
    monkeypatch.setenv("SUBPOSE_PORT", "2")
    settings = Settings()
    assert (settings.port, settings.latest) == (2, True)


@pytest.mark.parametrize(
    ("host", "hosts", "allowed"),
    [
        ("127.0.0.1", (), {"localhost", "127.0.0.1", "[::1]"}),
        ("::1", (), {"localhost", "127.0.0.1", "[::1]"}),
        ("localhost", (), {"localhost", "127.0.0.1", "[::1]"}),
        ("0.0.0.0", (), None),
        ("0.0.0.0", ("Pose.Example",), {"pose.example"}),
        (
            "0.0.0.0",
            ("pose.example:8443", "[::2]:80", "::1:2"),
            {"pose.example", "[::2]", "[::1:2]"},
        ),
        ("127.0.0.1", ("*",), None),
    ],
)
def test_hosts_are_the_loopbacks_by_default_when_bound_to_it(
    host: str, hosts: tuple[str, ...], allowed: set[str] | None
) -> None:
    assert Settings(host=host, hosts=hosts).allowed_hosts == allowed


def test_an_empty_variable_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUBPOSE_METRICS_PORT", "")
    monkeypatch.setenv("SUBPOSE_API_KEYS", "")
    settings = Settings()
    assert settings.metrics_port is None
    assert settings.api_keys == ()
