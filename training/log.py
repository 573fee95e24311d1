"""A run's `log.csv`: its losses, step by step."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from models.files import write_whole
from models.networks.pose import HEADS
from training.config import Experiment
from training.errors import DataError
from training.order import rank

COLUMNS = ("step", "seconds")
"""Before the losses; `seconds` starts anew where a run resumes."""


class RunLog:
    """A run's losses as they come: `log.csv`, and events for TensorBoard beside it.

    Only the first of several processes writes.
    """

    def __init__(self, experiment: Experiment, step: int) -> None:
        """Go on from the checkpoint of a step, 0 for none."""
        self._file: TextIO | None = None
        self._board: SummaryWriter | None = None
        if rank() == 0:
            path = experiment.folder / "log.csv"
            begin_log(path, step, experiment.shape.heads)
            self._file = path.open("a", newline="")
            # Events after the checkpoint, which are taken again, are hidden from then on.
            self._board = SummaryWriter(str(experiment.folder / "events"), purge_step=step + 1)

    def write(self, step: int, seconds: float, losses: dict[str, Tensor], speed: float) -> None:
        """One step's."""
        if self._file is None or self._board is None:
            return
        values = {name: float(loss) for name, loss in losses.items()}
        row = [step, f"{seconds:.1f}", *(f"{value:.6f}" for value in values.values())]
        csv.writer(self._file).writerow(row)
        for name, value in values.items():
            self._board.add_scalar(f"loss/{name}", value, step)
        self._board.add_scalar("crops a second", speed, step)

    def flush(self) -> None:
        """Before a checkpoint: what it counts on is on the disk."""
        if self._file is not None and self._board is not None:
            self._file.flush()
            self._board.flush()

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *error: object) -> None:
        if self._file is not None and self._board is not None:
            self._file.close()
            self._board.close()


def begin_log(log: Path, step: int, heads: Sequence[str] = HEADS) -> None:
    """Make a log end with a step: what a run wrote after its last checkpoint is taken again.

    Args:
        log: `log.csv` of the run; made where there is none.
        step: of the checkpoint that the run goes on from, 0 for none.
        heads: whose losses it has.
    """
    lines = log.read_text().splitlines()[1:] if log.exists() and step else []
    # A line that was cut off comes after the checkpoint, whose writing flushed the log.
    numbered = [line for line in lines if line.split(",")[0].isdigit()]
    kept = [line for line in numbered if int(line.split(",")[0]) <= step]
    write_whole(log, "".join(f"{line}\n" for line in (",".join((*COLUMNS, *heads)), *kept)))


def read_log(log: Path) -> dict[str, NDArray[np.float64]]:
    """A run's losses by step; a last line that was cut off does not count.

    Args:
        log: `log.csv` of the run.

    Returns:
        Its columns, in order of the steps.

    Raises:
        DataError: it has no whole line.
    """
    with log.open(newline="") as file:
        reader = csv.DictReader(file)
        names = list(reader.fieldnames or ())
        steps: dict[int, list[float]] = {}
        for line in reader:
            try:
                values = [float(line[name]) for name in names]
            except (TypeError, ValueError):
                continue
            steps[int(float(line["step"]))] = values
    if not steps:
        raise DataError(f"{log} has no whole line")
    columns = np.array([steps[step] for step in sorted(steps)]).T
    return dict(zip(names, columns, strict=True))


def training_seconds(log: dict[str, NDArray[np.float64]]) -> float:
    """How long the steps took."""
    spent = np.diff(log["seconds"], prepend=0.0)
    return float(np.where(spent < 0, log["seconds"], spent).sum())
