"""What a run shows while it goes."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

console = Console(stderr=True)


def note(losses: dict[str, Tensor]) -> str:
    """The losses in a line."""
    return " ".join(f"{name} {float(loss.detach()):.4g}" for name, loss in losses.items())


def progress_bar() -> Progress:
    """A bar, the steps, the time left, and the last note."""
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"), console=console,
    )  # fmt: skip
