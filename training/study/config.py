"""One study, one file: the sizes and seeds, and what all systems share."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

from pydantic import Field

from models.networks.pose import HEADS, HeadName, PoseShape
from models.predictor import HeadChoice
from models.strict import Strict
from training.config import DataSource, Experiment, HeadPhase, LossWeights, Schedule, Serving
from training.data.examples import Augmentation
from training.truth import Split


class StudySize(Strict):
    """One size of crop, and what the papers make depend on it."""

    pixels: int = Field(ge=32, description="of a side")
    simcc_split: float = Field(ge=1, description="bins a pixel, the paper's k")
    simcc_sigma: float = Field(gt=0, description="of its labels, bins")
    trunk: Schedule = Field(description="of the run that makes the trunk of all its systems")
    schedule: Schedule = Field(description="every system's budget")


class System(Strict):
    """What is trained alone: one head on the shared trunk, from one seed."""

    pixels: int
    head: HeadName
    seed: int

    @property
    def name(self) -> str:
        """Also of its folder."""
        return f"{self.pixels}-{self.head}-{self.seed}"


class Study(Strict):
    """A config file."""

    name: str
    runs: Path = Field(Path("runs"), description="where checkpoints, bundles and figures go")
    report: Path = Field(description="the folder of the table, the plots and the results")
    start: Path | None = Field(None, description="of the largest size's trunk, and of no head")
    held: int = Field(0, ge=0, description="first stages of the trunk that stay as they are")
    threads: int | None = None
    seeds: tuple[int, ...] = (0, 1, 2)
    train: list[DataSource]
    data: Path = Field(description="the folder with coco/, for the split")
    split: Split = "coco/val"
    shape: PoseShape = Field(description="of every network but for its size and its head")
    sizes: list[StudySize]
    augmentation: Augmentation = Augmentation()
    warm_up: HeadPhase = Field(HeadPhase(), description="of the systems' heads, before the rest")
    losses: LossWeights = LossWeights()
    samples: int = Field(4, ge=1, description="NerPE's N_Z, positions a cell and step")
    serving: Serving = Field(description="of the bundles, and how they decode")
    standard: tuple[int, ...] = Field((64,), description="lattices of NerPE, each system's figures")
    progressive: tuple[int, ...] = (512,)
    gaussian: tuple[int, ...] = (64,)
    swept: tuple[int, ...] = Field(
        (32, 64, 128, 256), description="lattices whose cost is measured, of the first seed alone"
    )
    swept_progressive: tuple[int, ...] = (128, 512)
    swept_gaussian: tuple[int, ...] = (32, 64, 128)
    joint: str = Field("left_shoulder", description="whose field is drawn")
    drawn: tuple[int, ...] = Field((32, 64, 128, 256), description="resolutions of the field")
    swept_photos: int = Field(40, ge=1, description="with people: a dense lattice takes long")

    @property
    def folder(self) -> Path:
        """Of everything that the study leaves but its report."""
        return self.runs / self.name

    @property
    def systems(self) -> list[System]:
        """In the order of training: each seed's heads together, so that they can be compared."""
        return [
            System(pixels=size.pixels, head=head, seed=seed)
            for size in self.sizes
            for seed in self.seeds
            for head in HEADS
        ]

    def larger(self, pixels: int) -> int | None:
        """The next larger size, if there is one."""
        return min((s.pixels for s in self.sizes if s.pixels > pixels), default=None)

    def trunk(self, pixels: int) -> Experiment:
        """The run of a size whose trunk its systems start from: all heads together.

        The largest size's trunk starts from what is published, which has seen people larger yet;
        each other one from the next larger size's, so that no step down is a long one.
        """
        larger = self.larger(pixels)
        start = self.start if larger is None else self.trunk(larger).final
        # A seed of its own, so that no system sees its crops again.
        return self._experiment(f"{pixels}-trunk", pixels, max(self.seeds) + 1).model_copy(
            update={"start": start, "schedule": self._size(pixels).trunk}
        )

    def beginning(self, pixels: int, seed: int) -> Experiment:
        """What a seed's systems start from: fresh heads, trained alone on the trunk's features."""
        return self._experiment(f"{pixels}-beginning-{seed}", pixels, seed).model_copy(
            update={"start": self.trunk(pixels).final, "warm_up": self.warm_up}
        )

    def experiment(self, system: System) -> Experiment:
        """The system's run."""
        run = self._experiment(system.name, system.pixels, system.seed)
        return run.model_copy(
            update={
                "start": self.beginning(system.pixels, system.seed).final,
                "fresh_heads": False,
                "shape": replace(run.shape, heads=(system.head,)),
                "serving": self.serving.model_copy(update={"default_head": system.head}),
            }
        )

    def _experiment(self, name: str, pixels: int, seed: int) -> Experiment:
        """What all runs of a size share."""
        size = self._size(pixels)
        return Experiment(
            name=name,
            seed=seed,
            runs=self.folder,
            fresh_heads=True,
            held=self.held,
            threads=self.threads,
            workers=0,
            train=self.train,
            dev=self.train[0],
            shape=replace(
                self.shape,
                size=(pixels, pixels),
                simcc_split=size.simcc_split,
                simcc_sigma=(size.simcc_sigma, size.simcc_sigma),
            ),
            augmentation=self.augmentation,
            warm_up=HeadPhase(passes=0),
            schedule=size.schedule,
            losses=self.losses,
            samples=self.samples,
            serving=self.serving,
            checkpoint_every=30,
        )

    def _size(self, pixels: int) -> StudySize:
        return next(size for size in self.sizes if size.pixels == pixels)

    def readings(self, head: HeadName) -> list[HeadChoice]:
        """How a system's joints are read for the table."""
        return _readings(head, self.standard, self.progressive, self.gaussian)

    def swept_readings(self, head: HeadName) -> list[HeadChoice]:
        """How they are read to measure what a resolution costs."""
        return _readings(head, self.swept, self.swept_progressive, self.swept_gaussian)


def _readings(head: HeadName, *lattices: tuple[int, ...]) -> list[HeadChoice]:
    """Every decode of a head; of NerPE's each on its own lattices."""
    decodes = {"heatmap": ("argmax", "quarter", "dark"), "simcc": ("argmax", "expectation")}
    if head != "nerpe":
        return [HeadChoice(head, decode) for decode in decodes[head]]
    return [
        HeadChoice(head, decode, resolution)
        for decode, resolutions in zip(
            ("standard", "progressive", "gaussian"), lattices, strict=True
        )
        for resolution in resolutions
    ]


def load_study(path: Path) -> Study:
    """Read a config file; relative paths in it start where the command runs.

    Raises:
        pydantic.ValidationError: a field is wrong or unknown.
    """
    return Study.model_validate(tomllib.loads(path.read_text()))
