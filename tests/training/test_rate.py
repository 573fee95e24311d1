from itertools import pairwise

import pytest

from training.rate import rate


def test_the_rate_rises_stays_and_falls() -> None:
    rates = [rate(step, 100, 10, 0.5) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9:51] == [1.0] * 42
    assert all(a > b for a, b in pairwise(rates[50:]))
    assert rates[100] == pytest.approx(0.01)
    assert rate(0, 100, 0, 0.0) == 1
