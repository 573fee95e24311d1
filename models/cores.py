"""How much of the machine is this process's."""

from __future__ import annotations

import os
from math import ceil
from pathlib import Path


def available_cores(group: Path = Path("/sys/fs/cgroup")) -> int:
    """Cores that arithmetic may use at once: those it may run on, or its share of them if less.

    A container's share is a quota that no count of processors shows; more threads than it pays
    for only make each other wait.

    Args:
        group: the control group's folder.
    """
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = (group / "cpu.max").read_text().split()
        return cores if quota == "max" else max(1, min(cores, ceil(int(quota) / int(period))))
    except (OSError, ValueError):
        return cores
