import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.detectors.nms import CANDIDATES, overlaps, suppress


def _boxes(seed: int, count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 60, (count, 2))
    return np.concatenate([low, low + rng.uniform(0, 40, (count, 2))], axis=1), rng.random(count)


def _iou(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    union = sum(areas) - width * height
    return width * height / union if union else 0.0


cases = (st.integers(0, 2**32 - 1), st.integers(0, 40), st.floats(0.05, 0.95))


@given(*cases)
def test_it_keeps_what_the_textbook_keeps(seed: int, count: int, threshold: float) -> None:
    corners, scores = _boxes(seed, count)
    kept: list[int] = []
    for index in sorted(range(count), key=lambda index: -scores[index]):
        if all(_iou(corners[index], corners[other]) <= threshold for other in kept):
            kept.append(index)
    assert suppress(corners, scores, threshold).tolist() == kept


@given(*cases)
def test_every_box_that_goes_overlaps_a_better_one_that_stays(
    seed: int, count: int, threshold: float
) -> None:
    corners, scores = _boxes(seed, count)
    kept = suppress(corners, scores, threshold)
    assert (np.diff(scores[kept]) <= 0).all()
    iou = overlaps(corners, corners)
    for index in set(range(count)) - set(kept.tolist()):
        assert any(iou[index, k] > threshold and scores[k] >= scores[index] for k in kept)
    again = suppress(corners[kept], scores[kept], threshold)
    assert again.tolist() == list(range(len(kept)))


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 12))
def test_overlaps_are_those_of_the_naive_loop(seed: int, left: int, right: int) -> None:
    a, b = _boxes(seed, left)[0], _boxes(seed + 1, right)[0]
    naive = [[_iou(x, y) for y in b] for x in a]
    np.testing.assert_allclose(overlaps(a, b), naive, atol=1e-12)


def test_boxes_without_area_overlap_nothing() -> None:
    point = np.array([[5.0, 5, 5, 5]])
    assert overlaps(point, point).item() == 0


def test_of_equal_boxes_the_first_stays() -> None:
    assert suppress(np.array([[0.0, 0, 9, 9]] * 3), np.full(3, 0.5), 0.6).tolist() == [0]


def test_a_flood_of_boxes_is_cut_to_the_best() -> None:
    count = 4 * CANDIDATES
    low = np.arange(count, dtype=float)[:, None] * 10
    kept = suppress(
        np.concatenate([low, low, low + 5, low + 5], axis=1), np.arange(count) / count, 0.5
    )
    assert kept.tolist() == list(range(count - 1, count - 1 - CANDIDATES, -1))
