import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.costs import Cost


def test_nothing_is_known_before_the_first_measurement() -> None:
    assert Cost()(5) == 0.0


def test_one_measurement_makes_work_proportional() -> None:
    cost = Cost()
    cost.learn(4, 2.0)
    assert cost(2) == 1.0


@given(slope=st.floats(0, 1), base=st.floats(0, 1), works=st.sets(st.integers(1, 4096), min_size=2))
def test_a_line_is_found_exactly(slope: float, base: float, works: set[int]) -> None:
    cost = Cost()
    for work in works:
        cost.learn(work, slope * work + base)
    for work in works:
        assert cost(work) == pytest.approx(slope * work + base, rel=1e-6, abs=1e-6)


def test_outliers_do_not_move_it() -> None:
    rng = np.random.default_rng(1)
    cost = Cost()
    for number in range(64):
        work = int(rng.integers(1, 33))
        hiccup = 5.0 if number % 8 == 3 else 0.0
        cost.learn(work, 0.004 + 0.001 * work + hiccup)
    assert cost(16) == pytest.approx(0.020, rel=0.05)


def test_it_follows_a_device_that_becomes_slower() -> None:
    cost = Cost()
    for factor in (1, 3):
        for _ in range(16):
            for work in (1, 2, 4, 8):
                cost.learn(work, factor * 0.01 * work)
    assert cost(4) == pytest.approx(0.12)


def test_busy_sizes_do_not_push_out_what_is_known_of_rare_ones() -> None:
    cost = Cost()
    cost.learn(1000, 10.02)
    for _ in range(200):
        cost.learn(1, 0.03)
    assert cost(1000) == pytest.approx(10.02, rel=0.01)


def test_more_work_never_takes_less_time() -> None:
    cost = Cost()
    cost.learn(1, 5.0)
    cost.learn(10, 1.0)
    assert 0 < cost(1) <= cost(10)
