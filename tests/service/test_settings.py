from pathlib import Path

import pytest
from pydantic import ValidationError

from service.settings import Settings


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


def test_an_unknown_name_in_the_env_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("SUBPOSE_PROT=9000\n")
    with pytest.raises(ValidationError, match="subpose_prot"):
        Settings()


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
