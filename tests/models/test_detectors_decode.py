import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from models.detectors.decode import decode_rtmdet, decode_yolox

seeds = st.integers(0, 2**32 - 1)
sizes = st.tuples(st.integers(1, 4), st.integers(1, 4)).map(lambda n: (32 * n[0], 32 * n[1]))


@settings(max_examples=20)
@given(seeds, sizes)
def test_rtmdet_decodes_as_its_contract_says(seed: int, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(seed)
    levels = [
        rng.normal(0, 9, (2, size[1] // stride, size[0] // stride, 5)).astype(np.float32)
        for stride in (8, 16, 32)
    ]
    corners, scores = decode_rtmdet(levels, size)
    place = 0
    for stride, level in zip((8, 16, 32), levels, strict=True):
        for row in range(level.shape[1]):
            for column in range(level.shape[2]):
                for image in range(2):
                    logit, left, top, right, bottom = level[image, row, column].tolist()
                    x, y = column * stride, row * stride
                    wanted = [x - left, y - top, x + right, y + bottom]
                    np.testing.assert_allclose(corners[image, place], wanted, rtol=1e-5, atol=1e-4)
                    assert abs(scores[image, place] - 1 / (1 + math.exp(-logit))) < 1e-6
                place += 1
    assert corners.shape == (2, place, 4)


@settings(max_examples=20)
@given(seeds, sizes)
def test_yolox_decodes_as_its_contract_says(seed: int, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(seed)
    count = sum(size[0] // stride * (size[1] // stride) for stride in (8, 16, 32))
    values = rng.uniform(0, 1, (2, count, 85)).astype(np.float32)
    corners, scores = decode_yolox([values], size)
    place = 0
    for stride in (8, 16, 32):
        for row in range(size[1] // stride):
            for column in range(size[0] // stride):
                x, y, w, h, objectness, person = values[1, place, :6].tolist()
                x, y = (x + column) * stride, (y + row) * stride
                w, h = math.exp(w) * stride, math.exp(h) * stride
                wanted = [x - w / 2, y - h / 2, x + w / 2, y + h / 2]
                np.testing.assert_allclose(corners[1, place], wanted, rtol=1e-5, atol=1e-4)
                assert abs(scores[1, place] - objectness * person) < 1e-6
                place += 1
    assert place == count


def test_logits_of_any_size_give_scores_from_0_to_1() -> None:
    level = np.zeros((1, 1, 2, 5), np.float32)
    level[0, 0, :, 0] = -1e30, 1e30
    _, scores = decode_rtmdet([level], (64, 32))
    assert scores.tolist() == [[0.0, 1.0]]
