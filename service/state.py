"""Everything that one application holds, and how it comes and goes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from service.catalog import Catalog
from service.features import FeatureStore
from service.gate import ClientBuckets, Gate
from service.kept import Kept
from service.metrics import Metrics
from service.pipeline import Pipeline
from service.problems import Starting
from service.scheduler import Scheduler
from service.settings import Settings
from service.shared import SharedPhotos
from service.work import ModelLanes, warm_up


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
    _loaded: Loaded | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        settings, metrics = self.settings, self.metrics
        self.gate = Gate(settings.requests, time.monotonic)
        self.clients = ClientBuckets(settings.client_limit, time.monotonic)
        own = FeatureStore(settings.keep_bytes, settings.keep_seconds)
        shared = None
        if settings.features_url is not None:
            url, limit_s = settings.features_url.get_secret_value(), settings.features_ms / 1000
            shared = SharedPhotos(url, limit_s, count=metrics.shared)
        self.store = Kept(own, shared, newest=settings.latest)
        self.scheduler = Scheduler(settings.queue_crops, on_batch=metrics.batch)
        metrics.watch(
            waiting=lambda: self.scheduler.waiting,
            inside=lambda: self.gate.inside,
            kept_bytes=lambda: own.nbytes,
            kept_photos=lambda: len(own),
            evicted=lambda: own.evicted,
        )

    @property
    def loaded(self) -> Loaded:
        """Catalog and pipeline.

        Raises:
            Starting: not yet.
        """
        if self._loaded is None:
            raise Starting("weights are being loaded; try again in a moment")
        return self._loaded

    def silence(self) -> float:
        """Seconds since the device came back; none before it is used."""
        return 0.0 if self._loaded is None else self.scheduler.silence()

    async def open(self) -> None:
        """Load the weights, warm up, become ready."""
        catalog = await asyncio.to_thread(self.load, self.settings)
        lanes = {}
        for name, model in catalog.models.items():
            count = self.metrics.crops.labels(name).inc
            lanes[name] = ModelLanes.of(model, count, self.scheduler.check)
            await asyncio.to_thread(warm_up, model, lanes[name])
            self.metrics.engine.labels(name, model.engine.name, model.engine.device).set(1)
        self.store.weights = {name: model.bundle.digest for name, model in catalog.models.items()}
        self.scheduler.start()
        self._loaded = Loaded(catalog, Pipeline(self.settings, self.scheduler, lanes))
        self.gate.state = "ready"

    async def close(self) -> None:
        """Run what was accepted, then end threads."""
        self.gate.state = "closed"
        if self._loaded is not None:
            await asyncio.to_thread(self.scheduler.close)
            self._loaded.pipeline.close()
        await self.store.close()
