"""GET /heatmap from kept features, POST /heatmap from a photo."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from models.features import Features
from models.geometry import Size
from service.api.body import REQUEST_BODY, advising, declared_bytes, posted_images
from service.api.dependencies import AppState, Authorised
from service.api.errors import problem_responses
from service.api.lean import LeanRoute
from service.api.negotiation import MEDIA_TYPES, accept_of
from service.api.parameters import GetHeatmapQuery, PostHeatmapQuery
from service.api.patience import deadline_of, until, while_connected
from service.api.pose import PHOTO_PROBLEMS
from service.api.schemas import HeatmapBody
from service.api.tasks import heatmap_task
from service.api.wish import Wish
from service.features import Entry
from service.gate import work_of
from service.heatmaps import Lattice
from service.line import Visit
from service.photo import Task
from service.pipeline import Forecast, Pipeline
from service.problems import (
    AnswerTooLarge,
    ClientLimit,
    DeadlineExceeded,
    Draining,
    EngineFailed,
    InvalidParameter,
    NotAcceptable,
    Overloaded,
    Problem,
    RetryLater,
    Starting,
    Unauthorized,
    UnknownHost,
    UnknownId,
    UnknownKeypoint,
    UnknownPerson,
)
from service.state import State
from service.timings import Timings

router = APIRouter(tags=["heatmap"], route_class=LeanRoute)

_FORWARDING = (
    "forwarded", "via", "x-real-ip", "x-client-ip", "true-client-ip", "cf-connecting-ip",
)  # fmt: skip

_ANSWER = {
    "description": "A person's heatmaps.",
    "model": HeatmapBody,
    "content": {"image/png": {}, MEDIA_TYPES["npy"]: {}},
    "headers": {
        "Subpose-Affine": {
            "description": "a,b,c,d,e,f: x = a*column + b*row + c, y = d*column + e*row + f, from "
            "sample indices to image pixels",
            "schema": {"type": "string"},
        }
    },
}


@router.get(
    "/heatmap",
    response_class=Response,
    responses={
        200: _ANSWER,
        304: {"description": "what `If-None-Match` names is still right"},
        **problem_responses(
            Unauthorized, UnknownId, UnknownPerson, UnknownKeypoint, NotAcceptable,
            UnknownHost, InvalidParameter, AnswerTooLarge, ClientLimit, EngineFailed, Overloaded,
            Starting, Draining, DeadlineExceeded,
        ),
    },
)  # fmt: skip
async def get_heatmap(
    request: Request,
    query: Annotated[GetHeatmapQuery, Query()],
    caller: Authorised,
    state: AppState,
) -> Response:
    """Heatmaps of a person posted before, from kept features: no encoder pass."""
    loaded = state.loaded
    with request.state.timings.stage("keep"):
        entry = await _entry(request, query.id, caller.owner, state)
    photo = entry.photo
    wish = Wish.of(query, loaded.catalog.model(photo.model), accept_of(request))
    person = _person(query.person, len(photo.geometries))
    geometry, features = photo.geometries[person], photo.features[person]
    wish.check_size(photo.size, state.settings.answer_bytes)
    headers = {
        "ETag": wish.etag(entry.id, person),
        "Vary": "Accept",
        "Cache-Control": _cache_control(entry, named=query.id is not None),
    }
    if _matches(request.headers.getlist("if-none-match"), headers["ETag"]):
        return Response(status_code=304, headers=headers)
    if features is None:
        raise UnknownPerson(f"the crop of person {person} failed; post the photo again")
    deadline = deadline_of(request, query.deadline_ms, state.settings)
    lattice = wish.lattice(geometry, photo.size)
    seconds = _field_seconds(loaded.pipeline, wish, photo.size)
    timings: Timings = request.state.timings
    with (
        state.gate.enter(deadline, timings) as place,
        state.scheduler.admit(deadline, seconds, here=True) as visit,
    ):
        state.gate.arrived(place)
        async with until(deadline):
            work = _answer(loaded.pipeline, wish, features, lattice, visit, timings)
            answer = await while_connected(request, work)
    answer.headers.update(headers)
    return answer


@router.post(
    "/heatmap",
    response_class=Response,
    openapi_extra={"requestBody": REQUEST_BODY},
    responses={
        200: _ANSWER,
        **problem_responses(*PHOTO_PROBLEMS, UnknownPerson, UnknownKeypoint),
    },
)
async def post_heatmap(
    request: Request,
    query: Annotated[PostHeatmapQuery, Query()],
    caller: Authorised,
    state: AppState,
) -> Response:
    """A photo in, a person's heatmaps out."""
    deadline = deadline_of(request, query.deadline_ms, state.settings)
    timings: Timings = request.state.timings
    declared = declared_bytes(request.headers.get("content-length", ""))
    with state.gate.enter(deadline, timings, work_of(declared)) as place:
        loaded = state.loaded
        most = state.settings.answer_bytes
        model = loaded.catalog.model(query.model)
        wish = Wish.of(query, model, accept_of(request))
        if wish.frame == "crop":
            wish.check_size((1, 1), most)
        task = heatmap_task(query, loaded.catalog)
        people = loaded.pipeline.forecast(task)
        seconds = sum(people) + _field_seconds(loaded.pipeline, wish, None)
        with state.scheduler.admit(deadline, seconds) as visit:
            async with until(deadline):
                with timings.stage("read"):
                    images = await posted_images(request)
                state.gate.arrived(place)
                if len(images) > 1:
                    message = f"this route takes one, not {len(images)}; post them one by one"
                    raise InvalidParameter(("image", message))
                state.scheduler.promise(visit, seconds)

                def check_size(size: Size) -> None:
                    wish.check_size(size, most)
                    field_s = _field_seconds(loaded.pipeline, wish, size)
                    state.scheduler.promise(visit, sum(people) + field_s)

                task = replace(task, check_size=check_size)
                # Of the caller's own boxes the task holds only the one that is asked for.
                number = query.person if query.boxes is None else 0
                data = images[0]
                work = _post(
                    state, loaded.pipeline, data, task, people, wish, number, visit, request
                )
                with advising(request):
                    return await while_connected(request, work)


async def _post(
    state: State,
    pipeline: Pipeline,
    data: bytes,
    task: Task,
    promised: Forecast,
    wish: Wish,
    number: int,
    visit: Visit,
    request: Request,
) -> Response:
    timings: Timings = request.state.timings
    photo = await pipeline.see(data, task, promised, visit, timings)
    state.metrics.photo(task.model.name, len(photo.people))
    person = photo.people[_person(number, len(photo.people))]
    if isinstance(person.result, RetryLater):
        raise person.result
    if isinstance(person.result, Problem) or person.features is None:
        raise EngineFailed(f"the crop of person {number} failed; try again")
    lattice = wish.lattice(person.geometry, (photo.width, photo.height))
    return await _answer(pipeline, wish, person.features, lattice, visit, timings)


def _field_seconds(pipeline: Pipeline, wish: Wish, image: Size | None) -> float:
    return pipeline.field_seconds(wish.model, wish.head, wish.samples(image), exact=wish.exact)


async def _answer(
    pipeline: Pipeline,
    wish: Wish,
    features: Features,
    lattice: Lattice,
    visit: Visit,
    timings: Timings,
) -> Response:
    query = wish.query(features, lattice)
    async with pipeline.room(lattice.held_bytes(len(wish.channels), wish.kind)):
        values = await pipeline.field(wish.model, query, visit, timings)
        with timings.stage("answer"):
            content = await pipeline.background(wish.render, values, lattice)
    affine = ",".join(f"{number:.10g}" for number in lattice.affine)
    return Response(content, media_type=MEDIA_TYPES[wish.kind], headers={"Subpose-Affine": affine})


async def _entry(request: Request, id: str | None, owner: str, state: State) -> Entry:  # noqa: A002
    """What is kept under the id, or the newest photo where that is allowed."""
    if id is not None:
        return await state.store.get(id, owner)
    if not state.settings.latest:
        raise InvalidParameter(("id", "needed, unless the server is started with SUBPOSE_LATEST"))
    # Through a proxy any visitor would see the photo of the one before.
    if any(name in _FORWARDING or name.startswith("x-forwarded-") for name in request.headers):
        raise InvalidParameter(("id", "needed in a request that a proxy has forwarded"))
    return await state.store.latest(owner)


def _person(number: int, people: int) -> int:
    if number >= people:
        raise UnknownPerson(
            f"person {number} of {people}" if people else "nobody was found in this photo"
        )
    return number


def _cache_control(entry: Entry, *, named: bool) -> str:
    # Without an id the next photo changes what the address means: ask again each time.
    seconds = max(0, int(entry.expires - time.time())) if named else 0
    return f"private, max-age={seconds}"


def _matches(headers: Sequence[str], etag: str) -> bool:
    tags = [tag.strip().removeprefix("W/") for header in headers for tag in header.split(",")]
    return "*" in tags or etag in tags
