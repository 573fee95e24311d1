"""What Prometheus is told. A registry per application; labels are never a caller's words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """Counters, gauges and histograms of one application."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        shared: Any = {"namespace": "subpose", "registry": self.registry}
        self.requests = Counter(
            "requests_total", "Answers.", ["method", "route", "status"], **shared
        )
        self.request_seconds = Histogram(
            "request_seconds",
            "From headers to the last byte.",
            ["route"],
            buckets=_SECONDS,
            **shared,
        )
        self.problems = Counter("problems_total", "Answers that are errors.", ["code"], **shared)
        self.stage_seconds = Histogram(
            "stage_seconds", "Of one photo.", ["stage"], buckets=_SECONDS, **shared
        )
        self.people = Counter("people_total", "People answered.", ["model"], **shared)
        self.batch_items = Histogram(
            "batch_items", "Items a batch.", ["lane"], buckets=(1, 2, 4, 8, 16, 32, 64), **shared
        )
        self.batch_seconds = Histogram(
            "batch_seconds", "On the device.", ["lane"], buckets=_SECONDS, **shared
        )
        self.crops = Counter("encoded_crops_total", "Encoder passes.", ["model"], **shared)
        self._waiting = Gauge("queue_items", "Items that wait for the device.", **shared)
        self._inside = Gauge("requests_in_work", "Requests let in.", **shared)
        self._kept_bytes = Gauge("kept_bytes", "Of kept features.", **shared)
        self._kept_photos = Gauge("kept_photos", "Photos whose features are kept.", **shared)
        self._evicted = Gauge("kept_evicted", "Kept photos dropped to make room.", **shared)
        self._shared = Counter(
            "shared_store_total", "Calls of the shared store.", ["operation", "outcome"], **shared
        )
        self.engine = Gauge(
            "engine_info", "What the models run on.", ["model", "engine", "device"], **shared
        )

    def watch(
        self,
        *,
        waiting: Callable[[], float],
        inside: Callable[[], float],
        kept_bytes: Callable[[], float],
        kept_photos: Callable[[], float],
        evicted: Callable[[], float],
    ) -> None:
        """Read these whenever the metrics are asked for."""
        self._waiting.set_function(waiting)
        self._inside.set_function(inside)
        self._kept_bytes.set_function(kept_bytes)
        self._kept_photos.set_function(kept_photos)
        self._evicted.set_function(evicted)

    def batch(self, lane: str, items: int, seconds: float) -> None:
        """Count one batch of the device."""
        self.batch_items.labels(lane).observe(items)
        self.batch_seconds.labels(lane).observe(seconds)

    def shared(self, operation: str, outcome: str) -> None:
        """Count one call of the shared store."""
        self._shared.labels(operation, outcome).inc()

    def photo(self, model: str, people: int, seconds: Mapping[str, float]) -> None:
        """Count one photo: who was found, and the seconds of each stage."""
        self.people.labels(model).inc(people)
        for stage, spent in seconds.items():
            self.stage_seconds.labels(stage).observe(spent)

    def text(self) -> bytes:
        """In Prometheus' format."""
        return generate_latest(self.registry)
