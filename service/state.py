"""Everything that one application holds, and how it comes and goes."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TypeVar

from models.cores import available_cores
from service.catalog import WHOLE, Catalog
from service.clients import ClientBuckets
from service.features import FeatureStore
from service.gate import Gate
from service.kept import Kept
from service.line import Batch
from service.metrics import Metrics
from service.model_lanes import (
    DetectorLane,
    ModelLanes,
    detector_lane,
    warm_up,
    warm_up_detector,
)
from service.pipeline import Pipeline
from service.problems import Starting
from service.scheduler import Scheduler
from service.settings import Settings
from service.shared import SharedPhotos
from service.tracing import Tracing

R = TypeVar("R")

_WATCH_S = 1.0
"""Between two looks at the device and at what is kept."""

_MOST_AT_ONCE = 4
"""Batches on a CPU, however many cores it has: each has more of them then."""

_HURRY_S = 1.0
"""For what runs, where nobody waits for it any more."""

_FOR_GOOD = 2
"""Once it has been stuck for so many times what fails /healthz, it is not coming back."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What is there once the weights are."""

    catalog: Catalog
    pipeline: Pipeline


@dataclass(eq=False)
class State:
    """One application's own; two applications in one process share nothing.

    Attributes:
        settings: as given.
        load: makes the catalog; slow.
    """

    settings: Settings
    load: Callable[[Settings], Catalog]
    metrics: Metrics = field(default_factory=Metrics, init=False)
    gate: Gate = field(init=False)
    clients: ClientBuckets = field(init=False)
    store: Kept = field(init=False)
    scheduler: Scheduler = field(init=False)
    tracing: Tracing | None = field(default=None, init=False)
    _loaded: Loaded | None = field(default=None, init=False)
    _leave_by: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        settings, metrics = self.settings, self.metrics
        if settings.otlp_url:
            self.tracing = Tracing.to(settings.otlp_url)
        self.scheduler = Scheduler(settings.queue_crops, on_batch=self._on_batch)
        self.gate = Gate(settings.requests, lambda: self.scheduler.turn_in_s)
        self.clients = ClientBuckets(settings.client_limit, time.monotonic)
        own = FeatureStore(settings.keep_bytes, settings.keep_seconds)
        shared = None
        if settings.features_url is not None:
            url, limit_s = settings.features_url.get_secret_value(), settings.features_ms / 1000
            shared = SharedPhotos(url, limit_s, count=metrics.shared)
        self.store = Kept(own, shared, newest=settings.latest)
        metrics.watch(
            waiting=lambda: self.scheduler.waiting,
            inside=lambda: self.gate.inside,
            kept_bytes=lambda: own.nbytes,
            kept_photos=lambda: len(own),
            evicted=lambda: own.evicted,
        )

    def _on_batch(self, batch: Batch, seconds: float) -> None:
        name, items = batch.lane.name, len(batch.items)
        self.metrics.batch(name, items, seconds)
        if self.tracing:
            visits = dict.fromkeys(ticket.visit for ticket, _ in batch.items)
            self.tracing.batch(name, items, seconds, [visit.trace for visit in visits])

    @property
    def loaded(self) -> Loaded:
        """Catalog and pipeline.

        Raises:
            Starting: not yet.
        """
        if self._loaded is None:
            raise Starting
        return self._loaded

    @property
    def alive(self) -> bool:
        """Whether the device answers, or may soon."""
        return not self.scheduler.device.stuck(self.settings.stall_seconds)

    async def watch(self) -> None:
        """Drop what has expired, now and then.

        Return once the device is dead for good: only a new process can help.
        """
        while not self.scheduler.device.stuck(_FOR_GOOD * self.settings.stall_seconds):
            self.store.own.expire()
            await asyncio.sleep(_WATCH_S)

    async def open(self) -> None:
        """Load the weights, warm up, become ready."""
        catalog, models, detectors = await _in_thread(self._load)
        on_cpu = all(model.engine.device == "cpu" for model in catalog.models.values())
        if on_cpu:
            # One more than cores: each waits now and then, for its threads or for the interpreter.
            at_once = min(self.settings.threads or available_cores() + 1, _MOST_AT_ONCE)
            self.scheduler.device.start(at_once=at_once)
        else:
            self.scheduler.device.start(ahead=True)
        self.store.weights = {name: model.bundle.digest for name, model in catalog.models.items()}
        pipeline = Pipeline(self.settings, self.scheduler, models, detectors, alone=not on_cpu)
        self._loaded = Loaded(catalog, pipeline)
        if self.gate.state == "starting":  # it may have been told to leave meanwhile
            self.gate.state = "ready"

    def _load(self) -> tuple[Catalog, dict[str, ModelLanes], dict[str, DetectorLane]]:
        catalog = self.load(self.settings)
        models, detectors = {}, {}
        for name, model in catalog.models.items():
            count = self.metrics.crops.labels(name).inc
            models[name] = ModelLanes.of(model, count, self.scheduler.device.pause)
            warm_up(model, models[name])
            self.metrics.engine.labels(name, model.engine.name, model.engine.device).set(1)
        for name, served in catalog.detectors.items():
            if name != WHOLE:
                detectors[name] = detector_lane(served)
                warm_up_detector(detectors[name])
        return catalog, models, detectors

    def leave(self) -> None:
        """Let nobody in any more. From now on those inside have `drain_seconds`."""
        self.gate.state = "closed"
        self._leave_by = time.monotonic() + self.settings.drain_seconds

    async def close(self) -> None:
        """End threads. By now everybody has been answered: what they still run is in vain."""
        if self.gate.state != "closed":  # not told to leave in order, but by Ctrl-C
            self.gate.state, self._leave_by = "closed", time.monotonic() + _HURRY_S
        if self._loaded is not None:
            patience = max(0.0, self._leave_by - time.monotonic()) if self.alive else 0.0
            await asyncio.to_thread(self.scheduler.close, patience)
            self._loaded.pipeline.close()
        await self.store.close()
        if self.tracing:
            await asyncio.to_thread(self.tracing.close)


async def _in_thread(work: Callable[[], R]) -> R:
    """Do long work in a thread that the process does not wait for at its end, as of a pool's."""
    future: Future[R] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    future.set_running_or_notify_cancel()
    threading.Thread(target=run, daemon=True).start()
    return await asyncio.wrap_future(future)
