"""Train RTMDet-nano further: seeded, resumable, measured on dev after each epoch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from models.files import replacing
from training.detector.augment import Sample, augmented
from training.detector.config import Experiment
from training.detector.evaluate import measure_dev
from training.detector.export import MEAN, STD
from training.detector.loss import detection_loss
from training.detector.network import RtmdetNano
from training.detector.photos import Photo, read_photos
from training.progress import progress_bar
from training.rate import rate

_SAVE_EVERY = 50


@dataclass(slots=True)
class Run:
    """The state of a training run; all of it is in its checkpoint."""

    network: RtmdetNano
    averaged: AveragedModel
    optimiser: torch.optim.Optimizer
    step: int = 0

    @classmethod
    def start(cls, experiment: Experiment, data: Path) -> Run:
        """From the published weights."""
        network = RtmdetNano()
        network.load_onnx(data / experiment.start)
        groups: list[dict[str, Any]] = [
            {"params": [item for item in network.parameters() if item.ndim > 1]},
            {
                "params": [item for item in network.parameters() if item.ndim <= 1],
                "weight_decay": 0,
            },
        ]
        optimiser = torch.optim.AdamW(
            groups,
            lr=experiment.learning_rate,
            weight_decay=experiment.weight_decay,
        )
        averaging = get_ema_multi_avg_fn(experiment.ema)  # type: ignore[no-untyped-call]
        return cls(network, AveragedModel(network, multi_avg_fn=averaging), optimiser)

    @property
    def result(self) -> RtmdetNano:
        """The network with the averaged weights."""
        return cast(RtmdetNano, self.averaged.module)

    def save(self, path: Path) -> None:
        """Whole or not at all."""
        state = {
            "network": self.network.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
        }
        with replacing(path) as draft:
            torch.save(state, draft)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint."""
        state = torch.load(path, map_location="cpu", weights_only=True)
        self.network.load_state_dict(state["network"])
        self.averaged.load_state_dict(state["averaged"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step = state["step"]


def train_detector(experiment: Experiment, data: Path, folder: Path) -> None:
    """Train, or go on where an interrupted run stopped.

    Writes `checkpoint.pt`, after each epoch the averaged weights `epoch-NN.pt`, and `log.jsonl`.

    Args:
        experiment: what to do.
        data: the folder with `coco/` and `models/`.
        folder: of this run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(experiment.seed)
    photos, dev = read_photos(data / "coco", "train"), read_photos(data / "coco", "dev")
    run = Run.start(experiment, data)
    if (folder / "checkpoint.pt").exists():
        run.load(folder / "checkpoint.pt")
    per_epoch = len(photos) // experiment.batch
    total = per_epoch * experiment.epochs
    with progress_bar() as progress, (folder / "log.jsonl").open("a") as log:
        task = progress.add_task(experiment.name, total=total, completed=run.step, note="")
        while run.step < total:
            share = rate(run.step, total, experiment.warm_up, experiment.flat)
            for group in run.optimiser.param_groups:
                group["lr"] = experiment.learning_rate * share
            losses = _step(run, experiment, _batch(photos, experiment, run.step, per_epoch))
            run.step += 1
            progress.update(task, advance=1, note=f"loss {sum(losses):.3f}")
            row: dict[str, Any] = {"step": run.step, "score_loss": losses[0], "box_loss": losses[1]}
            if run.step % per_epoch == 0:
                epoch = run.step // per_epoch
                torch.save(run.result.state_dict(), folder / f"epoch-{epoch:02d}.pt")
                row |= {"epoch": epoch, "dev": measure_dev(run.result, experiment, dev)}
                progress.console.print(row)
            log.write(json.dumps(row) + "\n")
            log.flush()
            if run.step % _SAVE_EVERY == 0 or run.step % per_epoch == 0:
                run.save(folder / "checkpoint.pt")


def _batch(
    photos: list[Photo], experiment: Experiment, step: int, per_epoch: int
) -> Iterator[Sample]:
    """The samples of one step; they depend on the seed and the step alone, so runs can resume."""
    epoch, index = divmod(step, per_epoch)
    order = np.random.default_rng([experiment.seed, epoch]).permutation(len(photos))
    rng = np.random.default_rng([experiment.seed, epoch, index])
    size = experiment.sizes[rng.integers(len(experiment.sizes))]
    for number in order[index * experiment.batch : (index + 1) * experiment.batch]:
        photo = photos[number]
        yield augmented(
            photo.pixels(), photo.people, photo.crowds, size, experiment.augmentation, rng
        )


def _step(run: Run, experiment: Experiment, batch: Iterator[Sample]) -> tuple[float, float]:
    samples = list(batch)
    levels = run.network(network_input(np.stack([sample.pixels for sample in samples])))
    people = [torch.from_numpy(sample.people) for sample in samples]
    ignored = [torch.from_numpy(sample.ignored) for sample in samples]
    score_loss, box_loss = detection_loss(levels, people, ignored)
    run.optimiser.zero_grad(set_to_none=True)
    (score_loss + box_loss).backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(run.network.parameters(), experiment.largest_gradient)
    run.optimiser.step()
    run.averaged.update_parameters(run.network)
    return score_loss.item(), box_loss.item()


def network_input(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> Tensor:
    """(B, H, W, 3) uint8 RGB -> normalised BGR (B, 3, H, W)."""
    values = torch.from_numpy(np.ascontiguousarray(pixels[..., ::-1])).permute(0, 3, 1, 2)
    return (values - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
