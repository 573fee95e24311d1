from collections.abc import Sequence
from itertools import combinations_with_replacement

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.costs import Cost
from service.lanes import RECOVER_S, Lane

BUCKETS = (1, 2, 4, 8)


def lane(base_s: float, each_s: float, buckets: tuple[int, ...] = BUCKETS) -> Lane[int, int]:
    made: Lane[int, int] = Lane("squares", lambda items: items, buckets)
    for size in buckets:
        made.cost.learn(size, base_s + each_s * size)
    return made


def test_five_are_four_and_one_where_filling_up_costs_more() -> None:
    assert lane(base_s=0.001, each_s=0.010).first(5) == 4


def test_five_are_filled_up_to_eight_where_a_second_run_costs_more() -> None:
    assert lane(base_s=0.010, each_s=0.001).first(5) == 5
    assert lane(base_s=0.010, each_s=0.001).seconds([0] * 5) == pytest.approx(0.018)


@given(
    base=st.floats(1e-4, 0.1), each=st.floats(1e-4, 0.1), waiting=st.integers(1, 16),
)  # fmt: skip
def test_no_split_costs_less_than_the_one_that_is_made(
    base: float, each: float, waiting: int
) -> None:
    made = lane(base, each)
    least = min(
        sum(made.cost(size) for size in sizes)
        for count in range(1, waiting + 1)
        for sizes in combinations_with_replacement(BUCKETS, count)
        if sum(sizes) >= waiting
    )
    assert made.seconds([0] * waiting) == pytest.approx(least)


def test_before_anything_is_known_the_batch_is_as_large_as_can_be() -> None:
    made: Lane[int, int] = Lane("squares", lambda items: items, BUCKETS)
    assert [made.first(waiting) for waiting in (1, 3, 8, 100)] == [1, 3, 8, 8]


def test_the_work_of_a_batch_is_that_of_the_bucket_which_it_fills_up_to() -> None:
    made = Lane("squares", lambda items: items, BUCKETS, weigh=float)
    assert made.work([1, 2, 3]) == 8.0


def test_what_ran_out_of_memory_is_tried_again_after_a_while() -> None:
    made = lane(0.01, 0.001)
    made.shrink(8, now=100.0)
    assert (made.largest, made.first(8)) == (4, 4)
    made.shrink(3, now=100.0)
    assert made.largest == 2
    made.recover(now=100.0 + RECOVER_S / 2)
    assert made.largest == 2
    made.recover(now=100.0 + RECOVER_S)
    made.recover(now=100.0 + RECOVER_S)
    assert made.largest == 4
    made.recover(now=100.0 + 2 * RECOVER_S)
    assert (made.largest, made.first(100)) == (8, 8)


def test_memory_may_run_out_while_another_thread_asks_what_work_would_take() -> None:
    made = lane(0.01, 0.001)

    class Shrinking(Cost):
        def __call__(self, work: float) -> float:
            made.shrink(8, now=0.0)
            return work

    made.cost = Shrinking()
    assert made.seconds([0] * 16) == 16
    assert made.largest == 4


def test_a_trial_is_learnt_from_and_takes_what_was_prepared() -> None:
    def prepare(items: Sequence[int], size: int) -> list[int]:
        return [*items, *[0] * (size - len(items))]

    made: Lane[int, int] = Lane("same", lambda items: items, (1, 4), prepare)
    assert list(made.trial([5, 6], learn=False)) == [5, 6, 0, 0]
    assert made.cost(1) == 0.0
    made.trial([5, 6])
    assert made.cost(1) > 0.0
