"""Heads alone, on features that the start's encoder computes once.

A step of the heads costs a fraction of one through the encoder, so they are brought near the
encoder's level before everything is trained together.
"""

from __future__ import annotations

import torch
from rich.progress import track
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader

from models.networks.pose import PoseNetwork
from training.config import Experiment
from training.data.examples import set_epoch
from training.losses import Batch, pose_losses, weighted
from training.progress import console, note, progress_bar

FIRST_EPOCH = 1 << 20
"""Of the augmentation's randomness, which training's epochs do not reach."""


def warm_up(
    network: PoseNetwork, data: ConcatDataset[Batch], experiment: Experiment, device: torch.device
) -> None:
    """Train the heads alone on features that are computed once."""
    plan = experiment.warm_up
    if not plan.passes or not plan.epochs:
        return
    network.to(device).eval()
    stored: list[Batch] = []
    for number in range(plan.passes):
        set_epoch(data, FIRST_EPOCH + number)
        loader = DataLoader(data, plan.batch, num_workers=experiment.workers)
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
    network.train()
    network.encoder.eval()
    heads = [p for name, p in network.named_parameters() if not name.startswith("encoder.")]
    optimizer = torch.optim.AdamW(heads, plan.rate, weight_decay=0.01)
    generator = torch.Generator().manual_seed(experiment.seed)
    steps = plan.epochs * (len(stored) // plan.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, plan.rate, total_steps=steps)
    share = experiment.teachers.share if experiment.teachers else 0.0
    with progress_bar() as progress:
        task = progress.add_task("heads", total=steps, note="")
        for _ in range(plan.epochs):
            order = torch.randperm(len(stored), generator=generator).tolist()
            for start in range(0, len(order) - plan.batch + 1, plan.batch):
                rows = [stored[i] for i in order[start : start + plan.batch]]
                batch = {
                    name: torch.stack([row[name] for row in rows]).to(device) for name in rows[0]
                }
                features = batch.pop("features").float()
                if "maps" in batch:
                    batch["maps"] = batch["maps"].float()
                losses = pose_losses(
                    network, features, batch,
                    teacher_share=share, samples=experiment.samples, generator=generator,
                )  # fmt: skip
                optimizer.zero_grad()
                torch.autograd.backward(weighted(losses, experiment.losses))
                nn.utils.clip_grad_norm_(heads, experiment.schedule.clip)
                optimizer.step()
                schedule.step()
                progress.update(task, advance=1, note=note(losses))
