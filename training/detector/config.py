"""What one detector experiment is: a file in `training/experiments/`."""

from __future__ import annotations

import tomllib
from pathlib import Path

from pydantic import Field

from models.geometry import Size
from models.strict import Strict
from training.detector.augment import Augmentation


class Experiment(Strict):
    """An experiment; its name is the file's and the bundle's."""

    name: str
    start: str = Field(description="ONNX file of the weights to start from, within the data")
    seed: int
    sizes: tuple[Size, ...] = Field(min_length=1, description="of the input, one a batch")
    batch: int = Field(ge=1)
    epochs: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    warm_up: int = Field(ge=0, description="steps")
    flat: float = Field(ge=0, le=1, description="share of the steps before the cosine sets in")
    weight_decay: float = Field(ge=0)
    ema: float = Field(ge=0, lt=1, description="decay of the averaged weights, per step")
    largest_gradient: float = Field(gt=0, description="norm that gradients are clipped to")
    augmentation: Augmentation
    nms_threshold: float = Field(ge=0, le=1)
    boxes: float = Field(gt=0, description="a photo on dev, of the best 5: sets the threshold")

    @classmethod
    def read(cls, path: Path) -> Experiment:
        """From a toml file.

        Raises:
            pydantic.ValidationError: an unknown, missing or impossible value.
        """
        return cls(name=path.stem, **tomllib.loads(path.read_text()))
