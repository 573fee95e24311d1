"""Training: one run feeds all three heads on one encoder."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch.utils.data import ConcatDataset

from models.keypoints import COCO17
from models.networks.encoders import TimmEncoder
from training.config import Experiment
from training.data.examples import Examples
from training.describable import indescribable
from training.errors import DataError
from training.heads_alone import train_heads
from training.losses import Batch
from training.order import rank
from training.pack import open_pack
from training.prepare import read_source
from training.progress import console
from training.run import Run, write_checkpoint
from training.start import read_checkpoint, shaped_network, start_network
from training.teacher_maps import find_maps


def train(experiment: Experiment, data: ConcatDataset[Batch] | None = None) -> Path:
    """Run an experiment to its end, from its last checkpoint if it has one.

    Args:
        experiment: to run.
        data: its sets, where they are read already; None for `training_data(experiment)`.

    Returns:
        The last checkpoint: the averaged weights are under `ema`.

    Raises:
        DataError: the last checkpoint is of a network of another shape.
    """
    torch.manual_seed(experiment.seed)
    if "WORLD_SIZE" in os.environ and not dist.is_initialized():
        # Started by torchrun. The others wait while the first one trains heads alone.
        dist.init_process_group(timeout=timedelta(days=1))
    if experiment.threads:
        torch.set_num_threads(experiment.threads)
    if rank() == 0 and (reason := indescribable(experiment.shape, experiment.simcc_loss)):
        console.print(f"This can be trained and validated, and not be exported: {reason}")
    experiment.folder.mkdir(parents=True, exist_ok=True)
    last = experiment.last
    device = training_device()
    data = training_data(experiment) if data is None else data
    if last.exists():
        console.print(f"resuming from {last}")
        state = read_checkpoint(last, experiment)
        network = shaped_network(experiment)
        network.load_state_dict(state["network"])
    else:
        state = None
        network = start_network(experiment)
        if rank() == 0:
            train_heads(network, data, experiment, experiment.warm_up, device)
    if experiment.held:
        assert isinstance(network.encoder, TimmEncoder)
        network.encoder.hold(experiment.held)
    network.to(device).to(memory_format=torch.channels_last)
    run = Run(network, experiment, device)
    if state is not None:
        run.load(state)
    elif rank() == 0:
        run.save(last)
    run.fit(data, last)
    first = rank() == 0
    if dist.is_initialized():
        dist.destroy_process_group()
    if experiment.settle and first:
        train_heads(run.ema, data, experiment, experiment.settle, device)
        write_checkpoint(experiment.final, run.ema.shape, {"ema": run.ema.state_dict()})
    return experiment.final


def training_device() -> torch.device:
    """A GPU of its own for each process of a host, or the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cuda", torch.cuda.current_device())


def training_data(experiment: Experiment) -> ConcatDataset[Batch]:
    """The sets of an experiment; maps and packs are expected where `prepare` and `pack` put them.

    Raises:
        DataError: they hold less than a batch, or maps or a pack are of other people.
    """
    data: ConcatDataset[Batch] = ConcatDataset(
        [_training_set(experiment, number) for number in range(len(experiment.train))]
    )
    phases = [phase for phase in (experiment.warm_up, experiment.settle) if phase and phase.passes]
    largest = max([experiment.schedule.batch, *(phase.batch for phase in phases)])
    if len(data) < largest:
        raise DataError(f"{len(data)} people are fewer than a batch of {largest}")
    return data


def _training_set(experiment: Experiment, number: int) -> Examples:
    """With packs, the same examples of the same people, whose photos may be elsewhere."""
    pack = open_pack(experiment, number) if experiment.packed else None
    people = pack.people if pack else read_source(experiment.train[number]).people
    teacher = None
    if experiment.teachers:
        teacher = pack.maps if pack else find_maps(experiment, number, len(people))
    return Examples(
        people,
        COCO17,
        experiment.shape.size,
        experiment.shape.matrix,
        augmentation=experiment.augmentation,
        teacher=teacher,
        pictures=pack.pictures if pack else None,
        seed=experiment.seed,
    )
