"""Where a request's time went."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

STAGES: Final = ("decode_image", "detect", "queue", "encode", "head")
"""In the order in which they happen; a stage that did not take place is 0."""


class Timings:
    """Seconds per stage of one photo, from the moment this object is made."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self._seconds = dict.fromkeys(STAGES, 0.0)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count what happens within."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.add(name, time.monotonic() - began)

    def add(self, name: str, seconds: float) -> None:
        """Count seconds measured elsewhere."""
        self._seconds[name] += seconds

    def merge(self, other: Timings) -> None:
        """Count another photo of the same request."""
        for name, seconds in other.seconds.items():
            self.add(name, seconds)

    @property
    def seconds(self) -> dict[str, float]:
        """Per stage."""
        return dict(self._seconds)

    @property
    def total(self) -> float:
        """Seconds until now."""
        return time.monotonic() - self.began

    def header(self) -> str:
        """Server-Timing, in milliseconds."""
        stages = {name: seconds for name, seconds in self._seconds.items() if seconds}
        return ", ".join(
            f"{name};dur={seconds * 1000:.1f}"
            for name, seconds in (*stages.items(), ("total", self.total))
        )
