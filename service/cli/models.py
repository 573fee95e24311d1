"""`subpose models`: the bundles that would be served, and what else is done with them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from models.bundle import find_bundles, load_bundle
from models.engines import EngineError
from models.manifest import PoseManifest
from service.catalog import WHOLE, ServedDetector, load_catalog
from service.cli.imports import bring
from service.cli.options import Bundles, Device, settings_of
from service.console import one_line_errors, stdout

app = typer.Typer()
app.command("import")(bring)
app.command("pull")(bring)


@app.command()
def export_triton(
    folder: Annotated[Path, typer.Argument(file_okay=False, help="The repository; may exist.")],
    *,
    bundles: Bundles = None,
) -> None:
    """Write the pose bundles as a model repository, for a Triton server and --engine triton."""
    with one_line_errors():
        try:
            from models.engines.triton_repository import export_repository
        except ImportError as error:
            raise EngineError("a Triton repository needs the extra `triton`") from error
        for path in settings_of(bundles=bundles).bundles:
            for bundle in map(load_bundle, find_bundles(path).values()):
                if isinstance(bundle.manifest, PoseManifest):
                    stdout.print(*export_repository(bundle, folder), sep="\n")


@app.callback(invoke_without_command=True)
def models(
    context: typer.Context,
    *,
    device: Device = None,
    bundles: Bundles = None,
) -> None:
    """List the bundles that would be served; * marks the defaults."""
    if context.invoked_subcommand:
        return
    with one_line_errors():
        catalog = load_catalog(settings_of(device=device, bundles=bundles))
        table = Table("name", "finds", "by", "input", "engine", "licence", "accuracy", box=None)
        for pose in catalog.models.values():
            size = pose.manifest.input
            heads = ", ".join(
                head + "*" * (head == pose.default_head and len(pose.heads) > 1)
                for head in pose.heads
            )
            table.add_row(
                pose.name + "*" * (pose.name == catalog.default_model),
                pose.keypoints.name,
                heads,
                f"{size.width}x{size.height}",
                f"{pose.engine.name}/{pose.engine.device}",
                pose.manifest.licence,
                _accuracy(pose.manifest.accuracy),
            )
        for served in catalog.detectors.values():
            manifest = served.bundle.detector if served.bundle else None
            table.add_row(
                served.name + "*" * (served.name == catalog.default_detector),
                "people",
                _way(served),
                f"{manifest.input.width}x{manifest.input.height}" if manifest else "",
                served.detector.device,
                manifest.licence if manifest else "",
                _accuracy(manifest.accuracy) if manifest else "",
            )
        stdout.print(table)


def _way(served: ServedDetector) -> str:
    if served.name == WHOLE:
        return "taking the photo for one person"
    return served.bundle.detector.decoder if served.bundle else served.detector.name


def _accuracy(figures: dict[str, float]) -> str:
    return "\n".join(f"{name} {figure:.3f}" for name, figure in figures.items())
