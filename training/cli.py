"""`subpose-train`: from an experiment's file to a bundle that is served, and its figures.

Exit codes: 0 done; 1 the work failed; 2 wrong usage, a wrong experiment, or files that are not
there; 130 interrupted.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from typer.core import TyperGroup

from models.bundle import BUNDLES, BundleError, bundle_path, load_bundle
from models.detectors import load_detector
from models.engines import EngineError, load_engine
from models.files import write_whole
from models.keypoints import COCO17
from models.pose import PoseModel
from training.config import load_experiment
from training.detector.cli import detector_app
from training.errors import TrainingError
from training.prepare import prepare as prepare_experiment
from training.truth import Split


class OneLineErrors(TyperGroup):
    """Commands whose user reads in one line, without a traceback, what there is to mend."""

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - typer does not name its context's type
        """Run the command that is asked for."""
        try:
            return super().invoke(ctx)
        except tomllib.TOMLDecodeError as error:
            message, code = f"this is no TOML: {error}", 2
        except ValidationError as error:
            message, code = f"{error.title}: {_fields(error)}", 2
        except (BundleError, EngineError) as error:
            message, code = str(error), 2
        except (FileNotFoundError, NotADirectoryError) as error:
            message, code = _file(error), 2
        except OSError as error:
            message, code = _file(error), 1
        except TrainingError as error:
            message, code = str(error), 1
        typer.secho(f"subpose-train: {message}", fg="red", err=True)
        raise typer.Exit(code)


def _fields(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()
    )


def _file(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}" if error.filename else str(error)


app = typer.Typer(
    cls=OneLineErrors,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Make the weights that subpose serves: `prepare` checks the sets, `train`, `export`, then "
    "`measure`: it calibrates, takes every figure and writes them down.",
)

Config = Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="an experiment's TOML")]


@app.command()
def prepare(config: Config) -> None:
    """Check an experiment's sets, and run its teachers over them once."""
    prepare_experiment(load_experiment(config))


@app.command()
def pack(config: Config) -> None:
    """Put an experiment's people and what its teachers saw into files under 60 MB that travel."""
    from training.pack import write_packs

    experiment = load_experiment(config)
    for number, manifest in enumerate(write_packs(experiment)):
        size = sum(shard.bytes for shard in manifest.shards)
        people = sum(shard.people for shard in manifest.shards)
        where = experiment.pack_folder(number)
        typer.echo(f"{where}: {people} people, {size / 1e6:.1f} MB, {len(manifest.shards)} shards")


@app.command()
def train(config: Config) -> None:
    """Train, or go on from the last checkpoint."""
    from training.train import train as train_experiment

    typer.echo(train_experiment(load_experiment(config)))


@app.command()
def export(
    config: Config,
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option(help="the run's last one where none is named; the mean of several"),
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(help="of the bundle; the committed one of the same name")
    ] = None,
) -> None:
    """Turn a run's averaged weights into a bundle; refused unless ONNX answers as torch does."""
    from training.export import export_bundle
    from training.start import averaged_network

    experiment = load_experiment(config)
    manifest = export_bundle(
        averaged_network(experiment, checkpoint or [experiment.final]),
        folder or BUNDLES / experiment.name,
        name=experiment.name,
        recipe=f"{config.parent.name}/{config.name}",
        serving=experiment.serving,
        accuracy={},
        simcc_loss=experiment.simcc_loss,
    )
    typer.echo(f"{manifest.name}: {', '.join(manifest.files)}")


BundleName = Annotated[str, typer.Argument(help="of a committed bundle, or a bundle's folder")]
Data = Annotated[
    Path,
    typer.Option(
        help="the folder with coco/ and lspet/, and with crowdpose/, mpii/ and lsp/ if had"
    ),
]
DATA = Path("../shared/data")
Readme = Annotated[
    Path, typer.Option(exists=True, dir_okay=False, help="whose table is written anew")
]


def _pose(bundle: str) -> PoseModel:
    loaded = load_bundle(bundle_path(bundle))
    return PoseModel(loaded, load_engine(loaded))


@app.command()
def evaluate(
    bundle: BundleName = "pose-s",
    split: Annotated[Split, typer.Option(help="what to measure on")] = "coco/val",
    detector: Annotated[
        str | None, typer.Option(help="finds the people; the labels' boxes where there is none")
    ] = None,
    boxes: Annotated[
        Path | None, typer.Option(help="a COCO results file of a detector, in its place")
    ] = None,
    flip: Annotated[bool, typer.Option(help="with the mirrored crops")] = False,
    standard: Annotated[
        int | None, typer.Option(help="also NerPE's `standard` decode at this resolution: slow")
    ] = None,
    data: Data = DATA,
) -> None:
    """Measure every head and decode; the figures go into `evaluation.json` beside the weights."""
    from training.data.boxes import read_boxes
    from training.evaluate import evaluate as measure
    from training.evaluate import readings_of
    from training.evaluation import record
    from training.report import table, write_report
    from training.sheet import draw_sheet, pick_examples
    from training.truth import read_truth

    model = _pose(bundle)
    if detector and boxes:
        raise typer.BadParameter("one of --detector and --boxes")
    finder = load_detector(detector) if detector else read_boxes(boxes) if boxes else None
    truth = read_truth(data, split)
    truth = truth.complete() if finder else truth.with_people()
    measured = measure(
        model,
        finder,
        truth,
        readings=readings_of(model, standard=standard),
        flip=flip,
    )
    figures = [each.figures for each in measured]
    evaluation = record(model.bundle.path / "evaluation.json", model, figures)
    typer.echo(table(figures))
    sheet = None
    if finder is None and truth.keypoints == COCO17:
        sheet = draw_sheet(pick_examples(truth, measured[0].people, 12), columns=4)
    run = Path("runs") / model.name
    for path in write_report(
        run / "report", evaluation, model.manifest, log=run / "log.csv", sheet=sheet
    ):
        typer.echo(path, err=True)


@app.command()
def calibrate(bundle: BundleName = "pose-s", data: Data = DATA) -> None:
    """Fit on `coco/dev` what scores and spreads are worth; the curves go into the manifest."""
    from training.calibrate import calibrate as fit_all
    from training.truth import read_truth

    model = _pose(bundle)
    manifest = fit_all(model, read_truth(data, "coco/dev"))
    path = model.bundle.path / "manifest.json"
    write_whole(path, manifest.model_dump_json(indent=2) + "\n")
    typer.echo(path)


@app.command()
def equivariance(
    bundle: BundleName = "pose-s",
    split: Annotated[Split, typer.Option(help="whose people are looked at")] = "coco/dev",
    people: Annotated[int, typer.Option(min=1, help="at most")] = 150,
    data: Data = DATA,
) -> None:
    """Move the crop around people and measure how far their joints go; into `evaluation.json`."""
    from training.equivariance import equivariance as move
    from training.evaluation import record
    from training.report import equivariance_table
    from training.truth import read_truth

    model = _pose(bundle)
    deviations = move(model, read_truth(data, split), people=people)
    record(model.bundle.path / "evaluation.json", model, equivariance=deviations)
    typer.echo(equivariance_table(deviations))


@app.command()
def measure(
    config: Config,
    data: Data = DATA,
    readme: Readme = Path("README.md"),
    detector: Annotated[str, typer.Option(help="of the whole path")] = "person-n",
) -> None:
    """All that follows an export: calibrate, evaluate every split, equivariance, card, README."""
    bundle = load_experiment(config).name
    calibrate(bundle, data)
    evaluate(bundle, "coco/dev", data=data)
    evaluate(bundle, "coco/val", flip=True, data=data)
    evaluate(bundle, "coco/val", detector=detector, data=data)
    evaluate(bundle, "lspet/val", data=data)
    equivariance(bundle, data=data)
    evaluate(bundle, "coco/val", data=data)
    card(config, data, readme)


@app.command()
def sweep(bundle: BundleName = "pose-s", data: Data = DATA) -> None:
    """Try the choices of decoding on `coco/dev`; the best belong into the experiment."""
    from training.report import sweep_table
    from training.sweep import sweep as try_all
    from training.truth import read_truth

    typer.echo(sweep_table(try_all(_pose(bundle), read_truth(data, "coco/dev"))))


@app.command()
def study(config: Config) -> None:
    """Train heatmap, SimCC and NerPE alone on equal terms, measure and compare them; resumable."""
    from training.study.config import load_study
    from training.study.run import run_study

    recipe = f"{config.parent.name}/{config.name}"
    for path in run_study(load_study(config), recipe):
        typer.echo(path)


@app.command()
def card(
    config: Config,
    data: Data = DATA,
    readme: Readme = Path("README.md"),
) -> None:
    """Write a bundle's card and the README's table from `evaluation.json`."""
    from training.card import write_card
    from training.readme import write_readme

    for path in write_card(config, data):
        typer.echo(path)
    write_readme(readme, BUNDLES / load_experiment(config).name)
    typer.echo(readme)


app.add_typer(detector_app, name="detector")
