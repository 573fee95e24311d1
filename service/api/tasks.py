"""Query parameters -> what is wanted of a photo: defaults filled in, rules across parameters."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial

from models.geometry import Box, Size
from models.pose import PoseModel
from models.predictor import HeadChoice
from service.api.parameters import PoseQuery, PostHeatmapQuery
from service.catalog import Catalog
from service.photo import MAX_PEOPLE, Task
from service.problems import AnswerTooLarge, InvalidParameter, UnknownKeypoint, UnknownPerson

_MOST_BOXES = 100
_FARTHEST = 100_000
"""Pixels: a box farther away or larger is a mistake, and its crop would be degenerate."""


def pose_task(
    query: PoseQuery,
    catalog: Catalog,
    kind: str,
    *,
    answer_bytes: int,
) -> Task:
    """What POST /pose is asked for.

    Args:
        query: its parameters.
        catalog: what is served.
        kind: the answer's format.
        answer_bytes: the most that an answer may have.

    Raises:
        Problem: parameters that do not go together, or names that nothing has.
    """
    model = catalog.model(query.model)
    names = query.head.split(",") if query.head else [model.default_head]
    if len(set(names)) < len(names):
        raise InvalidParameter(("head", f"{query.head!r} names a head twice; name each once"))
    if kind != "json":
        _check_lone("head", len(names), kind)
        if query.sigma:
            raise InvalidParameter(("sigma", f"format={kind} has no place for it; use json"))
    for name in names:
        _check_head(model, name)
        if query.sigma and model.calibration(name) is None:
            message = f"head {name!r} of {model.name} is not calibrated: it has none; leave it out"
            raise InvalidParameter(("sigma", message))
    return Task(
        model=model,
        detector=catalog.detector(query.detector),
        boxes=_boxes(query.boxes, query.detector),
        heads=_choices(model, names, query.decode, query.resolution, sigma=query.sigma),
        judge=_judge(model),
        max_people=query.max_people,
        min_box_score=query.min_box_score,
        flip=query.flip,
        picture=kind == "png",
        check_size=partial(_check_drawable, most=answer_bytes) if kind == "png" else _any_size,
    )


def check_count(task: Task, kind: str, images: int) -> None:
    """Whether the task goes together with as many images.

    Raises:
        InvalidParameter: it is one for a lone image.
    """
    if kind != "json":
        _check_lone("image", images, kind)
    if images > 1 and task.boxes is not None:
        raise InvalidParameter(("boxes", f"boxes are of one image, not of {images}"))


def heatmap_task(query: PostHeatmapQuery, catalog: Catalog) -> Task:
    """What POST /heatmap is asked for: people's features, numbered as POST /pose does.

    Of the caller's own boxes only the one that is asked for is worked on.

    Raises:
        Problem: parameters that do not go together, or names that nothing has.
    """
    model = catalog.model(query.model)
    boxes = _boxes(query.boxes, query.detector)
    if boxes is not None:
        if query.person >= len(boxes):
            raise UnknownPerson(f"person {query.person} of {len(boxes)} boxes")
        boxes = (boxes[query.person],)
    return Task(
        model=model,
        detector=catalog.detector(query.detector),
        boxes=boxes,
        heads=(),
        judge=_judge(model),
        max_people=MAX_PEOPLE,
        min_box_score=query.min_box_score,
        flip=query.flip,
        picture=False,
        check_size=_any_size,
    )


def head_of(model: PoseModel, name: str | None) -> str:
    """The head of this name, the model's default where there is none.

    Raises:
        InvalidParameter: the model does not have it.
    """
    if name is None:
        return model.default_head
    _check_head(model, name)
    return name


def keypoints_of(model: PoseModel, keypoint: str) -> tuple[int, ...] | None:
    """Indices that `keypoint` asks for; None for all of them (`max`, `all`).

    Raises:
        UnknownKeypoint: neither a name nor an index of the model's set.
    """
    names = model.keypoints.names
    if keypoint in ("max", "all"):
        return None
    if keypoint in names:
        return (names.index(keypoint),)
    if keypoint.isascii() and keypoint.isdigit() and int(keypoint) < len(names):
        return (int(keypoint),)
    raise UnknownKeypoint(
        f"{keypoint!r} is not `max`, `all`, an index below {len(names)} or one of "
        f"{', '.join(names)}"
    )


def _check_lone(parameter: str, count: int, kind: str) -> None:
    if count > 1:
        message = f"format={kind} takes one, not {count}; use json"
        raise InvalidParameter((parameter, message))


def _check_head(model: PoseModel, name: str) -> None:
    if name not in model.heads:
        has = ", ".join(model.heads)
        raise InvalidParameter(("head", f"{model.name} has no head {name!r}, only {has}"))


def _choices(
    model: PoseModel,
    names: Sequence[str],
    decode: str | None,
    resolution: int | None,
    *,
    sigma: bool = False,
) -> tuple[HeadChoice, ...]:
    if decode is not None and not any(decode in model.decodes[name] for name in names):
        known = "; ".join(f"{name} has {', '.join(model.decodes[name])}" for name in names)
        raise InvalidParameter(("decode", f"{decode!r} is not a decode of the head: {known}"))
    if resolution is not None and "nerpe" not in names:
        message = f"only nerpe is decoded on a lattice, {' and '.join(names)} is not; leave it out"
        raise InvalidParameter(("resolution", message))
    choices = []
    for name in names:
        chosen = decode if decode in model.decodes[name] else model.decodes[name][0]
        lattice = None
        if name == "nerpe":
            lattice = _lattice(chosen, resolution or model.lattice(chosen))
        choices.append(HeadChoice(name, chosen or "", lattice, sigma))
    return tuple(choices)


def _judge(model: PoseModel) -> HeadChoice:
    """As POST /pose has it where no head is named."""
    return _choices(model, [model.default_head], None, None)[0]


def _lattice(decode: str, resolution: int) -> int:
    """What NerPE will really use: all but `standard` double from 32."""
    if decode == "standard":
        return resolution
    return max(32, 1 << (resolution - 1).bit_length())


def _any_size(size: Size) -> None:
    pass


def _check_drawable(size: Size, most: int) -> None:
    """A png of a photo takes about its pixels."""
    width, height = size
    if width * height * 3 > most:
        message = f"a png of {width} x {height} pixels; post at most {most // 3_000_000} megapixels"
        raise AnswerTooLarge(("format", message))


def _boxes(text: str | None, detector: str | None) -> tuple[Box, ...] | None:
    if text is None:
        return None
    if detector is not None:
        raise InvalidParameter(("boxes", "boxes need no detector; leave out one of the two"))
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidParameter(("boxes", "not JSON; write [[x, y, width, height], ...]")) from None
    if not isinstance(rows, list) or not 1 <= len(rows) <= _MOST_BOXES:
        raise InvalidParameter(("boxes", f"not a list of 1 to {_MOST_BOXES} boxes"))
    return tuple(_box(index, row) for index, row in enumerate(rows))


def _box(index: int, row: object) -> Box:
    numbers = [
        float(number)
        for number in (row if isinstance(row, list) else ())
        if isinstance(number, (int, float))
        and not isinstance(number, bool)
        and abs(number) <= _FARTHEST
    ]
    if not isinstance(row, list) or len(row) != 4 or len(numbers) != 4:
        message = f"box {index} is not four numbers of at most {_FARTHEST}: x, y, width, height"
        raise InvalidParameter(("boxes", message))
    x, y, width, height = numbers
    if width < 1 or height < 1:
        message = f"box {index} is {width:g} x {height:g} pixels; it needs at least one each way"
        raise InvalidParameter(("boxes", message))
    return Box(x, y, width, height)
