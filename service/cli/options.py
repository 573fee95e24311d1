"""What several commands can be told, and the settings that it makes."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from service.console import Misconfigured, reason
from service.environment import flag, variable
from service.settings import Settings

Model = Annotated[str | None, typer.Option(help="Name of the pose bundle.")]
Detector = Annotated[
    str | None, typer.Option(help="Name of the detector's bundle, or `whole`: one person a photo.")
]
Device = Annotated[str | None, typer.Option(help="cpu or cuda.", metavar="cpu|cuda")]
Engine = Annotated[
    str | None,
    typer.Option(
        help="Runtime of the pose models.",
        metavar="auto|onnxruntime|openvino|tensorrt|torch|triton",
    ),
]
Bundles = Annotated[list[Path] | None, typer.Option(help="Folder of bundles; may be repeated.")]
Threads = Annotated[int | None, typer.Option(help="Of the engine.")]


def settings_of(**flags: object) -> Settings:
    """Flags that were given, over everything else.

    Raises:
        Misconfigured: a value that a setting cannot have, or a name that is none's.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return Settings(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        words = "; ".join(_words(problem, flags=given) for problem in error.errors())
        raise Misconfigured(words) from error


def _words(problem: ErrorDetails, *, flags: Collection[str]) -> str:
    """Without the value, which may be a secret."""
    if not problem["loc"]:
        return reason(problem)
    setting = str(problem["loc"][0])
    return f"{flag(setting) if setting in flags else variable(setting)}: {reason(problem)}"
