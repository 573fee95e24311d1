"""What several commands can be told, and the settings that it makes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
    """Flags that were given, over everything else."""
    return Settings(**{name: value for name, value in flags.items() if value is not None})  # type: ignore[arg-type]
