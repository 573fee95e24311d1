"""One photo's way through the service: the predictor's steps, with the scheduler between them.

The event loop only waits here. Decoding and cutting run in a pool no larger than the machine,
under a budget of decoded bytes; detection and all that follows is the device's, by the scheduler.
"""

from __future__ import annotations

import asyncio
import math
import os
import sys
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, suppress
from typing import NamedTuple, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from models.cores import available_cores
from models.geometry import Box
from models.pose import PoseModel
from service.budget import ByteBudget
from service.homeward import Homeward
from service.images import PostedImage, quick
from service.lanes import Lane
from service.line import Done, Visit
from service.model_lanes import DetectorLane, ModelLanes
from service.people import Cut, cuts_of, drawn, once_each, person_of
from service.photo import MAX_PEOPLE, SeenPerson, SeenPhoto, Task
from service.problems import DeadlineExceeded, EngineFailed, Overloaded, Problem, RetryLater
from service.scheduler import Scheduler
from service.settings import Settings
from service.timings import Timings
from service.work import Crop, CropResult, FieldQuery, Image, Photo, run_photos

P = ParamSpec("P")
R = TypeVar("R")
Item = TypeVar("Item")

_LATELY = 64
"""Photos whose people tell how many the next one has, of each detector."""

_NICER = 5
"""By so much is decoding put back behind the event loop, which is then soon back to refuse."""

_BLANK: Image = np.zeros((1, 1, 3), np.uint8)
"""In place of pixels that are not there yet."""


class Forecast(NamedTuple):
    """Seconds of the device that a photo is expected to take."""

    detect_s: float
    crops_s: float


class Pipeline:
    """Decode, detect, cut, run, assemble.

    Args:
        settings: for the limits.
        scheduler: started by its owner.
        models: lanes of each model, by its name.
        detectors: the lane of each detector that has work to do, by its name.
        alone: the device takes none of the cores. Else decoding would come last on them.
    """

    def __init__(
        self,
        settings: Settings,
        scheduler: Scheduler,
        models: Mapping[str, ModelLanes],
        detectors: Mapping[str, DetectorLane],
        *,
        alone: bool,
    ) -> None:
        self._scheduler = scheduler
        self._models = models
        self._detectors = detectors
        self._most_pixels = settings.image_pixels
        self._decoded = ByteBudget(settings.decoded_bytes)
        self._most_jobs = settings.decode_jobs
        self._jobs = 0
        self._homeward = Homeward(asyncio.get_running_loop())
        begin = _yield_to_loop if alone else None
        self._images = ThreadPoolExecutor(available_cores(), "images", initializer=begin)
        self._people_lately: defaultdict[str, deque[int]] = defaultdict(
            lambda: deque([1], maxlen=_LATELY)
        )

    def close(self) -> None:
        """End the pool."""
        self._images.shutdown(cancel_futures=True)

    async def background(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run CPU work of an answer (drawing, encoding) where decoding runs."""
        return await self._homeward.result(self._images.submit(work, *args, **kwargs))

    def room(self, size: int) -> AbstractAsyncContextManager[None]:
        """Hold bytes of the budget that decoded photos have, for an answer that is as large."""
        return self._decoded.hold(size)

    def forecast(self, task: Task) -> Forecast:
        """What a photo will take, from what work cost and how many people photos had lately."""
        if task.boxes is None:
            lately = self._people_lately[task.detector.name]
            count = math.ceil(min(sum(lately) / len(lately), task.max_people))
        else:
            count = len(task.boxes)
        lane = self._detectors.get(task.detector.name) if task.boxes is None else None
        photo = Photo(_BLANK)
        crop = Crop(_BLANK, task.decoded, task.flip)
        lanes = self._models[task.model.name]
        return Forecast(
            lane.seconds([photo]) if lane else 0.0,
            lanes.of_crop(crop).seconds([crop] * count),
        )

    def field_seconds(self, model: PoseModel, head: str, samples: float, *, exact: bool) -> float:
        """What a heatmap of so many samples will take of the device."""
        return self._models[model.name].of_field(head, exact=exact).cost(samples)

    async def see(
        self, data: bytes, task: Task, promised: Forecast, visit: Visit, timings: Timings
    ) -> SeenPhoto:
        """Everything about one photo.

        Args:
            data: the file's bytes.
            task: what is wanted.
            promised: what the visit was counted on for it.
            visit: whose it is.
            timings: of this photo; written to.

        Raises:
            Problem: the photo cannot be read, the server is full, the deadline passed, or every
                crop failed.
        """
        with timings.stage("decode_image"):
            if quick(data):
                posted = PostedImage(data, self._most_pixels)
            else:
                posted = await self._decode(PostedImage, data, self._most_pixels)
        task.check_size(posted.size)
        began = time.monotonic()
        async with self._decoded.hold(posted.nbytes):
            timings.record("queue", began, time.monotonic())
            pixels, cuts = await self._cut(posted, task, promised.detect_s, visit, timings)
            height, width = pixels.shape[:2]
            if task.picture:
                people = await self._people(cuts, task, promised.crops_s, visit, timings)
                with timings.stage("answer"):
                    picture = await self.background(drawn, pixels, people, task.model)
                return SeenPhoto(width, height, people, picture)
            # What is decoded goes with the room that it was given: people may wait for long.
            del pixels, posted
        people = await self._people(cuts, task, promised.crops_s, visit, timings)
        return SeenPhoto(width, height, people, None)

    async def field(
        self, model: PoseModel, query: FieldQuery, visit: Visit, timings: Timings
    ) -> NDArray[np.float32]:
        """A heatmap of one person, (channels, rows, columns), without an encoder pass.

        Raises:
            Problem: the server is full, the deadline passed, or the engine failed.
        """
        lane = self._models[model.name].of_field(query.head, exact=query.exact)
        return await self._run_one(visit, lane, query, lane.seconds([query]), timings, "head")

    async def _cut(
        self, posted: PostedImage, task: Task, detect_s: float, visit: Visit, timings: Timings
    ) -> tuple[Image, list[Cut]]:
        """The photo's pixels, and people's crops; in one go where their boxes are known."""

        def work(boxes: Sequence[Box] | None) -> tuple[Image, list[Cut], float]:
            if time.monotonic() >= visit.deadline:
                raise DeadlineExceeded("its deadline passed before it could be decoded")
            pixels, decoded = posted.pixels(), time.monotonic()
            return pixels, cuts_of(pixels, boxes or (), task.model), decoded

        began = time.monotonic()
        pixels, cuts, decoded = await self._decode(work, task.boxes)
        returned = time.monotonic()
        if task.boxes is not None:
            timings.record("decode_image", began, decoded)
            timings.record("cut", decoded, returned)
            return pixels, cuts
        timings.record("decode_image", began, returned)
        boxes = await self._detect(pixels, task, detect_s, visit, timings)
        with timings.stage("cut"):
            return pixels, await self.background(cuts_of, pixels, boxes, task.model)

    async def _decode(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """A bounded number of photos may wait for it."""
        if self._jobs >= self._most_jobs:
            raise Overloaded(
                f"{self._jobs} photos wait to be decoded and no more may; try again later",
                retry_after=self._scheduler.turn_in_s,
            )
        self._jobs += 1
        try:
            return await self.background(work, *args, **kwargs)
        finally:
            self._jobs -= 1

    async def _detect(
        self, pixels: Image, task: Task, promised: float, visit: Visit, timings: Timings
    ) -> tuple[Box, ...]:
        photo = Photo(pixels, task.min_box_score)
        lane = self._detectors.get(task.detector.name)
        if lane is None:
            (found,) = run_photos(task.detector, [photo])
        else:
            found = await self._run_one(visit, lane, photo, promised, timings, "detect")
            people = min(len(found), MAX_PEOPLE)
            # What a caller's own threshold lets in, or limit keeps out, tells nothing of others.
            if task.min_box_score is None and people <= task.max_people:
                self._people_lately[task.detector.name].append(people)
        return found[: task.max_people]

    async def _people(
        self, cuts: Sequence[Cut], task: Task, promised: float, visit: Visit, timings: Timings
    ) -> tuple[SeenPerson, ...]:
        """Crops to people.

        Raises:
            Problem: every one failed; that one where it passes with time and is the same of all.
        """
        if not cuts:
            return ()
        heads = task.decoded
        items = [Crop(cut.crop, heads, task.flip) for cut in cuts]
        lane = self._models[task.model.name].of_crop(items[0])
        done = await self._run(visit, lane, items, promised, timings)
        _record_crops(done, timings)
        people = [person_of(cut, result) for cut, result in zip(cuts, done.results, strict=True)]
        problems = [result for result in done.results if isinstance(result, Problem)]
        if len(problems) == len(people):
            if isinstance(problems[0], RetryLater) and len({*map(type, problems)}) == 1:
                raise problems[0]
            raise EngineFailed(f"none of {len(people)} people could be worked on; try again")
        return tuple(people if task.boxes is not None else once_each(people, task))

    async def _run_one(
        self,
        visit: Visit,
        lane: Lane[Item, R],
        item: Item,
        promised: float,
        timings: Timings,
        stage: str,
    ) -> R:
        """A lone item's result; its time on the device is the stage's."""
        done = await self._run(visit, lane, [item], promised, timings)
        timings.record(stage, (now := time.monotonic()) - done.on_device_s, now)
        (result,) = done.results
        if isinstance(result, Problem):
            raise result
        return result

    async def _run(
        self,
        visit: Visit,
        lane: Lane[Item, R],
        items: Sequence[Item],
        promised: float,
        timings: Timings,
    ) -> Done[R]:
        """On the device. Cancelled, it takes its items out of the line."""
        visit.trace, began, on_device_s = timings.trace, time.monotonic(), 0.0
        try:
            future = self._scheduler.submit(visit, lane, items, promised)
            done = await self._homeward.result(future)
            on_device_s = done.on_device_s
            return done
        finally:
            # Between its batches and until it is back here, too; in vain all of it.
            timings.record("queue", began, time.monotonic() - on_device_s)


def _yield_to_loop() -> None:
    if sys.platform == "linux":  # elsewhere threads have no priority of their own
        with suppress(OSError):  # a sandbox may forbid it
            os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, 0) + _NICER)


def _record_crops(done: Done[CropResult], timings: Timings) -> None:
    """Its time on the device, by what its batches, some at the same time, did there."""
    batches = {result.times for result in done.results if isinstance(result, CropResult)}
    encode_s = sum(times.encode_s for times in batches)
    both_s = encode_s + sum(times.head_s for times in batches)
    if both_s:
        ended = max(times.ended for times in batches)
        began = ended - done.on_device_s
        encoded = began + done.on_device_s * encode_s / both_s
        timings.record("encode", began, encoded)
        timings.record("head", encoded, ended)
