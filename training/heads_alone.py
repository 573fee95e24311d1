"""Heads alone, on features that the encoder computes once.

A step of the heads costs a fraction of one through the encoder: they are brought near its level
before everything is trained together, and a head that is still behind afterwards can catch up.
"""

from __future__ import annotations

import torch
from rich.progress import track
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader

from models.networks.pose import PoseNetwork
from training.config import Experiment, HeadPhase
from training.data.examples import set_epoch
from training.losses import Batch, pose_losses, weighted
from training.progress import console, note, progress_bar

FIRST_EPOCH = 1 << 20
"""Of the augmentation's randomness, which training's epochs do not reach."""


def train_heads(
    network: PoseNetwork,
    data: ConcatDataset[Batch],
    experiment: Experiment,
    phase: HeadPhase,
    device: torch.device,
) -> None:
    """Train the phase's heads in place; the encoder, and the other heads, stay as they are."""
    if not phase.passes or not phase.epochs:
        return
    network.to(device).eval()
    stored: list[Batch] = []
    for number in range(phase.passes):
        set_epoch(data, FIRST_EPOCH + number)
        loader = DataLoader(data, phase.batch, num_workers=experiment.workers)
        console.print(f"features of pass {number + 1}, {len(data)} crops")
        with torch.no_grad():
            for batch in track(loader, "features", console=console):
                crops = batch.pop("crop").to(device)
                batch["features"] = network.encode(crops).half().cpu().contiguous()
                if "maps" in batch:
                    batch["maps"] = batch["maps"].half()
                stored += [
                    {name: value[i] for name, value in batch.items()}
                    for i in range(len(batch["features"]))
                ]
    heads = [name for name in phase.heads if name in network.shape.heads]
    modules = [network.get_submodule(name) for name in heads]
    for module in modules:
        module.train()
    parameters = [parameter for module in modules for parameter in module.parameters()]
    optimizer = torch.optim.AdamW(parameters, phase.rate, weight_decay=0.01)
    generator = torch.Generator().manual_seed(experiment.seed)
    steps = phase.epochs * (len(stored) // phase.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, phase.rate, total_steps=steps)
    share = experiment.teachers.share if experiment.teachers else 0.0
    with progress_bar() as progress:
        task = progress.add_task("heads", total=steps, note="")
        for _ in range(phase.epochs):
            order = torch.randperm(len(stored), generator=generator).tolist()
            for start in range(0, len(order) - phase.batch + 1, phase.batch):
                rows = [stored[i] for i in order[start : start + phase.batch]]
                batch = {
                    name: torch.stack([row[name] for row in rows]).to(device) for name in rows[0]
                }
                features = batch.pop("features").float()
                if "maps" in batch:
                    batch["maps"] = batch["maps"].float()
                losses = pose_losses(
                    network, features, batch, heads=heads,
                    teacher_share=share, samples=phase.samples, near=experiment.near,
                    generator=generator, simcc=experiment.simcc_loss, sampling=experiment.sampling,
                )  # fmt: skip
                optimizer.zero_grad()
                torch.autograd.backward(weighted(losses, experiment.losses))
                nn.utils.clip_grad_norm_(parameters, experiment.schedule.clip)
                optimizer.step()
                schedule.step()
                progress.update(task, advance=1, note=note(losses))
    network.eval()
