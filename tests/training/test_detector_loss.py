import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from training.detector.loss import Predictions, assign, detection_loss
from training.detector.network import STRIDES

SIDE = 128


def _levels(people: list[list[float]], *, logit: float = -6.0) -> list[Tensor]:
    """Outputs that see nobody, but whose boxes are the first person's wherever one may answer."""
    levels = []
    for stride in STRIDES:
        cells = SIDE // stride
        level = torch.full((1, cells, cells, 5), float(stride))
        level[..., 0] = logit
        for row in range(cells if people else 0):
            for column in range(cells):
                x, y, box = column * stride, row * stride, people[0]
                level[0, row, column, 1:] = torch.tensor(
                    [x - box[0], y - box[1], box[2] - x, box[3] - y]
                )
        levels.append(level.requires_grad_())
    return levels


def _boxes(rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)


def test_points_that_answer_for_a_person_lie_in_its_box() -> None:
    people = _boxes([[10, 10, 60, 120], [70, 20, 120, 100]])
    found = Predictions.of(_levels([]))
    person, overlap = assign(found.logits[0], found.corners[0], found.points, found.strides, people)
    for index in (0, 1):
        points = found.points[person == index]
        assert len(points) >= 1
        assert ((points > people[index, :2]) & (points < people[index, 2:])).all()
    assert (overlap[person < 0] == 0).all()


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(1, 8))
def test_assignment_is_that_of_the_plain_loop(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 90, (count, 2))
    people = torch.tensor(np.concatenate([low, low + rng.uniform(12, 60, (count, 2))], 1)).float()
    levels = [
        torch.tensor(rng.uniform(0, 40, (1, SIDE // s, SIDE // s, 5)), dtype=torch.float32)
        for s in STRIDES
    ]
    found = Predictions.of(levels)
    person, overlap = assign(found.logits[0], found.corners[0], found.points, found.strides, people)

    def iou(a: list[float], b: list[float]) -> float:
        w = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
        h = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
        union = sum((x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)) - w * h
        return w * h / union

    wishes: dict[int, list[tuple[float, int]]] = {}
    for g, box in enumerate(people.tolist()):
        costs, ious = [], []
        for p, (x, y) in enumerate(found.points.tolist()):
            if not (box[0] < x < box[2] and box[1] < y < box[3]):
                continue
            value = iou(found.corners[0, p].tolist(), box)
            logit = found.logits[0, p].item()
            score = 1 / (1 + np.exp(-logit))
            entropy = np.log1p(np.exp(-abs(logit))) + max(logit, 0) - logit * value
            away = np.hypot(x - (box[0] + box[2]) / 2, y - (box[1] + box[3]) / 2)
            prior = 10 ** (away / found.strides[p].item() - 3)
            costs.append((-3 * np.log(value + 1e-7) + entropy * (value - score) ** 2 + prior, p))
            ious.append(value)
        number = max(1, int(sum(sorted(ious, reverse=True)[:13]) + 1e-6))
        for cost, p in sorted(costs)[:number]:
            wishes.setdefault(p, []).append((cost, g))
    wanted = {p: min(options)[1] for p, options in wishes.items()}
    assert {p: int(g) for p, g in enumerate(person.tolist()) if g >= 0} == wanted
    for p, g in wanted.items():
        assert abs(overlap[p].item() - iou(found.corners[0, p].tolist(), people[g].tolist())) < 1e-4


def test_right_boxes_cost_nothing_and_wrong_ones_something() -> None:
    people = [[16.0, 16, 112, 120]]
    right = detection_loss(_levels(people), [_boxes(people)], [_boxes([])])
    moved = detection_loss(_levels([[40.0, 16, 127, 127]]), [_boxes(people)], [_boxes([])])
    assert right[1] < 1e-5
    assert moved[1] > 0.1


def test_nobody_there_teaches_low_scores_and_nothing_of_boxes() -> None:
    levels = _levels([], logit=2.0)
    score_loss, box_loss = detection_loss(levels, [_boxes([])], [_boxes([])])
    (score_loss + box_loss).backward()  # type: ignore[no-untyped-call]
    assert box_loss == 0
    for level in levels:
        assert level.grad is not None
        assert (level.grad[..., 0] > 0).all()
        assert (level.grad[..., 1:] == 0).all()


def test_nothing_is_taught_inside_a_crowd_but_for_the_people_in_it() -> None:
    people, crowd = [[8.0, 8, 56, 120]], [[0.0, 0, 127, 127]]
    levels = _levels(people, logit=2.0)
    score_loss, _ = detection_loss(levels, [_boxes(people)], [_boxes(crowd)])
    score_loss.backward()  # type: ignore[no-untyped-call]
    found = Predictions.of(levels)
    person, _ = assign(
        found.logits[0], found.corners[0], found.points, found.strides, _boxes(people)
    )
    slopes = torch.cat([level.grad[..., 0].flatten() for level in levels if level.grad is not None])
    assert (slopes[person < 0] == 0).all()
    assert (slopes[person >= 0] != 0).all()
