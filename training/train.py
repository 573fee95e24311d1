"""Training: one run feeds all three heads on one encoder."""

from __future__ import annotations

import copy
import csv
import math
import os
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils.data import ConcatDataset, DataLoader, Dataset, WeightedRandomSampler

from models.files import replacing
from models.keypoints import COCO17
from models.networks.pose import PoseNetwork
from models.networks.tinypose import TinyPoseTrunk, load_pp_tinypose
from training.config import Experiment
from training.data.examples import Examples, set_epoch
from training.errors import DataError
from training.heads_alone import train_heads
from training.log import begin_log
from training.losses import Batch, pose_losses, weighted
from training.prepare import read_source
from training.progress import console, note, progress_bar
from training.teacher import check_grid


def train(experiment: Experiment) -> Path:
    """Run an experiment to its end, from its last checkpoint if it has one.

    Returns:
        The last checkpoint: the averaged weights are under `ema`.
    """
    torch.manual_seed(experiment.seed)
    if "WORLD_SIZE" in os.environ and not dist.is_initialized():
        dist.init_process_group()  # started by torchrun
    if experiment.threads:
        torch.set_num_threads(experiment.threads)
    experiment.folder.mkdir(parents=True, exist_ok=True)
    last = experiment.last
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    data = training_data(experiment)
    if last.exists():
        console.print(f"resuming from {last}")
        state = torch.load(last, weights_only=True)
        network = _shaped(experiment)
        network.load_state_dict(state["network"])
    else:
        state = None
        network = start_network(experiment)
        if experiment.teachers is not None:
            check_grid(network.heatmap_codec)
        if _rank() == 0:
            train_heads(network, data, experiment, experiment.warm_up, device)
        if dist.is_initialized():
            for tensor in network.state_dict().values():
                dist.broadcast(tensor, 0)
    network.to(device).to(memory_format=torch.channels_last)
    run = _Run(network, experiment, device)
    if state is not None:
        run.load(state)
    elif _rank() == 0:
        run.save(last)
    run.fit(data, last)
    if experiment.settle and _rank() == 0:
        train_heads(run.ema, data, experiment, experiment.settle, device)
        write_checkpoint(experiment.final, {"ema": run.ema.state_dict()})
    return experiment.final


def training_data(experiment: Experiment) -> ConcatDataset[Batch]:
    """The sets of an experiment; the teacher's maps are expected where `prepare` puts them.

    Raises:
        DataError: they hold less than a batch.
    """
    sets = [
        Examples(
            read_source(source).people,
            COCO17,
            experiment.shape.size,
            experiment.shape.matrix,
            augmentation=experiment.augmentation,
            teacher=experiment.teacher_file(number) if experiment.teachers else None,
            seed=experiment.seed,
        )
        for number, source in enumerate(experiment.train)
    ]
    data: ConcatDataset[Batch] = ConcatDataset(sets)
    warming = experiment.warm_up.passes > 0
    largest = max(experiment.schedule.batch, experiment.warm_up.batch if warming else 0)
    if len(data) < largest:
        raise DataError(f"{len(data)} people are fewer than a batch of {largest}")
    return data


def start_network(experiment: Experiment) -> PoseNetwork:
    """The network before its first step."""
    network = PoseNetwork(experiment.shape)
    if experiment.start is not None and isinstance(network.encoder, TinyPoseTrunk):
        own_head = load_pp_tinypose(network.encoder, experiment.start)
        if "heatmap" in experiment.shape.heads:
            network.heatmap.get_submodule("joints").load_state_dict(own_head)
    if experiment.fold:
        fold_batch_norm(network.encoder)
    return network


def averaged_network(experiment: Experiment, checkpoint: Path) -> PoseNetwork:
    """The averaged weights of a checkpoint."""
    network = _shaped(experiment)
    network.load_state_dict(torch.load(checkpoint, weights_only=True)["ema"])
    return network.eval()


def _shaped(experiment: Experiment) -> PoseNetwork:
    """A network whose tensors are those of a checkpoint."""
    network = PoseNetwork(experiment.shape)
    if experiment.fold:
        fold_batch_norm(network.encoder)
    return network


def fold_batch_norm(module: nn.Module) -> None:
    """Put each batch norm into the convolution before it, in place: the same map in eval mode.

    A small data set does not move good statistics, and without the norms a step is faster.
    """
    module.eval()
    for child in module.children():
        fold_batch_norm(child)
    if isinstance(module, nn.Sequential):
        layers = list(module)
        for index, (first, second) in enumerate(pairwise(layers)):
            # By their very types: what derives from them does more, an activation for one.
            if type(first) is nn.Conv2d and type(second) is nn.BatchNorm2d:
                module[index] = fuse_conv_bn_eval(first, second)
                module[index + 1] = nn.Identity()
    for parameter in module.parameters():
        parameter.requires_grad_(True)


def write_checkpoint(path: Path, state: dict[str, object]) -> None:
    """Whole or not at all."""
    with replacing(path) as draft:
        torch.save(state, draft)


class _Run:
    """The state of fine-tuning: everything a checkpoint holds."""

    def __init__(self, network: PoseNetwork, experiment: Experiment, device: torch.device) -> None:
        self.network, self.experiment, self.device = network, experiment, device
        self.ema = copy.deepcopy(network).eval()
        plan = experiment.schedule
        encoder = [p for n, p in network.named_parameters() if n.startswith("encoder.")]
        heads = [p for n, p in network.named_parameters() if not n.startswith("encoder.")]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": encoder, "lr": plan.encoder_rate},
                {"params": heads, "lr": plan.head_rate},
            ],
            weight_decay=plan.weight_decay,
        )
        self.rates = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: _rate(step, plan.steps, plan.ramp, plan.flat)
        )
        self.step = 0

    def load(self, state: dict[str, dict[str, Tensor]]) -> None:
        """Go on where a checkpoint left off."""
        self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.rates.load_state_dict(state["rates"])
        self.step = int(state["step"])  # type: ignore[call-overload]

    def save(self, path: Path) -> None:
        """Write a checkpoint: whole or not at all."""
        write_checkpoint(
            path,
            {
                "network": self.network.state_dict(),
                "ema": self.ema.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "rates": self.rates.state_dict(),
                "step": self.step,
            },
        )

    def fit(self, data: ConcatDataset[Batch], last: Path) -> None:
        """Take the steps that are left."""
        plan, experiment = self.experiment.schedule, self.experiment
        share = experiment.teachers.share if experiment.teachers else 0.0
        batches = self._batches(data)
        log_file = experiment.folder / "log.csv" if _rank() == 0 else Path(os.devnull)
        if _rank() == 0:
            begin_log(log_file, self.step, list(self.network.shape.heads))
        log = log_file.open("a", newline="")
        writer = csv.writer(log)
        started, first = time.monotonic(), self.step
        with progress_bar() as progress, log:
            task = progress.add_task("train", total=plan.steps, completed=self.step, note="")
            while self.step < plan.steps:
                batch = {name: value.to(self.device) for name, value in next(batches).items()}
                self.network.train()
                if experiment.fold:
                    self.network.encoder.eval()
                # Positions depend on the step alone, so that a resumed run repeats none.
                generator = torch.Generator().manual_seed(
                    experiment.seed + self.step * _world() + _rank()
                )
                features = self.network.encode(batch["crop"])
                losses = pose_losses(
                    self.network, features, batch,
                    teacher_share=share, samples=experiment.samples, generator=generator,
                    simcc=experiment.simcc_loss, sampling=experiment.sampling,
                )  # fmt: skip
                self.optimizer.zero_grad()
                torch.autograd.backward(weighted(losses, experiment.losses))
                self._share_gradients()
                nn.utils.clip_grad_norm_(self.network.parameters(), plan.clip)
                self.optimizer.step()
                self.rates.step()
                self.step += 1
                self._average()
                seconds = time.monotonic() - started
                writer.writerow(
                    [
                        self.step,
                        f"{seconds:.1f}",
                        *(f"{float(loss.detach()):.6f}" for loss in losses.values()),
                    ]
                )
                speed = (self.step - first) * plan.batch / seconds
                progress.update(task, advance=1, note=f"{note(losses)} {speed:.1f} crops/s")
                due = self.step % experiment.checkpoint_every == 0 or self.step == plan.steps
                if due and _rank() == 0:
                    log.flush()
                    self.save(last)
                    console.print(f"step {self.step} {note(losses)} {speed:.1f} crops/s")

    def _share_gradients(self) -> None:
        """Each process has seen its part of the batch; all take the same step."""
        if not dist.is_initialized():
            return
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat, dist.ReduceOp.SUM)
        start = 0
        for gradient in gradients:
            end = start + gradient.numel()
            gradient.copy_(flat[start:end].view_as(gradient) / _world())
            start = end

    def _average(self) -> None:
        decay = min(self.experiment.schedule.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for mean, value in zip(
                self.ema.state_dict().values(), self.network.state_dict().values(), strict=True
            ):
                if mean.is_floating_point():
                    mean.lerp_(value, 1 - decay)
                else:
                    mean.copy_(value)

    def _batches(self, data: ConcatDataset[Batch]) -> Iterator[Batch]:
        """Without end, from the step the run is at; of each batch this process's part."""
        size = self.experiment.schedule.batch
        per_epoch = len(data) // size
        weights = [
            source.weight / len(_examples(part))
            for source, part in zip(self.experiment.train, data.datasets, strict=True)
            for _ in range(len(_examples(part)))
        ]
        mixed = len(self.experiment.train) > 1
        epoch, skip = divmod(self.step, per_epoch)
        while True:
            set_epoch(data, epoch)
            generator = torch.Generator().manual_seed(self.experiment.seed + epoch)
            if mixed:
                sampler = WeightedRandomSampler(weights, len(data), generator=generator)
                order = list(sampler)
            else:
                order = torch.randperm(len(data), generator=generator).tolist()
            yield from DataLoader(
                data,
                batch_sampler=[
                    order[i * size : (i + 1) * size][_rank() :: _world()]
                    for i in range(skip, per_epoch)
                ],
                num_workers=self.experiment.workers,
                prefetch_factor=4 if self.experiment.workers else None,
            )
            epoch, skip = epoch + 1, 0


def _examples(part: Dataset[Batch]) -> Examples:
    assert isinstance(part, Examples)
    return part


def _rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def _world() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def _rate(step: int, steps: int, ramp: int, flat: float) -> float:
    if step < ramp:
        return (step + 1) / ramp
    through = (step - flat * steps) / max(1.0, (1 - flat) * steps)
    return 1.0 if through <= 0 else 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, through)))
