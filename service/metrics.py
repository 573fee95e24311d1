"""What Prometheus is told. A registry per application; labels are never a caller's words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from service.problems import Problem
from service.timings import ALL, Timings

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class _Evicted(Collector):
    """A counter that somebody else keeps."""

    def __init__(self, count: Callable[[], float]) -> None:
        self._count = count

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Its value now."""
        about = "Kept photos dropped to make room."
        yield CounterMetricFamily("subpose_kept_evicted", about, value=self._count())


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
            "From headers to the last byte; refusals at the door are counted, not timed.",
            ["route"],
            buckets=_SECONDS,
            **shared,
        )
        self.problems = Counter("problems_total", "Answers that are errors.", ["code"], **shared)
        self.stage_seconds = Histogram(
            "stage_seconds",
            "Of one request: its stages add up to it, `rest` is what none of them counts.",
            ["route", "stage"],
            buckets=_SECONDS,
            **shared,
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
        self._shared = Counter(
            "shared_store_total", "Calls of the shared store.", ["operation", "outcome"], **shared
        )
        self.engine = Gauge(
            "engine_info", "What the models run on.", ["model", "engine", "device"], **shared
        )
        # Of every request, and there are few: looking a child up by its labels costs more than
        # counting with it.
        self._answered = cache(self.requests.labels)
        self._lasted = cache(self.request_seconds.labels)
        self._stage = cache(self.stage_seconds.labels)
        self._problem = cache(self.problems.labels)

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
        self.registry.register(_Evicted(evicted))

    def batch(self, lane: str, items: int, seconds: float) -> None:
        """Count one batch of the device."""
        self.batch_items.labels(lane).observe(items)
        self.batch_seconds.labels(lane).observe(seconds)

    def shared(self, operation: str, outcome: str) -> None:
        """Count one call of the shared store."""
        self._shared.labels(operation, outcome).inc()

    def photo(self, model: str, people: int) -> None:
        """Count one photo: who was found."""
        self.people.labels(model).inc(people)

    def request(
        self, method: str, route: str, status: int, timings: Timings, problem: str | None = None
    ) -> None:
        """Count one request, and the seconds of each stage that took place."""
        self._count(method, route, status, problem)
        total, spent = timings.total, timings.of(ALL)
        self._lasted(route).observe(total)
        for stage, seconds in spent.items():
            if seconds:
                self._stage(route, stage).observe(seconds)
        if any(spent.values()):
            self._stage(route, "rest").observe(max(0, total - sum(spent.values())))

    def turned_away(self, method: str, route: str, problem: Problem) -> None:
        """Count one request that was answered before it was one."""
        self._count(method, route, problem.status, problem.code)

    def _count(self, method: str, route: str, status: int, problem: str | None) -> None:
        self._answered(method, route, status).inc()
        if problem:
            self._problem(problem).inc()

    def text(self) -> bytes:
        """In Prometheus' format."""
        return generate_latest(self.registry)
