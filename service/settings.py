"""Every knob of the service: one class, read from flags, `SUBPOSE_*`, `.env`, defaults."""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SecretStr, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from models.bundle import BUNDLES
from models.engines import EngineName, Precision
from service.environment import said, variable


def _split(value: object) -> object:
    """A comma list, as one writes it in an environment variable."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


CommaList = Annotated[tuple[str, ...], BeforeValidator(_split)]
Secrets = Annotated[tuple[SecretStr, ...], BeforeValidator(_split)]
Paths = Annotated[tuple[Path, ...], BeforeValidator(_split)]


def _own(variable: str, usual: str) -> Path:
    """The user's folder for what is ours, of one of XDG's kinds."""
    named = os.environ.get(variable)
    try:
        folder = Path(named) if named else Path.home() / usual
    except RuntimeError:  # a container's user whom no list of users knows
        folder = Path(tempfile.gettempdir())
    return folder / "subpose"


def _engine_file() -> Path:
    return _own("XDG_CACHE_HOME", ".cache") / "engine.json"


def own_bundles() -> Path:
    """Where this user's imported bundles lie; it need not be there."""
    return _own("XDG_DATA_HOME", ".local/share") / "bundles"


def _bundles() -> tuple[Path, ...]:
    return BUNDLES, own_bundles()


def host_name(host: str) -> str:
    """Lower case, without a port, an IPv6 address in brackets: as a Host header is compared."""
    host = host.lower()
    if host.count(":") > 1 and not host.startswith("["):
        return f"[{host}]"
    return re.sub(r":\d+$", "", host)


class Settings(BaseSettings):
    """What a server can be told. Each field is the environment variable SUBPOSE_<NAME>."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    host: str = Field(default="127.0.0.1", description="the address to listen on")
    port: int = Field(
        default=8000, ge=0, le=65535, description="the port to listen on; 0 takes a free one"
    )
    metrics_port: int | None = Field(
        default=None,
        ge=0,
        le=65535,
        description="serve /metrics here, to all who reach it, and not on the main port",
    )

    bundles: Paths = Field(
        default_factory=_bundles,
        description="folders whose subfolders are bundles, imported ones go into the last; by "
        "default the committed ones and ~/.local/share/subpose/bundles (XDG_DATA_HOME)",
    )
    model: str = Field(default="pose-s", description="the pose model where a request names none")
    detector: str = Field(
        default="person-n",
        description="the detector where a request names none: a bundle, `whole`, or "
        "`ultralytics:<weights>` (AGPL, needs the extra)",
    )
    engine: EngineName = Field(
        default="auto",
        description="the runtime of the pose models: `onnxruntime`, `openvino`, `tensorrt`, "
        "`torch` or `triton`; `auto` tries those that are installed once",
    )
    engine_file: Path = Field(
        default_factory=_engine_file,
        description="where `auto` keeps what it found out; by default "
        "~/.cache/subpose/engine.json (XDG_CACHE_HOME)",
    )
    precision: Precision = Field(
        default="f32",
        description="arithmetic: `f32`, of engines `torch` and `tensorrt` also `f16`, of `torch` "
        "`bf16`; refused where it moves joints",
    )
    triton: str = Field(default="127.0.0.1:8001", description="host:port of engine `triton`")
    triton_seconds: float = Field(
        default=30, gt=0, description="within which engine `triton` must answer a batch"
    )
    device: Literal["cpu", "cuda"] = Field(
        default="cpu", description="what the models run on: `cpu` or `cuda`"
    )
    threads: int | None = Field(
        default=None,
        ge=1,
        description="of the engine, and batches at once on a CPU; by default as many as "
        "there are cores, and one batch more",
    )

    latest: bool = Field(
        default=False, description="let GET /heatmap without id mean the newest photo"
    )
    api_keys: Secrets = Field(
        default=(), description="if set, one of them is asked for as a bearer token"
    )
    hosts: CommaList = Field(
        default=(),
        description="names that the Host header may have; `*` for any; by default the loopback's "
        "when bound to it, else any",
    )
    proxies: CommaList = Field(
        default=(),
        description="addresses or networks of proxies whose X-Forwarded-For names the client; "
        "others' is ignored",
    )
    cors_origins: CommaList = Field(default=(), description="origins of pages that may call")

    body_bytes: int = Field(default=20_000_000, ge=1, description="largest body")
    body_seconds: float = Field(default=20, gt=0, description="a body must be here after this long")
    bodies_bytes: int = Field(
        default=400_000_000, ge=1, description="bodies of all requests held at once, else 503"
    )
    header_bytes: int = Field(
        default=32_768, ge=1024, description="largest request line and headers"
    )
    header_seconds: float = Field(
        default=10, gt=0, description="headers must be here after this long"
    )
    image_pixels: int = Field(
        default=50_000_000, ge=1, description="largest photo, judged by its header"
    )
    decoded_bytes: int = Field(
        default=400_000_000,
        ge=1,
        description="decoded photos of all requests held at once; others wait",
    )
    decode_jobs: int = Field(
        default=256, ge=1, description="photos that may wait to be decoded, else 503"
    )
    answer_bytes: int = Field(default=64_000_000, ge=1, description="largest answer")

    requests: int = Field(default=256, ge=1, description="requests in work at once, else 503")
    queue_crops: int = Field(
        default=512, ge=1, description="crops that may wait for the device, else 503"
    )
    deadline_ms: int = Field(
        default=30_000,
        ge=1,
        le=60_000,
        description="the most that a request may ask for, and its default",
    )
    client_limit: float | None = Field(
        default=None,
        gt=0,
        description="requests a second from one key or address, else 429; off",
    )

    keep_bytes: int = Field(
        default=256_000_000, ge=0, description="of kept features, the least recently used go first"
    )
    keep_seconds: float = Field(
        default=600, gt=0, description="how long features are kept at the most"
    )

    features_url: SecretStr | None = Field(
        default=None,
        description="a Valkey or Redis server on which replicas share kept features, such as "
        "redis://host:6379 (needs the extra `redis`)",
    )
    features_ms: float = Field(
        default=100, gt=0, description="the most that a request waits for that server"
    )

    otlp_url: str | None = Field(
        default=None,
        description="a collector of OpenTelemetry spans, such as "
        "http://localhost:4318/v1/traces (needs the extra `otel`); off",
    )

    stall_seconds: float = Field(
        default=90,
        gt=0,
        description="/healthz fails once the device has not come back for this long",
    )
    drain_lead_seconds: float = Field(
        default=1, ge=0, description="on SIGTERM /readyz fails this long before work is refused"
    )
    drain_seconds: float = Field(
        default=30,
        gt=0,
        description="the most that accepted work may take then; sending answers, 5 more",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        *_: PydanticBaseSettingsSource,
        **__: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What is given, then the environment, then `.env`."""
        places = said(cls.model_fields).values()
        return init_settings, *(InitSettingsSource(settings_cls, values) for values in places)

    @model_validator(mode="before")
    @classmethod
    def _known_names_only(cls, values: dict[str, Any]) -> dict[str, Any]:
        known = set(map(variable, cls.model_fields))
        for name in sorted(values.keys() - cls.model_fields):
            near = difflib.get_close_matches(name.upper(), known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ValueError(f"there is no setting {name}{hint}")
        return values

    @field_validator("features_url")
    @classmethod
    def _a_store_that_can_be_asked(cls, url: SecretStr | None) -> SecretStr | None:
        if url is None:
            return None
        schemes = ("redis://", "rediss://", "valkey://", "valkeys://", "unix://")
        if not url.get_secret_value().startswith(schemes):
            raise ValueError(f"not one of {', '.join(schemes)}")
        if find_spec("redis") is None:
            raise ValueError("needs the extra `redis`: pip install -e '.[cpu,redis]'")
        return url

    @field_validator("otlp_url")
    @classmethod
    def _a_collector_that_can_be_told(cls, url: str | None) -> str | None:
        if url is None:
            return None
        if not url.startswith(("http://", "https://")):
            raise ValueError("not an address of OTLP over HTTP, such as http://host:4318/v1/traces")
        if find_spec("opentelemetry") is None or find_spec("opentelemetry.exporter") is None:
            raise ValueError("needs the extra `otel`: pip install -e '.[cpu,otel]'")
        return url

    @property
    def allowed_hosts(self) -> frozenset[str] | None:
        """Names that a request's Host may have, lower case; None where any may be."""
        if "*" in self.hosts or not (self.hosts or self._on_loopback):
            return None
        names = self.hosts or ("localhost", "127.0.0.1", "[::1]", self.host)
        return frozenset(map(host_name, names))

    @property
    def shows_newest_to_all(self) -> bool:
        """Whether heatmaps of the newest photo are anyone's who reaches the port."""
        return self.latest and not self.api_keys and not self._on_loopback

    @property
    def _on_loopback(self) -> bool:
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False
