"""A run's `log.csv`: its losses, step by step."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.files import write_whole
from models.networks.pose import HEADS
from training.errors import DataError

COLUMNS = ("step", "seconds")
"""Before the losses; `seconds` starts anew where a run resumes."""


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
