"""Fine-tuning everything together: its state, its steps, its checkpoints."""

from __future__ import annotations

import contextlib
import copy
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import ConcatDataset

from models.files import replacing
from models.networks.pose import PoseNetwork, PoseShape
from training.config import Experiment
from training.errors import TrainingError
from training.log import RunLog
from training.losses import Batch, pose_losses, weighted
from training.order import batches, rank, world
from training.precision import autocast, check_precision, gradient_scaler
from training.progress import console, note, progress_bar
from training.rate import rate
from training.validation import Validation


def write_checkpoint(path: Path, shape: PoseShape, state: dict[str, object]) -> None:
    """Whole or not at all, with the shape of the network that it is of."""
    with replacing(path) as draft:
        torch.save({"shape": json.dumps(asdict(shape)), **state}, draft)


def synchronised(network: PoseNetwork, device: torch.device) -> PoseNetwork:
    """With the statistics of batch norms taken over all processes, where they are on GPUs.

    On CPUs torch has no such norm: each process normalises by its own part of the batch.
    """
    if device.type != "cuda" or world() == 1:
        return network
    convert: Callable[[nn.Module], Any] = nn.SyncBatchNorm.convert_sync_batchnorm
    converted: PoseNetwork = convert(network)
    return converted


class _Losses(nn.Module):
    """Crops to losses in one forward pass: what DistributedDataParallel wraps."""

    def __init__(self, network: PoseNetwork, experiment: Experiment) -> None:
        super().__init__()
        self.network, self.experiment = network, experiment

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        experiment, crops = self.experiment, batch["crop"]
        precision = experiment.schedule.precision
        with autocast(precision, crops.device):
            features = self.network.encode(crops)
        return pose_losses(
            self.network, features, batch,
            teacher_share=experiment.teachers.share if experiment.teachers else 0.0,
            samples=experiment.samples, near=experiment.near, generator=generator,
            simcc=experiment.simcc_loss, sampling=experiment.sampling, precision=precision,
        )  # fmt: skip


class Run:
    """The state of fine-tuning: everything a checkpoint holds."""

    def __init__(self, network: PoseNetwork, experiment: Experiment, device: torch.device) -> None:
        """Begin.

        Args:
            network: on the device.
            experiment: what to do.
            device: of this process.

        Raises:
            TrainingError: the device has no such arithmetic, or a batch has no equal shares.
        """
        plan = experiment.schedule
        check_precision(plan.precision, device)
        if plan.batch % (plan.parts * world()):
            raise TrainingError(
                f"a batch of {plan.batch} has no {plan.parts * world()} equal shares: "
                f"{plan.parts} parts in each of {world()} processes"
            )
        self.network, self.experiment, self.device = (
            synchronised(network, device),
            experiment,
            device,
        )
        self.losses: nn.Module = _Losses(self.network, experiment)
        if dist.is_initialized():
            # It gives everyone the first process's weights, and each step the mean gradient.
            self.losses = DistributedDataParallel(self.losses)
        self.ema = copy.deepcopy(self.network).eval()
        self.scaler = gradient_scaler(plan.precision, device)
        encoder = [p for n, p in self.network.named_parameters() if n.startswith("encoder.")]
        heads = [p for n, p in self.network.named_parameters() if not n.startswith("encoder.")]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": encoder, "lr": plan.encoder_rate},
                {"params": heads, "lr": plan.head_rate},
            ],
            weight_decay=plan.weight_decay,
        )
        self.rates = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: rate(step, plan.steps, plan.ramp, plan.flat)
        )
        self.step = 0
        self.waited = 0.0

    def load(self, state: dict[str, Any]) -> None:
        """Go on where a checkpoint left off."""
        self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.rates.load_state_dict(state["rates"])
        if saved := state.get("scaler"):
            self.scaler.load_state_dict(saved)
        self.step = state["step"]

    def save(self, path: Path) -> None:
        """Write a checkpoint: whole or not at all."""
        write_checkpoint(
            path,
            self.network.shape,
            {
                "network": self.network.state_dict(),
                "ema": self.ema.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "rates": self.rates.state_dict(),
                "scaler": self.scaler.state_dict(),
                "step": self.step,
            },
        )

    def fit(self, data: ConcatDataset[Batch], last: Path) -> None:
        """Take the steps that are left."""
        plan, experiment = self.experiment.schedule, self.experiment
        stream = batches(experiment, data, self.step)
        validating = plan.validate_every > 0 and rank() == 0
        validation = Validation(experiment, self.device) if validating else None
        precision: dict[str, float] = {}
        started, first, self.waited = time.monotonic(), self.step, 0.0
        validating_s = 0.0
        with progress_bar() as progress, RunLog(experiment, self.step) as log:
            task = progress.add_task("train", total=plan.steps, completed=self.step, note="")
            while self.step < plan.steps:
                losses = self._take_step(stream)
                said = note(losses)  # which waits for them: the step is over on a GPU too
                seconds = time.monotonic() - started - validating_s
                ended = self.step == plan.steps
                measured = {}
                if validation and (ended or self.step % plan.validate_every == 0):
                    began = time.monotonic()
                    precision = measured = validation.measure(self.ema)
                    validating_s += time.monotonic() - began
                speed = (self.step - first) * plan.batch / seconds
                log.write(self.step, seconds, losses, speed, measured)
                line = (
                    f"{said} {speed:.1f} crops/s, "
                    f"{self.waited / seconds:.0%} waiting for data"
                    + "".join(f", {head} {ap:.3f} AP" for head, ap in precision.items())
                )
                progress.update(task, advance=1, note=line)
                due = ended or self.step % experiment.checkpoint_every == 0
                if due and rank() == 0:
                    log.flush()
                    self.save(last)
                    console.print(f"step {self.step} {line}")

    def _take_step(self, stream: Iterator[Batch]) -> dict[str, Tensor]:
        """One step, of all parts of its batch; returns its losses."""
        plan, experiment = self.experiment.schedule, self.experiment
        self.network.train()
        if experiment.fold:
            self.network.encoder.eval()
        # Positions depend on the step alone, so that a resumed run repeats none.
        seed = experiment.seed + self.step * world() + rank()
        generator = torch.Generator().manual_seed(seed)
        self.optimizer.zero_grad()
        parts = []
        for left in reversed(range(plan.parts)):
            asked = time.monotonic()
            batch = next(stream)
            self.waited += time.monotonic() - asked
            with self._alone() if left else contextlib.nullcontext():
                parts.append(self._accumulate(batch, generator))
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.network.parameters(), plan.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.rates.step()
        self.step += 1
        self._average()
        return {name: torch.stack([part[name] for part in parts]).sum() for name in parts[0]}

    def _alone(self) -> contextlib.AbstractContextManager[None]:
        """For all parts of a batch but the last: the processes need not share their gradients."""
        if isinstance(self.losses, DistributedDataParallel):
            return self.losses.no_sync()
        return contextlib.nullcontext()

    def _accumulate(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Add a part's gradients to those of its step; returns its share of the losses."""
        batch = {name: value.to(self.device) for name, value in batch.items()}
        losses: dict[str, Tensor] = self.losses(batch, generator)
        losses = {name: loss / self.experiment.schedule.parts for name, loss in losses.items()}
        total = weighted(losses, self.experiment.losses)
        torch.autograd.backward(self.scaler.scale(total))
        return {name: loss.detach() for name, loss in losses.items()}

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
