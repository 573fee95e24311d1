"""One experiment, one file: what to train on, what, how."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from models.manifest import Kernel
from models.networks.pose import HEADS, HeadName, PoseShape
from models.strict import Strict
from training.data.examples import Augmentation
from training.precision import Precision

Sampling = Literal["uniform", "random"]


class DataSource(Strict):
    """A set of people. Sets mix by weight: how often one of its people is drawn."""

    annotations: Path
    images: Path
    weight: float = Field(1.0, gt=0)
    split: Literal["train", "dev", "all"] = "train"
    unlabelled: bool = Field(False, description="also people whom only the teachers label")
    smallest: float = Field(32, ge=0, description="longer side of the smallest box, px")


class Teachers(Strict):
    """The mean of them, with flip, is the teacher."""

    files: list[Path] = Field(
        description="ONNX files of PP-TinyPose's contract, and folders of bundles that answer alike"
    )
    share: float = Field(0.5, ge=0, le=1, description="of a labelled joint's target")


class HeadPhase(Strict):
    """Heads alone, on features of augmented crops that the encoder computes once."""

    heads: tuple[HeadName, ...] = HEADS
    passes: int = Field(1, ge=0, description="augmented crops of each person")
    epochs: int = Field(10, ge=0, description="over all of these")
    rate: float = 2e-3
    batch: int = 64
    samples: int = Field(1, ge=1, description="NerPE's positions a cell and step")


class Schedule(Strict):
    """AdamW on everything; the rate is flat, then falls as a cosine."""

    steps: int = Field(ge=1)
    batch: int = Field(32, ge=2)
    parts: int = Field(1, ge=1, description="of a batch, one after the other: gradients add up")
    encoder_rate: float = 1e-4
    head_rate: float = 5e-4
    weight_decay: float = 0.01
    flat: float = Field(0.5, ge=0, le=1, description="share of the steps at the full rate")
    ramp: int = Field(30, ge=0, description="steps of rising rate")
    ema: float = Field(0.998, ge=0, lt=1)
    clip: float = Field(1.0, gt=0, description="of the gradient's norm")
    precision: Precision = Field("fp32", description="of the network; losses are fp32's always")
    validate_every: int = Field(0, ge=0, description="steps, by AP on dev; 0 for never")

    @model_validator(mode="after")
    def _even_parts(self) -> Schedule:
        if self.batch % self.parts:
            raise ValueError(f"a batch of {self.batch} has no {self.parts} equal parts")
        return self


class LossWeights(Strict):
    """Of the three heads' losses in the sum."""

    simcc: float = 1.0
    heatmap: float = 600.0
    nerpe: float = 300.0


class SimccLoss(Strict):
    """Kullback-Leibler divergence of SimCC's labels, in each published form (MODELS 1.3)."""

    form: Literal["joints", "summed", "mean", "mmpose"] = Field(
        "joints",
        description="`joints`: summed over bins, the mean of the joints that count; as published: "
        "`summed` over bins and joints, `mean` over bins and all joints, `mmpose` the mean over "
        "bins, summed over the batch",
    )
    beta: float = Field(1.0, gt=0, description="times the logits; RTMPose 10")
    label_beta: float = Field(
        0.0, ge=0, description="times the labels before a softmax, 0 for none; RTMPose 10"
    )


class Serving(Strict):
    """What the bundle says of itself, and the choices that were measured on dev."""

    default_head: HeadName = "simcc"
    simcc: Literal["expectation", "argmax"] = "expectation"
    window: float = Field(2.0, gt=0, description="of the expectation, sigmas around the peak")
    heatmap: Literal["dark", "quarter", "argmax"] = "dark"
    blur: Kernel = Field(11, description="DARK's kernel in cells")
    nerpe: Literal["progressive", "standard", "gaussian"] = "gaussian"
    resolution: int = Field(64, ge=16, le=2048, description="of the lattice of that decode")
    largest_batch: int = 32
    checkpoints: str = Field("of the last step", description="which averaged weights are served")
    data: str = Field(description="what the weights learnt from")
    start: str = Field(description="what they started from, and its licence")


class Experiment(Strict):
    """A config file."""

    name: str
    seed: int = 0
    runs: Path = Field(Path("runs"), description="where checkpoints, logs and packs go")
    start: Path | None = Field(
        None, description="a checkpoint, or safetensors: PP-TinyPose's, or of timm's classifier"
    )
    fresh_heads: bool = Field(False, description="of the start only the trunk is taken")
    held: int = Field(0, ge=0, description="first stages of a timm trunk that stay as they are")
    fold: bool = Field(True, description="train the encoder with its batch norm folded")
    threads: int | None = None
    workers: int = 1
    packed: bool = Field(False, description="learn from `subpose-train pack`'s files, no photos")
    train: list[DataSource]
    dev: DataSource
    teachers: Teachers | None = None
    shape: PoseShape = PoseShape()
    augmentation: Augmentation = Augmentation()
    warm_up: HeadPhase = Field(HeadPhase(), description="before everything is trained together")
    settle: HeadPhase | None = Field(None, description="and after it")
    schedule: Schedule
    losses: LossWeights = LossWeights()
    simcc_loss: SimccLoss = SimccLoss()
    serving: Serving
    samples: int = Field(1, ge=1, description="NerPE's N_Z, positions a cell and step")
    near: int = Field(
        0, ge=0, description="and so many around each joint, where the field is steep"
    )
    sampling: Sampling = Field(
        "uniform", description="one of them in each of N_Z squares of the cell, or anywhere in it"
    )
    checkpoint_every: int = 100

    @model_validator(mode="after")
    def _served_head(self) -> Experiment:
        head, heads = self.serving.default_head, self.shape.heads
        if head not in heads:
            raise ValueError(f"the default head {head} is not one of {', '.join(heads)}")
        return self

    @property
    def folder(self) -> Path:
        """Of this experiment's run."""
        return self.runs / self.name

    @property
    def last(self) -> Path:
        """The run's checkpoint while everything is trained together."""
        return self.folder / "last.pt"

    @property
    def final(self) -> Path:
        """What is exported."""
        return self.folder / "settled.pt" if self.settle else self.last

    def pack_folder(self, number: int) -> Path:
        """The training set of that number, packed."""
        return self.folder / f"pack-{number}"

    def teacher_file(self, number: int) -> Path:
        """What the teachers saw of the training set of that number."""
        return self.folder / f"teacher-{number}.npy"


def load_experiment(path: Path) -> Experiment:
    """Read a config file; relative paths in it start where the command runs.

    Raises:
        pydantic.ValidationError: a field is wrong or unknown.
    """
    return Experiment.model_validate(tomllib.loads(path.read_text()))
