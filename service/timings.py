"""Where a request's time went."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

STAGES: Final = ("decode_image", "detect", "queue", "encode", "head")
"""Told in answers, in the order in which they happen; one that did not take place is 0."""

ALL: Final = ("read", "decode_image", "detect", "cut", "queue", "encode", "head", "keep", "answer")
"""Told in Server-Timing, metrics and traces. They do not overlap within one photo's way."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A stage's time, monotonic seconds."""

    stage: str
    began: float
    ended: float


class Timings:
    """Stages of one request, or of one photo of it, from the moment this object is made.

    Attributes:
        began: monotonic seconds.
        intervals: in the order in which they ended.
        trace: the request's span, where spans are made.
    """

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.intervals: list[Interval] = []
        self.trace: object = None

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count what happens within."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.record(name, began, time.monotonic())

    def record(self, name: str, began: float, ended: float) -> None:
        """Count what was measured elsewhere, monotonic seconds."""
        self.intervals.append(Interval(name, began, max(began, ended)))

    def merge(self, other: Timings) -> None:
        """Count another photo of the same request."""
        self.intervals += other.intervals

    def of(self, stages: tuple[str, ...]) -> dict[str, float]:
        """Seconds of each of these stages."""
        spent = dict.fromkeys(stages, 0.0)
        for interval in self.intervals:
            if interval.stage in spent:
                spent[interval.stage] += interval.ended - interval.began
        return spent

    @property
    def seconds(self) -> dict[str, float]:
        """Per stage that answers tell."""
        return self.of(STAGES)

    @property
    def total(self) -> float:
        """Seconds until now."""
        return time.monotonic() - self.began

    def header(self) -> str:
        """Server-Timing, in milliseconds."""
        stages = {name: seconds for name, seconds in self.of(ALL).items() if seconds}
        return ", ".join(
            f"{name};dur={seconds * 1000:.1f}"
            for name, seconds in (*stages.items(), ("total", self.total))
        )
