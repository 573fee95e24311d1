"""One photo's way through the service: the predictor's steps, with the scheduler between them.

The event loop only waits here. Decoding, detection and cutting run in pools no larger than the
machine, under a budget of decoded bytes; what the device does goes through the scheduler.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import NamedTuple, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from models.draw import draw_people
from models.geometry import Box, CropGeometry, Size
from models.pose import Features, PoseModel
from models.predictor import Person, poses_of, suppress
from service.budget import ByteBudget
from service.catalog import ServedDetector
from service.heatmaps import png
from service.images import PostedImage
from service.problems import DeadlineExceeded, EngineFailed, Problem
from service.scheduler import Outcome, Scheduler
from service.settings import Settings
from service.timings import Timings
from service.work import Crop, CropResult, FieldQuery, HeadChoice, ModelLanes

P = ParamSpec("P")
R = TypeVar("R")

Image = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Task:
    """What is wanted of a photo, every default filled in.

    Attributes:
        model: the pose model.
        detector: used where there are no boxes.
        boxes: the caller's own; all are answered, in this order.
        heads: that are answered.
        judge: the head that decides which people are the same, and their order.
        max_people: of the detector's boxes.
        min_box_score: instead of the detector's own.
        flip: average with the mirrored crop.
        picture: the photo is wanted back, with skeletons.
        deadline: monotonic seconds.
        check_size: told the photo's (width, height), from its header; may refuse it.
    """

    model: PoseModel
    detector: ServedDetector
    boxes: tuple[Box, ...] | None
    heads: tuple[HeadChoice, ...]
    judge: HeadChoice
    max_people: int
    min_box_score: float | None
    flip: bool
    picture: bool
    deadline: float
    check_size: Callable[[Size], None]

    @property
    def decoded(self) -> tuple[HeadChoice, ...]:
        """The heads that are run: the judge too, where there is something to decide."""
        known = self.boxes is not None or self.judge.head in (one.head for one in self.heads)
        return self.heads if known else (*self.heads, self.judge)


class Cut(NamedTuple):
    """A person's crop."""

    box: Box
    geometry: CropGeometry
    crop: Image


@dataclass(frozen=True, slots=True, eq=False)
class SeenPerson:
    """A person of a photo, or what kept the crop from being one.

    Attributes:
        box: in the photo.
        geometry: of the crop.
        result: the box with its poses, or the crop's own problem.
        features: of the crop; None where it failed.
    """

    box: Box
    geometry: CropGeometry
    result: Person | Problem
    features: Features | None


@dataclass(frozen=True, slots=True, eq=False)
class SeenPhoto:
    """A photo's answer.

    Attributes:
        width: px.
        height: px.
        people: in the order of the caller's boxes, else best first.
        picture: a png with skeletons, where the task wanted it.
    """

    width: int
    height: int
    people: tuple[SeenPerson, ...]
    picture: bytes | None


class Pipeline:
    """Decode, detect, cut, run, assemble.

    Args:
        settings: for the limits.
        scheduler: started by its owner.
        lanes: of each model, by its name.
    """

    def __init__(
        self, settings: Settings, scheduler: Scheduler, lanes: Mapping[str, ModelLanes]
    ) -> None:
        self._scheduler = scheduler
        self._lanes = lanes
        self._most_pixels = settings.image_pixels
        self._decoded = ByteBudget(settings.decoded_bytes)
        cores = len(os.sched_getaffinity(0))
        self._images = ThreadPoolExecutor(cores, "images")
        # One at a time: a detection already uses every core.
        self._detections = ThreadPoolExecutor(1, "detect")

    def close(self) -> None:
        """End the pools."""
        self._images.shutdown(cancel_futures=True)
        self._detections.shutdown(cancel_futures=True)

    async def background(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run CPU work of an answer (drawing, encoding) where decoding runs."""
        return await _run(self._images, lambda: work(*args, **kwargs))

    def room(self, size: int) -> AbstractAsyncContextManager[None]:
        """Hold bytes of the budget that decoded photos have, for an answer that is as large."""
        return self._decoded.hold(size)

    async def see(self, data: bytes, task: Task, timings: Timings) -> SeenPhoto:
        """Everything about one photo.

        Args:
            data: the file's bytes.
            task: what is wanted.
            timings: of this photo; written to.

        Raises:
            Problem: the photo cannot be read, the server is full, the deadline passed, or every
                crop failed.
        """
        with timings.stage("decode_image"):
            posted = await self.background(PostedImage, data, self._most_pixels)
        task.check_size(posted.size)
        if task.picture:
            async with self._decoded.hold(posted.nbytes):
                pixels, cuts = await self._cut(posted, task, timings)
                people = await self._people(cuts, task, timings)
                picture = await self.background(_draw, pixels, people, task.model)
                height, width = pixels.shape[:2]
                return SeenPhoto(width, height, people, picture)
        async with self._decoded.hold(posted.nbytes):
            pixels, cuts = await self._cut(posted, task, timings)
            height, width = pixels.shape[:2]
            # What is decoded goes with the room that it was given: people may wait for long.
            del pixels, posted
        return SeenPhoto(width, height, await self._people(cuts, task, timings), None)

    async def field(
        self, model: PoseModel, query: FieldQuery, deadline: float, timings: Timings
    ) -> NDArray[np.float32]:
        """A heatmap of one person, (channels, rows, columns), without an encoder pass.

        Large ones go to the device band by band, so that others come in between, and nothing is
        left to do once nobody waits any more.
        """
        lane = self._lanes[model.name].of_field(query)
        bands = []
        for band in query.bands():
            began = time.monotonic()
            (outcome,) = await _gather(self._scheduler.submit(lane, [band], deadline))
            if isinstance(outcome, Problem):
                raise outcome
            timings.add("queue", outcome.waited_s)
            timings.add("head", time.monotonic() - began - outcome.waited_s)
            bands.append(outcome.value)
        return bands[0] if len(bands) == 1 else np.concatenate(bands, axis=1)

    async def _cut(
        self, posted: PostedImage, task: Task, timings: Timings
    ) -> tuple[Image, list[Cut]]:
        """The photo's pixels, and people's crops."""
        with timings.stage("decode_image"):
            pixels = await self.background(posted.pixels)
        boxes = task.boxes
        if boxes is None:
            with timings.stage("detect"):
                boxes = await self._detect(pixels, task)
        return pixels, await self.background(
            lambda: [Cut(box, *task.model.cut(pixels, box)) for box in boxes]
        )

    async def _people(
        self, cuts: Sequence[Cut], task: Task, timings: Timings
    ) -> tuple[SeenPerson, ...]:
        """Crops to people.

        Raises:
            EngineFailed: every one failed.
        """
        outcomes = await self._crops([cut.crop for cut in cuts], task, timings)
        people = [_person(cut, outcome) for cut, outcome in zip(cuts, outcomes, strict=True)]
        if people and all(isinstance(person.result, Problem) for person in people):
            raise EngineFailed(f"none of {len(people)} people could be worked on; try again")
        return tuple(people if task.boxes is not None else _once_each(people, task))

    async def _detect(self, pixels: Image, task: Task) -> tuple[Box, ...]:
        detector = task.detector.detector
        (boxes,) = await _run(
            self._detections,
            lambda: detector.detect([pixels], min_box_score=task.min_box_score),
        )
        return tuple(boxes[: task.max_people])

    async def _crops(
        self, crops: Sequence[Image], task: Task, timings: Timings
    ) -> list[Outcome[CropResult] | Problem]:
        items = [Crop(pixels, task.decoded, task.flip) for pixels in crops]
        if not items:
            return []
        lane = self._lanes[task.model.name].of_crop(items[0])
        outcomes = await _gather(self._scheduler.submit(lane, items, task.deadline))
        done = [outcome for outcome in outcomes if isinstance(outcome, Outcome)]
        timings.add("queue", min((outcome.waited_s for outcome in done), default=0.0))
        for times in {outcome.value.times for outcome in done}:
            timings.add("encode", times.encode_s)
            timings.add("head", times.head_s)
        return outcomes


async def _run(pool: ThreadPoolExecutor, work: Callable[[], R]) -> R:
    return await asyncio.get_running_loop().run_in_executor(pool, work)


async def _gather(futures: Sequence[Future[Outcome[R]]]) -> list[Outcome[R] | Problem]:
    """Each item's outcome or its own problem. Cancelled, it takes its items out of the queue."""
    results = await asyncio.gather(*map(asyncio.wrap_future, futures), return_exceptions=True)
    outcomes: list[Outcome[R] | Problem] = []
    for result in results:
        if isinstance(result, DeadlineExceeded):
            raise result
        if isinstance(result, BaseException) and not isinstance(result, Problem):
            raise result
        outcomes.append(result)
    return outcomes


def _draw(pixels: Image, people: Sequence[SeenPerson], model: PoseModel) -> bytes:
    posed = [person.result for person in people if isinstance(person.result, Person)]
    return png(draw_people(pixels, posed, model.keypoints))


def _person(cut: Cut, outcome: Outcome[CropResult] | Problem) -> SeenPerson:
    box, geometry, _ = cut
    if isinstance(outcome, Problem):
        return SeenPerson(box, geometry, outcome, None)
    poses = {
        head: poses_of(decoded, [geometry])[0] for head, decoded in outcome.value.decoded.items()
    }
    return SeenPerson(box, geometry, Person(box, poses), outcome.value.features)


def _once_each(people: Sequence[SeenPerson], task: Task) -> list[SeenPerson]:
    """Best first, without those whose pose a better one already has; crops that failed last."""
    posed = [(person, person.result) for person in people if isinstance(person.result, Person)]
    kept = suppress(
        [result.under(task.judge.head) for _, result in posed],
        [person.geometry for person, _ in posed],
        task.model.keypoints,
    )
    failed = [person for person in people if isinstance(person.result, Problem)]
    return [posed[index][0] for index in kept] + failed
