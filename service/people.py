"""Before the device and after it: boxes to crops, crops' results to people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from models.arrays import Array
from models.draw import draw_people
from models.geometry import Box, CropGeometry
from models.pose import PoseModel
from models.predictor import Person, poses_of, suppress
from service.failures import as_problem
from service.heatmaps import png
from service.photo import SeenPerson, Task
from service.problems import Problem
from service.work import CropResult, Image


class Cut(NamedTuple):
    """A person's crop."""

    box: Box
    geometry: CropGeometry
    crop: Array


def cuts_of(pixels: Image, boxes: Sequence[Box], model: PoseModel) -> list[Cut]:
    """Each box's crop.

    Raises:
        Problem: the engine cuts crops itself, and could not.
    """
    try:
        geometries, crops = model.cut(pixels, boxes)
    except RuntimeError as error:
        raise as_problem(error) from error
    return [Cut(*cut) for cut in zip(boxes, geometries, crops, strict=True)]


def drawn(pixels: Image, people: Sequence[SeenPerson], model: PoseModel) -> bytes:
    """The photo with their skeletons, as a png."""
    posed = [person.result for person in people if isinstance(person.result, Person)]
    return png(draw_people(pixels, posed, model.keypoints))


def person_of(cut: Cut, result: CropResult | Problem) -> SeenPerson:
    """What the device found in a crop, in the photo's own pixels."""
    box, geometry, _ = cut
    if isinstance(result, Problem):
        return SeenPerson(box, geometry, result, None)
    poses = {head: poses_of(decoded, [geometry])[0] for head, decoded in result.decoded.items()}
    return SeenPerson(box, geometry, Person(box, poses), result.features)


def once_each(people: Sequence[SeenPerson], task: Task) -> list[SeenPerson]:
    """Best first, without those whose pose a better one already has; crops that failed last."""
    posed = [(person, person.result) for person in people if isinstance(person.result, Person)]
    kept = suppress(
        [result.under(task.judge.head) for _, result in posed],
        [person.geometry for person, _ in posed],
        task.model.keypoints,
    )
    failed = [person for person in people if isinstance(person.result, Problem)]
    return [posed[index][0] for index in kept] + failed
