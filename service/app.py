"""The application: what it is made of, in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import Depends, FastAPI
from fastapi.middleware.cors import CORSMiddleware
from starlette.routing import BaseRoute
from starlette.types import Lifespan

from service.api import catalog, errors, heatmap, pages, pose, probes
from service.api.dependencies import authorised
from service.api.lean import Shortcut
from service.api.middleware import BodyGuard, HostCheck, RequestContext
from service.api.parting import Parting
from service.catalog import Catalog, load_catalog
from service.settings import Settings
from service.state import State

_EXPOSED = ("Subpose-Affine", "X-Request-Id", "Server-Timing", "Retry-After")
"""Headers that pages of other origins may read, where any may call."""


def create_app(settings: Settings, load: Callable[[Settings], Catalog] = load_catalog) -> FastAPI:
    """Build the application. It answers at once and is ready when its weights are loaded.

    Args:
        settings: every knob.
        load: makes what is served.
    """
    state = State(settings, load)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.opening = asyncio.create_task(state.open())
        yield
        app.state.opening.cancel()
        await state.close()

    shortcuts = (*pose.router.routes, *heatmap.router.routes, *probes.router.routes)
    app = _bare_app(state, hosts=settings.allowed_hosts, lifespan=lifespan, shortcuts=shortcuts)
    app.include_router(pose.router)
    app.include_router(pose.forget_router)
    app.include_router(heatmap.router)
    app.include_router(catalog.router)
    app.include_router(probes.router)
    if settings.metrics_port is None:
        app.include_router(probes.metrics_router, dependencies=[Depends(authorised)])
    app.include_router(pages.router)
    return app


def create_metrics_app(app: FastAPI) -> FastAPI:
    """What `SUBPOSE_METRICS_PORT` serves: the other application's metrics and nothing else.

    Who can reach a port that has nothing but metrics is meant to: it asks for neither key nor name.
    """
    metrics_app = _bare_app(app.state.subpose, hosts=None, openapi_url=None)
    metrics_app.include_router(probes.metrics_router)
    return metrics_app


def _bare_app(
    state: State,
    *,
    hosts: frozenset[str] | None,
    openapi_url: str | None = "/openapi.json",
    lifespan: Lifespan[FastAPI] | None = None,
    shortcuts: Sequence[BaseRoute] = (),
) -> FastAPI:
    settings = state.settings
    app = FastAPI(
        title="subpose",
        summary="Human pose at sub-pixel precision.",
        version=version("subpose"),
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        openapi_url=openapi_url,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    app.state.subpose = state
    errors.install(app)
    # The last one added sees a request first.
    app.add_middleware(Shortcut, routes=shortcuts)
    app.add_middleware(
        BodyGuard,
        most=settings.body_bytes,
        most_together=settings.bodies_bytes,
        seconds=settings.body_seconds,
    )
    app.add_middleware(HostCheck, hosts=hosts)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=("GET", "POST", "DELETE"),
            allow_headers=("Authorization", "Content-Type", "If-None-Match", "X-Request-Id"),
            expose_headers=_EXPOSED,
        )
    app.add_middleware(RequestContext, metrics=state.metrics, tracing=state.tracing)
    app.add_middleware(Parting)
    return app
