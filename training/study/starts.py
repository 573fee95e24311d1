"""What a study's systems start from, made by the study itself so that anyone can make it again.

Of each size, the largest first, one run of all heads together fits the trunk, so that it favours
none of them; of each size and seed fresh heads are then trained alone on that trunk's features.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch.utils.data import ConcatDataset

from training.config import Experiment
from training.heads_alone import train_heads
from training.losses import Batch
from training.progress import console
from training.run import write_checkpoint
from training.start import start_network
from training.study.config import Study, System
from training.train import train, training_device

Data: TypeAlias = Callable[[Experiment], ConcatDataset[Batch]]
"""The sets of a run."""


def make_start(study: Study, system: System, data: Data) -> None:
    """Make what a system starts from, as far as it is not there: its size's trunk, its heads."""
    beginning = study.beginning(system.pixels, system.seed)
    if beginning.final.exists():
        return
    _make_trunk(study, system.pixels, data)
    console.print(beginning.name)
    torch.manual_seed(beginning.seed)
    network = start_network(beginning)
    # At once, for they then share the features; each has parameters and a loss of its own.
    train_heads(network, data(beginning), beginning, beginning.warm_up, training_device())
    beginning.folder.mkdir(parents=True, exist_ok=True)
    write_checkpoint(beginning.final, network.shape, {"ema": network.state_dict()})


def _make_trunk(study: Study, pixels: int, data: Data) -> None:
    larger = study.larger(pixels)
    if larger is not None:
        _make_trunk(study, larger, data)
    trunk = study.trunk(pixels)
    console.print(trunk.name)
    train(trunk, data(trunk))
