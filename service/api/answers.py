"""What was seen -> what is answered and kept."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from models.keypoints import KeypointSet
from models.predictor import Pose
from service.api.errors import problem_body
from service.api.schemas import PoseBody
from service.features import KeptPhoto
from service.photo import SeenPerson, SeenPhoto, Task
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
    image_id: int,
    timings: Timings,
    request_id: str,
) -> PoseBody:
    """POST /pose's JSON, of a photo that is not kept, or not yet."""
    model, first = task.model, task.heads[0]
    return PoseBody.model_validate(
        {
            "id": None,
            "expires": None,
            "image": {"width": photo.width, "height": photo.height},
            "image_id": image_id,
            "model": model.name,
            "weights": model.bundle.digest,
            "engine": f"{model.engine.name}/{model.engine.device}",
            "detector": None if task.boxes is not None else task.detector.name,
            "head": first.head,
            "decode": first.decode,
            "resolution": first.resolution,
            "keypoint_set": model.keypoints.name,
            "people": [
                {"person": number, **_person(person, task, request_id)}
                for number, person in enumerate(photo.people)
            ],
            "timings_ms": {
                stage: seconds * 1000
                for stage, seconds in (*timings.seconds.items(), ("total", timings.total))
            },
        }
    )


# Plain values, which are validated once and as a whole: half the time of a model for each.


def _person(person: SeenPerson, task: Task, request_id: str) -> dict[str, object]:
    corners = (person.box.x, person.box.y, person.box.width, person.box.height)
    x, y, width, height = _rounded(corners, 2)
    (score,) = _rounded((person.box.score,), 4)
    box = {"x": x, "y": y, "width": width, "height": height, "score": score}
    if isinstance(person.result, Problem):
        return {"box": box, "error": problem_body(person.result, request_id)}
    seen, names = person.result, task.model.keypoints
    keypoints = {choice.head: _keypoints(seen.poses[choice.head], names) for choice in task.heads}
    (score,) = _rounded((seen.score,), 4)
    body = {"score": score, "box": box, "keypoints": keypoints[task.heads[0].head]}
    if len(task.heads) == 1:
        return body
    heads = {
        choice.head: {
            "decode": choice.decode,
            "resolution": choice.resolution,
            "keypoints": keypoints[choice.head],
        }
        for choice in task.heads
    }
    return {**body, "heads": heads}


def _keypoints(pose: Pose, names: KeypointSet) -> list[dict[str, object]]:
    points, scores = _rounded(pose.points, 2), _rounded(pose.scores, 4)
    joints: list[dict[str, object]] = [
        {"name": name, "x": x, "y": y, "score": score}
        for name, (x, y), score in zip(names.names, points, scores, strict=True)
    ]
    if pose.sigmas is not None:
        for joint, sigma in zip(joints, _rounded(pose.sigmas, 2), strict=True):
            joint["sigma"] = sigma
    return joints


def _rounded(values: ArrayLike, decimals: int) -> list[Any]:
    # `+ 0.0` makes a negative zero a plain one.
    rounded = np.round(np.asarray(values, np.float64), decimals) + 0.0
    return list(rounded.tolist())
