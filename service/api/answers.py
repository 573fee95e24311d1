"""What was seen -> what is answered and kept."""

from __future__ import annotations

from models.keypoints import KeypointSet
from models.predictor import Person, Pose
from service.api.errors import problem_body
from service.api.schemas import (
    BoxBody,
    HeadBody,
    ImageSize,
    KeypointBody,
    PersonBody,
    PoseBody,
    ProblemBody,
    TimingsBody,
)
from service.features import Entry, KeptPhoto
from service.pipeline import SeenPerson, SeenPhoto, Task
from service.problems import Problem
from service.timings import Timings


def kept_photo(photo: SeenPhoto, task: Task) -> KeptPhoto:
    """What GET /heatmap will need; half precision, copied out of the batch."""
    return KeptPhoto(
        width=photo.width,
        height=photo.height,
        model=task.model.name,
        geometries=tuple(person.geometry for person in photo.people),
        features=tuple(
            None if person.features is None else person.features.half() for person in photo.people
        ),
    )


def photo_body(
    photo: SeenPhoto,
    task: Task,
    entry: Entry | None,
    image_id: int,
    timings: Timings,
    request_id: str,
) -> PoseBody:
    """POST /pose's JSON."""
    model, first = task.model, task.heads[0]
    return PoseBody(
        id=entry.id if entry else None,
        expires=entry.expires_at if entry else None,
        image=ImageSize(width=photo.width, height=photo.height),
        image_id=image_id,
        model=model.name,
        weights=model.bundle.digest,
        engine=f"{model.engine.name}/{model.engine.device}",
        detector=None if task.boxes is not None else task.detector.name,
        head=first.head,
        decode=first.decode,
        resolution=first.resolution,
        keypoint_set=model.keypoints.name,
        people=[
            _person_body(number, person, task, request_id)
            for number, person in enumerate(photo.people)
        ],
        timings_ms=TimingsBody.model_validate(
            {stage: seconds * 1000 for stage, seconds in timings.seconds.items()}
            | {"total": timings.total * 1000}
        ),
    )


def _person_body(number: int, person: SeenPerson, task: Task, request_id: str) -> PersonBody:
    box = BoxBody(
        x=person.box.x,
        y=person.box.y,
        width=person.box.width,
        height=person.box.height,
        score=person.box.score,
    )
    if isinstance(person.result, Problem):
        error = ProblemBody.model_validate(problem_body(person.result, request_id))
        return PersonBody(person=number, box=box, error=error)
    seen: Person = person.result
    names = task.model.keypoints
    body = PersonBody(
        person=number,
        score=seen.score,
        box=box,
        keypoints=_keypoints(seen.poses[task.heads[0].head], names),
    )
    if len(task.heads) == 1:
        return body
    heads = {
        choice.head: HeadBody(
            decode=choice.decode,
            resolution=choice.resolution,
            keypoints=_keypoints(seen.poses[choice.head], names),
        )
        for choice in task.heads
    }
    return body.model_copy(update={"heads": heads})


def _keypoints(pose: Pose, names: KeypointSet) -> list[KeypointBody]:
    return [
        KeypointBody(name=name, x=x, y=y, score=score)
        for name, (x, y), score in zip(
            names.names, pose.points.tolist(), pose.scores.tolist(), strict=True
        )
    ]
