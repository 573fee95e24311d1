"""A run's `log.csv`: its losses, step by step."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO, TypeAlias

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

AP = "ap_"
"""Before a head's name: its AP on dev, empty where it was not taken."""


Log: TypeAlias = dict[str, NDArray[np.float64]]
"""Its columns, in order of the steps."""


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
            columns = (*experiment.shape.heads, *validation_columns(experiment))
            self._columns = begin_log(path, step, columns)
            self._file = path.open("a", newline="")
            # Events after the checkpoint, which are taken again, are hidden from then on.
            self._board = SummaryWriter(str(experiment.folder / "events"), purge_step=step + 1)

    def write(
        self,
        step: int,
        seconds: float,
        losses: dict[str, Tensor],
        speed: float,
        validated: dict[str, float],
    ) -> None:
        """One step's losses by head, and AP on dev by head where it was taken."""
        if self._file is None or self._board is None:
            return
        values = {name: float(loss) for name, loss in losses.items()}
        columns = values | {f"{AP}{name}": value for name, value in validated.items()}
        row = [f"{columns[name]:.6f}" if name in columns else "" for name in self._columns]
        csv.writer(self._file).writerow([step, f"{seconds:.1f}", *row])
        for name, value in values.items():
            self._board.add_scalar(f"loss/{name}", value, step)
        for name, value in validated.items():
            self._board.add_scalar(f"dev AP/{name}", value, step)
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


def validation_columns(experiment: Experiment) -> tuple[str, ...]:
    """Of a run that is validated while it goes."""
    heads = experiment.shape.heads if experiment.schedule.validate_every else ()
    return tuple(f"{AP}{head}" for head in heads)


def begin_log(log: Path, step: int, columns: Sequence[str] = HEADS) -> tuple[str, ...]:
    """Make a log end with a step: what a run wrote after its last checkpoint is taken again.

    Args:
        log: `log.csv` of the run; made where there is none.
        step: of the checkpoint that the run goes on from, 0 for none.
        columns: beside step and seconds; those that are new are empty in the steps before.

    Returns:
        The columns that each line has from now on: those that were there, then the new ones.
    """
    before: list[str] = []
    kept: list[list[str]] = []
    if step and log.exists():
        with log.open(newline="") as file:
            before, *lines = list(csv.reader(file)) or [[]]
        # A line that was cut off comes after the checkpoint, whose writing flushed the log.
        kept = [line for line in lines if line and line[0].isdigit() and int(line[0]) <= step]
    header = list(dict.fromkeys((*(before or COLUMNS), *columns)))
    rows = [header, *(line + [""] * (len(header) - len(line)) for line in kept)]
    write_whole(log, "".join(",".join(line) + "\n" for line in rows))
    return tuple(header[len(COLUMNS) :])


def read_log(log: Path) -> Log:
    """A run's losses by step; a last line that was cut off does not count.

    Args:
        log: `log.csv` of the run.

    Returns:
        Its columns, in order of the steps; nan where a value was not taken.

    Raises:
        DataError: it has no whole line.
    """
    with log.open(newline="") as file:
        reader = csv.DictReader(file)
        names = list(reader.fieldnames or ())
        steps: dict[int, list[float]] = {}
        for line in reader:
            try:
                values = [math.nan if line[name] == "" else float(line[name]) for name in names]
            except (TypeError, ValueError):
                continue
            steps[int(float(line["step"]))] = values
    if not steps:
        raise DataError(f"{log} has no whole line")
    columns = np.array([steps[step] for step in sorted(steps)]).T
    return dict(zip(names, columns, strict=True))


def training_seconds(log: Log) -> float:
    """How long the steps took."""
    spent = np.diff(log["seconds"], prepend=0.0)
    return float(np.where(spent < 0, log["seconds"], spent).sum())
