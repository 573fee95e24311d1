"""The command `subpose-train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from training.config import load_experiment
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
