"""Whether the process is alive, whether it takes work, and what it has counted.

Unlike elsewhere unknown parameters are ignored here: probes add some to get past caches.
"""

from __future__ import annotations

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST

from service.api.dependencies import AppState
from service.api.errors import problem_responses
from service.api.lean import ProbeRoute
from service.api.schemas import Health
from service.problems import (
    ClientLimit,
    Draining,
    EngineFailed,
    Starting,
    Unauthorized,
    UnknownHost,
)

router = APIRouter(tags=["operations"], route_class=ProbeRoute)
metrics_router = APIRouter(tags=["operations"])


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz", responses=problem_responses(EngineFailed))
async def healthz(state: AppState) -> Health:
    """The process is alive, and so is the thread that owns the device."""
    if not state.alive:
        raise EngineFailed("the device has not come back for too long; restart the server")
    return Health(status="alive")


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", responses=problem_responses(Starting, Draining))
async def readyz(state: AppState) -> Health:
    """Warm and accepting."""
    state.gate.check_ready()
    return Health(status="ready")


@metrics_router.get(
    "/metrics",
    response_class=Response,
    responses={
        200: {"description": "Prometheus text.", "content": {CONTENT_TYPE_LATEST: {}}},
        **problem_responses(Unauthorized, UnknownHost, ClientLimit),
    },
)
async def metrics(state: AppState) -> Response:
    """Prometheus text."""
    return Response(state.metrics.text(), media_type=CONTENT_TYPE_LATEST)
