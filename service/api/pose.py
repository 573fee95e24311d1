"""POST /pose: find people, return joints. DELETE /pose/{id}: forget what was kept."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from models.formats import coco, openpose
from models.predictor import Person
from service.api.answers import kept_photo, photo_body
from service.api.body import REQUEST_BODY, advising, declared_bytes, posted_images
from service.api.dependencies import AppState, Authorised, authorised, no_query
from service.api.errors import problem_body, problem_responses
from service.api.lean import LeanRoute
from service.api.negotiation import MEDIA_TYPES, accept_of, negotiate
from service.api.parameters import PoseFormat, PoseQuery
from service.api.patience import deadline_of, until, while_connected
from service.api.schemas import PoseBody, PoseResults, ProblemBody
from service.api.tasks import check_count, pose_task
from service.features import KeptPhoto
from service.gate import work_of
from service.line import Visit
from service.photo import SeenPhoto, Task
from service.pipeline import Forecast
from service.problems import (
    AnswerTooLarge,
    BadMultipart,
    BodyTooLarge,
    ClientLimit,
    DeadlineExceeded,
    Draining,
    EngineFailed,
    InvalidParameter,
    NotAcceptable,
    Overloaded,
    Problem,
    RetryLater,
    SlowBody,
    Starting,
    TooManyPixels,
    Unauthorized,
    UnknownDetector,
    UnknownHost,
    UnknownModel,
    UnreadableImage,
    UnsupportedImage,
)
from service.state import Loaded, State
from service.timings import Timings

_JSON = MEDIA_TYPES["json"]

_FEW = 4
"""People whose answer is made sooner than another thread would begin with it."""

router = APIRouter(tags=["pose"], route_class=LeanRoute)
forget_router = APIRouter(tags=["pose"])

PHOTO_PROBLEMS = (
    UnreadableImage, BadMultipart, Unauthorized, UnknownModel, UnknownDetector, NotAcceptable,
    SlowBody, BodyTooLarge, TooManyPixels, UnsupportedImage, UnknownHost, InvalidParameter,
    AnswerTooLarge, ClientLimit, EngineFailed, Overloaded, Starting, Draining, DeadlineExceeded,
)  # fmt: skip
"""What can go wrong wherever a photo is posted."""


@router.post(
    "/pose",
    response_class=Response,
    openapi_extra={"requestBody": REQUEST_BODY},
    responses={
        200: {
            "description": "People and their joints. `results` where several images were posted; "
            "`coco` and `openpose` have those formats' own JSON.",
            "model": PoseBody | PoseResults,
            "content": {"image/png": {}},
        },
        **problem_responses(*PHOTO_PROBLEMS),
    },
)
async def post_pose(
    request: Request, query: Annotated[PoseQuery, Query()], caller: Authorised, state: AppState
) -> Response:
    """Find people in one or several photos and return their joints."""
    kind: PoseFormat = negotiate(query.format, accept_of(request), ("json", "png"))
    deadline = deadline_of(request, query.deadline_ms, state.settings)
    timings: Timings = request.state.timings
    declared = declared_bytes(request.headers.get("content-length", ""))
    with state.gate.enter(deadline, timings, work_of(declared)) as place:
        loaded = state.loaded
        # Before the body is read: what goes together, and whether there is time at all.
        task = pose_task(query, loaded.catalog, kind, answer_bytes=state.settings.answer_bytes)
        each = loaded.pipeline.forecast(task)
        seconds = sum(each)
        with state.scheduler.admit(deadline, seconds) as visit:
            async with until(deadline):
                with timings.stage("read"):
                    images = await posted_images(request)
                state.gate.arrived(place)
                check_count(task, kind, len(images))
                state.scheduler.promise(visit, seconds * len(images))
                call = _Call(
                    state, loaded, caller.owner, query, kind, task, each, visit,
                    timings, request.state.request_id,
                )  # fmt: skip
                with advising(request):
                    return await while_connected(request, call.answer(images))


@forget_router.delete(
    "/pose/{id}",
    status_code=204,
    response_class=Response,
    dependencies=[Depends(authorised), Depends(no_query)],
    responses=problem_responses(
        Unauthorized, UnknownHost, InvalidParameter, ClientLimit, Overloaded
    ),
)
async def delete_pose(
    id: str,  # noqa: A002
    caller: Authorised,
    state: AppState,
) -> Response:
    """Forget what was kept of a photo, now."""
    await state.store.forget(id, caller.owner)
    return Response(status_code=204)


@dataclass(frozen=True, slots=True)
class _Call:
    """One request's work, once its body is here."""

    state: State
    loaded: Loaded
    owner: str
    query: PoseQuery
    kind: str
    task: Task
    promised: Forecast
    visit: Visit
    timings: Timings
    request_id: str

    async def answer(self, images: Sequence[bytes]) -> Response:
        """In the format that was asked for."""
        if len(images) > 1:
            results = PoseResults(results=await self._each(images))
            return Response(results.model_dump_json(exclude_unset=True), media_type=_JSON)
        (data,) = images
        if self.kind == "json":
            body = await self._one(data, self.timings)
            with self.timings.stage("answer"):
                return Response(body.model_dump_json(exclude_unset=True), media_type=_JSON)
        photo = await self._see(data, self.timings)
        with self.timings.stage("answer"):
            content = photo.picture or await self.loaded.pipeline.background(self._render, photo)
        return Response(content, media_type=MEDIA_TYPES[self.kind])

    async def _each(self, images: Sequence[bytes]) -> list[PoseBody | ProblemBody]:
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._result(data)) for data in images]
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return [task.result() for task in tasks]

    async def _result(self, data: bytes) -> PoseBody | ProblemBody:
        """One of several photos: its own problem stands in its place, the others still answer."""
        timings = Timings()
        timings.trace = self.timings.trace
        try:
            return await self._one(data, timings)
        except (RetryLater, DeadlineExceeded):
            raise
        except Problem as problem:
            return ProblemBody.model_validate(problem_body(problem, self.request_id))
        finally:
            self.timings.merge(timings)

    async def _one(self, data: bytes, timings: Timings) -> PoseBody:
        photo = await self._see(data, timings)
        with timings.stage("answer"):
            # A GPU hands over what is kept only between its batches.
            waits = self.query.keep and self.task.model.engine.device != "cpu"
            if len(photo.people) <= _FEW and not waits:
                body, kept = self._prepared(photo, timings)
            else:
                body, kept = await self.loaded.pipeline.background(self._prepared, photo, timings)
        if kept is None:
            return body
        with timings.stage("keep"):
            entry = await self.state.store.keep(kept, self.owner)
        if entry is None:
            return body
        return body.model_copy(update={"id": entry.id, "expires": entry.expires_at})

    def _prepared(self, photo: SeenPhoto, timings: Timings) -> tuple[PoseBody, KeptPhoto | None]:
        kept = kept_photo(photo, self.task) if self.query.keep else None
        return photo_body(photo, self.task, self.query.image_id, timings, self.request_id), kept

    async def _see(self, data: bytes, timings: Timings) -> SeenPhoto:
        photo = await self.loaded.pipeline.see(data, self.task, self.promised, self.visit, timings)
        self.state.metrics.photo(self.task.model.name, len(photo.people))
        return photo

    def _render(self, photo: SeenPhoto) -> bytes:
        people = [person.result for person in photo.people if isinstance(person.result, Person)]
        if self.kind == "coco":
            return json.dumps(coco(people, image_id=self.query.image_id)).encode()
        return json.dumps(openpose(people, self.task.model.keypoints)).encode()
