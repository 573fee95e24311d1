"""Which examples a step sees, and which process of several sees them."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch.utils.data import ConcatDataset, DataLoader, Dataset, WeightedRandomSampler

from training.config import Experiment
from training.data.examples import Examples, set_epoch
from training.losses import Batch


def rank() -> int:
    """Of this process among those that train together."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """How many train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def batches(experiment: Experiment, data: ConcatDataset[Batch], step: int) -> Iterator[Batch]:
    """Without end, this process's share of each step's batch, in `schedule.parts` parts.

    The order depends on the seed and the step alone, so that a run which resumes in the middle of
    an epoch sees what it would have seen.

    Args:
        experiment: for its schedule and the weights of its sets.
        data: its sets.
        step: to begin at.
    """
    schedule = experiment.schedule
    size, parts = schedule.batch, schedule.parts
    per_epoch = len(data) // size
    weights = [
        source.weight / len(_examples(part))
        for source, part in zip(experiment.train, data.datasets, strict=True)
        for _ in range(len(_examples(part)))
    ]
    mixed = len(experiment.train) > 1
    epoch, skip = divmod(step, per_epoch)
    while True:
        set_epoch(data, epoch)
        generator = torch.Generator().manual_seed(experiment.seed + epoch)
        if mixed:
            sampler = WeightedRandomSampler(weights, len(data), generator=generator)
            order = list(sampler)
        else:
            order = torch.randperm(len(data), generator=generator).tolist()
        draws = range(len(order))
        own = [draws[i * size : (i + 1) * size][rank() :: world()] for i in range(skip, per_epoch)]
        yield from DataLoader(
            _Draws(data, order),
            batch_sampler=[list(batch[part::parts]) for batch in own for part in range(parts)],
            num_workers=experiment.workers,
            prefetch_factor=4 if experiment.workers else None,
        )
        epoch, skip = epoch + 1, 0


class _Draws(Dataset[Batch]):
    """An epoch's examples by their draws: who is drawn again is seen in another crop."""

    def __init__(self, data: ConcatDataset[Batch], order: list[int]) -> None:
        self.data = data
        count: Counter[int] = Counter()
        self.draws = []
        for index in order:
            self.draws.append((index, count[index]))
            count[index] += 1

    def __getitem__(self, draw: int) -> Batch:
        index, before = self.draws[draw]
        part = _examples(self.data.datasets[bisect_right(self.data.cumulative_sizes, index)])
        return part.drawn(index - part.first, before)


def _examples(part: Dataset[Batch]) -> Examples:
    assert isinstance(part, Examples)
    return part
