"""The command `subpose-train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from models.bundle import BUNDLES
from training.config import load_experiment
from training.detector.cli import detector_app
from training.prepare import prepare as prepare_experiment

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)

Config = Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="an experiment's TOML")]


@app.command()
def prepare(config: Config) -> None:
    """Check an experiment's sets, and run its teachers over them once."""
    prepare_experiment(load_experiment(config))


@app.command()
def train(config: Config) -> None:
    """Train, or go on from the last checkpoint."""
    from training.train import train as train_experiment

    typer.echo(train_experiment(load_experiment(config)))


@app.command()
def export(
    config: Config,
    checkpoint: Annotated[
        Path | None, typer.Option(help="the run's last one where none is named")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(help="of the bundle; the committed one of the same name")
    ] = None,
) -> None:
    """Turn a run's averaged weights into a bundle; refused unless ONNX answers as torch does."""
    from training.export import export_bundle
    from training.train import averaged_network

    experiment = load_experiment(config)
    manifest = export_bundle(
        averaged_network(experiment, checkpoint or experiment.last),
        folder or BUNDLES / experiment.name,
        name=experiment.name,
        recipe=f"{config.parent.name}/{config.name}",
        serving=experiment.serving,
        accuracy={},
    )
    typer.echo(f"{manifest.name}: {', '.join(manifest.files)}")


app.add_typer(detector_app, name="detector")
