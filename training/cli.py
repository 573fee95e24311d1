"""The command `subpose-train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from pydantic import TypeAdapter

from models.bundle import BUNDLES, find_bundles, load_bundle
from models.detectors import load_detector
from models.engines import load_engine
from models.pose import PoseModel
from training.config import load_experiment
from training.detector.cli import detector_app
from training.prepare import prepare as prepare_experiment
from training.truth import Split

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
        averaged_network(experiment, checkpoint or experiment.final),
        folder or BUNDLES / experiment.name,
        name=experiment.name,
        recipe=f"{config.parent.name}/{config.name}",
        serving=experiment.serving,
        accuracy={},
    )
    typer.echo(f"{manifest.name}: {', '.join(manifest.files)}")


BundleName = Annotated[str, typer.Argument(help="of a committed bundle, or a bundle's folder")]
Data = Annotated[Path, typer.Option(help="the folder with coco/ and lspet/")]
DATA = Path("../shared/data")


def _pose(bundle: str) -> PoseModel:
    loaded = load_bundle(find_bundles().get(bundle, Path(bundle)))
    return PoseModel(loaded, load_engine(loaded))


@app.command()
def evaluate(
    bundle: BundleName = "pose-s",
    split: Annotated[str, typer.Option(help="coco/dev, coco/val or lspet/val")] = "coco/val",
    detector: Annotated[
        str | None, typer.Option(help="finds the people; the labels' boxes where there is none")
    ] = None,
    flip: Annotated[bool, typer.Option(help="with the mirrored crops")] = False,
    standard: Annotated[
        int | None, typer.Option(help="also NerPE's `standard` decode at this resolution: slow")
    ] = None,
    data: Data = DATA,
) -> None:
    """Measure every head and decode; the figures go into `evaluation.json` beside the weights."""
    from training.evaluate import evaluate as measure
    from training.evaluate import readings_of
    from training.evaluation import record
    from training.report import table
    from training.truth import read_truth

    model = _pose(bundle)
    truth = read_truth(data, TypeAdapter(Split).validate_python(split))
    measured = measure(
        model,
        load_detector(detector) if detector else None,
        truth.complete() if detector else truth.with_people(),
        readings=readings_of(model, standard=standard),
        flip=flip,
    )
    figures = [each.figures for each in measured]
    record(model.bundle.path / "evaluation.json", model, figures)
    typer.echo(table(figures))


@app.command()
def sweep(bundle: BundleName = "pose-s", data: Data = DATA) -> None:
    """Try the choices of decoding on `coco/dev`; the best belong into the experiment."""
    from training.report import sweep_table
    from training.sweep import sweep as try_all
    from training.truth import read_truth

    typer.echo(sweep_table(try_all(_pose(bundle), read_truth(data, "coco/dev"))))


@app.command()
def card(config: Config, data: Data = DATA) -> None:
    """Write a bundle's card and the README's table from `evaluation.json`."""
    from training.card import write_card
    from training.readme import write_readme

    for path in write_card(config, data):
        typer.echo(path)
    write_readme(Path("README.md"), BUNDLES / load_experiment(config).name)


app.add_typer(detector_app, name="detector")
