"""`subpose-train detector`: train, export, evaluate."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import torch
import typer

from models.bundle import BUNDLES, Bundle
from models.detectors import load_detector
from training.detector.config import Experiment
from training.detector.evaluate import LEAST_SCORE, detect_all, measure, threshold_for
from training.detector.export import describe, export_graph, write_bundle
from training.detector.network import RtmdetNano
from training.detector.photos import Split, read_photos
from training.detector.reference import reference_bundles
from training.detector.report import compare
from training.detector.train import train_detector

detector_app = typer.Typer(help="The embedded person detector.", no_args_is_help=True)

Config = Annotated[Path, typer.Argument(help="experiment file", exists=True, dir_okay=False)]
Data = Annotated[Path, typer.Option(help="folder with coco/ and models/", exists=True)]
Folder = Annotated[Path | None, typer.Option(help="of the run; runs/ and its name by default")]


@detector_app.command()
def train(
    config: Config,
    data: Data = Path("../shared/data"),
    folder: Folder = None,
    threads: Annotated[int | None, typer.Option(help="that torch may use")] = None,
) -> None:
    """Train further from the published weights, or go on where a run stopped."""
    experiment = Experiment.read(config)
    if threads is not None:
        torch.set_num_threads(threads)
    train_detector(experiment, data, folder or Path("runs") / experiment.name)


@detector_app.command()
def export(
    config: Config,
    weights: Annotated[Path, typer.Argument(help="epoch-NN.pt of the run", exists=True)],
    data: Data = Path("../shared/data"),
    bundle: Annotated[Path | None, typer.Option(help="folder of the bundle")] = None,
) -> None:
    """Choose the threshold on dev and write the bundle, with its figures on val."""
    experiment = Experiment.read(config)
    network = RtmdetNano()
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    dev, val = (read_photos(data / "coco", split) for split in ("dev", "val"))
    with tempfile.TemporaryDirectory() as scratch:
        graph = Path(scratch) / "detector.onnx"
        export_graph(network, graph)
        # Measured as it will be served: the file that is written, by the engine that runs it.
        unset = describe(experiment, threshold=LEAST_SCORE, accuracy={})
        detector = load_detector(write_bundle(Path(scratch) / experiment.name, graph, unset))
        threshold = threshold_for(detect_all(detector, dev), dev, experiment.boxes)
        figures = measure(detect_all(detector, val), val, threshold)
        accuracy = {f"coco_val_{name}": round(value, 4) for name, value in asdict(figures).items()}
        description = describe(experiment, threshold=threshold, accuracy=accuracy)
        folder = bundle or BUNDLES / experiment.name
        typer.echo(f"{folder}: {write_bundle(folder, graph, description).digest}")


@detector_app.command()
def evaluate(
    detectors: Annotated[list[str], typer.Argument(help="names or paths of bundles")],
    data: Data = Path("../shared/data"),
    split: Annotated[Split, typer.Option(help="of COCO")] = "val",
    threshold: Annotated[
        list[float] | None, typer.Option(help="scores to measure at; each one's own by default")
    ] = None,
    threads: Annotated[int, typer.Option(help="that ONNX Runtime may use")] = 2,
) -> None:
    """Measure detectors beside RTMDet-nano and YOLOX-nano as published."""
    photos = read_photos(data / "coco", split)
    with tempfile.TemporaryDirectory() as scratch:
        published = reference_bundles(data / "models/detectors", Path(scratch))
        wanted: list[Bundle | str] = [*published.values(), *detectors]
        loaded = [load_detector(which, threads=threads) for which in wanted]
        typer.echo(compare(loaded, photos, threshold or (None,)))
