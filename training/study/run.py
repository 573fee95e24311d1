"""A study from its file to its report: systems trained one after the other, each alone."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import ConcatDataset

from models.bundle import load_bundle
from models.engines import load_engine
from models.keypoints import COCO17
from models.networks.pose import HEADS
from models.pose import PoseModel
from training.config import Experiment
from training.data.annotations import LabelledPerson
from training.data.examples import Examples
from training.data.images import read_image
from training.describable import indescribable
from training.errors import ExportError
from training.export import export_bundle
from training.losses import OURS, Batch
from training.prepare import read_source
from training.progress import console
from training.start import averaged_network
from training.study.config import Study, System
from training.study.fields import write_fields
from training.study.measure import costs, measure
from training.study.report import write_report
from training.study.results import Result, read_result, read_results, write_result
from training.study.starts import make_start
from training.train import train
from training.truth import Truth, read_truth

Picture = NDArray[np.uint8]


def run_study(study: Study, recipe: str) -> list[Path]:
    """Train and measure what is not done yet; the report is written anew after each system.

    Args:
        study: to run; what is left of an earlier one of the same name is gone on with.
        recipe: the file it came from, for the bundles.

    Returns:
        The report's files.

    Raises:
        ExportError: no bundle could describe its systems.
    """
    if reason := indescribable(study.shape, OURS):
        raise ExportError(reason)
    people = [read_source(source).people for source in study.train]

    def data(experiment: Experiment) -> ConcatDataset[Batch]:
        return _examples(experiment, people)

    truth = read_truth(study.data, study.split).with_people()
    systems = study.systems
    for number, system in enumerate(systems, 1):
        if read_result(study, system):
            continue
        console.print(f"system {number} of {len(systems)}: {system.name}")
        experiment = study.experiment(system)
        make_start(study, system, data)
        checkpoint = train(experiment, data(experiment))
        network = averaged_network(experiment, [checkpoint])
        bundle = bundle_folder(study, system)
        export_bundle(
            network, bundle,
            name=system.name, recipe=recipe, serving=experiment.serving, accuracy={},
            simcc_loss=experiment.simcc_loss,
        )  # fmt: skip
        model = open_system(study, system)
        rows = measure(study, system, model, truth)
        schedule = experiment.schedule
        result = Result(
            system=system,
            parameters=sum(parameter.numel() for parameter in network.parameters()),
            crops=schedule.steps * schedule.batch,
            people=sum(len(photo.people) for photo in truth.photos),
            rows=tuple(rows),
            costs=tuple(costs(study, system, model, truth))
            if system.seed == study.seeds[0]
            else (),
        )
        write_result(study, result)
        write_report(study, read_results(study), recipe)
    _draw(study, truth)
    return write_report(study, read_results(study), recipe)


@lru_cache(maxsize=2048)
def _picture(path: Path) -> Picture:
    """A photo, decoded once for all systems: at 64 x 64 that is most of an example's time.

    So many of COCO's are 2 GB at most.
    """
    return read_image(path)


class _Photos:
    """Of people."""

    def __init__(self, people: list[LabelledPerson]) -> None:
        self.people = people

    def __len__(self) -> int:
        return len(self.people)

    def __getitem__(self, index: int, /) -> Picture:
        return _picture(self.people[index].image)


def _examples(experiment: Experiment, people: list[list[LabelledPerson]]) -> ConcatDataset[Batch]:
    shape = experiment.shape
    return ConcatDataset(
        Examples(
            each, COCO17, shape.size, shape.matrix,
            augmentation=experiment.augmentation, pictures=_Photos(each),
            seed=experiment.seed,
        )
        for each in people
    )  # fmt: skip


def _draw(study: Study, truth: Truth) -> None:
    """The fields of the last size whose heads are all done, of the first seed."""
    for size in reversed(study.sizes):
        systems = {
            head: System(pixels=size.pixels, head=head, seed=study.seeds[0]) for head in HEADS
        }
        if all(read_result(study, system) for system in systems.values()):
            experiment = study.experiment(systems["nerpe"])
            write_fields(
                study.report,
                {head: open_system(study, system) for head, system in systems.items()},
                averaged_network(experiment, [experiment.final]),
                truth,
                COCO17.index(study.joint),
                study.drawn,
            )
            return


def bundle_folder(study: Study, system: System) -> Path:
    """Of a system's weights."""
    return study.folder / system.name / "bundle"


def open_system(study: Study, system: System) -> PoseModel:
    """A trained system as the service would load it."""
    bundle = load_bundle(bundle_folder(study, system))
    return PoseModel(bundle, load_engine(bundle, threads=study.threads))
