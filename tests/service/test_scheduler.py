import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import wait

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.problems import DeadlineExceeded, Draining, EngineFailed, Overloaded
from service.scheduler import Lane, Scheduler

FAR = 1e9
SECONDS = 30


class Device:
    """Squares numbers. It can be held in the middle of a batch, and fails on `bad` ones."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.bad: set[int] = set()
        self.entered = threading.Semaphore(0)
        self.open = threading.Event()
        self.open.set()

    def run(self, items: Sequence[int]) -> Sequence[int | Exception]:
        self.batches.append(list(items))
        self.entered.release()
        assert self.open.wait(SECONDS)
        if self.bad & set(items):
            raise RuntimeError("bad item")
        return [item * item for item in items]


@pytest.fixture
def device() -> Device:
    return Device()


@pytest.fixture
def scheduler() -> Iterator[Scheduler]:
    made = Scheduler(capacity=8)
    made.start()
    yield made
    made.close()


def hold(device: Device, scheduler: Scheduler, lane: Lane[int, int]) -> None:
    """Occupy the device with an item, so that what is submitted next has to wait."""
    device.open.clear()
    scheduler.submit(lane, [0], FAR)
    assert device.entered.acquire(timeout=SECONDS)


def test_what_waits_goes_in_the_largest_bucket_first_come_first_served(
    device: Device, scheduler: Scheduler
) -> None:
    lane = Lane("squares", device.run, (1, 2, 4))
    hold(device, scheduler, lane)
    futures = [future for number in range(1, 8) for future in scheduler.submit(lane, [number], FAR)]
    device.open.set()
    assert [future.result(SECONDS).value for future in futures] == [1, 4, 9, 16, 25, 36, 49]
    assert device.batches == [[0], [1, 2, 3, 4], [5, 6], [7]]


def test_a_lone_item_does_not_wait_for_others(device: Device, scheduler: Scheduler) -> None:
    lane = Lane("squares", device.run, (1, 2, 4))
    (future,) = scheduler.submit(lane, [3], FAR)
    assert future.result(SECONDS).value == 9


def test_lanes_do_not_share_batches(device: Device, scheduler: Scheduler) -> None:
    odd, even = (Lane(name, device.run, (1, 2, 4)) for name in ("odd", "even"))
    hold(device, scheduler, odd)
    futures = [
        future
        for number in (1, 2, 3, 4)
        for future in scheduler.submit(odd if number % 2 else even, [number], FAR)
    ]
    device.open.set()
    wait(futures, SECONDS)
    assert device.batches == [[0], [1, 3], [2, 4]]


@given(
    requests=st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=9), min_size=1, max_size=9),
    bad=st.sets(st.integers(0, 99), max_size=6),
    buckets=st.sampled_from([(1,), (1, 2, 4), (1, 2, 4, 8, 16)]),
)
def test_everyone_gets_their_own_answer_once_and_only_the_guilty_fail(
    requests: list[list[int]], bad: set[int], buckets: tuple[int, ...]
) -> None:
    device = Device()
    device.bad = bad
    scheduler = Scheduler(capacity=1000)
    scheduler.start()
    lane = Lane("squares", device.run, buckets)
    submitted = [
        (number, future)
        for numbers in requests
        for number, future in zip(numbers, scheduler.submit(lane, numbers, FAR), strict=True)
    ]
    scheduler.close()
    for number, future in submitted:
        assert future.done()
        if number in bad:
            assert isinstance(future.exception(), EngineFailed)
        else:
            assert future.result().value == number * number


def test_a_result_that_is_an_exception_fails_its_item_alone(scheduler: Scheduler) -> None:
    def roots(items: Sequence[float]) -> Sequence[float | Exception]:
        with np.errstate(invalid="ignore"):
            values = np.sqrt(np.array(items))
        return [float(v) if np.isfinite(v) else EngineFailed("not finite") for v in values]

    futures = scheduler.submit(Lane("roots", roots, (1, 2)), [4.0, -1.0], FAR)
    assert futures[0].result(SECONDS).value == 2.0
    assert isinstance(futures[1].exception(SECONDS), EngineFailed)


def test_a_wrong_number_of_results_is_a_failure_and_the_thread_goes_on(
    scheduler: Scheduler,
) -> None:
    none: Lane[int, int] = Lane("none", lambda items: [])
    (lost,) = scheduler.submit(none, [1], FAR)
    assert isinstance(lost.exception(SECONDS), EngineFailed)
    same: Lane[int, int] = Lane("same", lambda items: items)
    (fine,) = scheduler.submit(same, [1], FAR)
    assert fine.result(SECONDS).value == 1


def test_an_error_of_the_observer_costs_no_answer() -> None:
    def fail(name: str, items: int, seconds: float) -> None:
        raise RuntimeError("metrics are broken")

    scheduler = Scheduler(8, on_batch=fail)
    scheduler.start()
    lane: Lane[int, int] = Lane("same", lambda items: items)
    for number in (1, 2):
        assert scheduler.submit(lane, [number], FAR)[0].result(SECONDS).value == number
    scheduler.close()


def test_a_full_queue_refuses_at_once(device: Device, scheduler: Scheduler) -> None:
    lane = Lane("squares", device.run)
    hold(device, scheduler, lane)
    scheduler.submit(lane, range(8), FAR)
    with pytest.raises(Overloaded) as refused:
        scheduler.submit(lane, [9], FAR)
    assert int(refused.value.headers["Retry-After"]) >= 1
    assert scheduler.waiting == 8
    device.open.set()


def test_a_request_is_queued_whole_or_not_at_all(device: Device, scheduler: Scheduler) -> None:
    lane = Lane("squares", device.run)
    hold(device, scheduler, lane)
    scheduler.submit(lane, range(6), FAR)
    with pytest.raises(Overloaded):
        scheduler.submit(lane, range(3), FAR)
    assert scheduler.waiting == 6
    device.open.set()


def test_a_lone_request_larger_than_the_queue_is_served(
    device: Device, scheduler: Scheduler
) -> None:
    futures = scheduler.submit(Lane("squares", device.run), range(20), FAR)
    assert [future.result(SECONDS).value for future in futures] == [n * n for n in range(20)]


def test_a_wait_longer_than_the_deadline_refuses_at_once(device: Device) -> None:
    now = 100.0
    scheduler = Scheduler(100, clock=lambda: now)
    lane = Lane("squares", device.run, seconds_per_weight=0.5)
    scheduler.submit(lane, range(10), deadline=now + 60)
    assert scheduler.predicted_wait() == 5.0
    with pytest.raises(Overloaded) as refused:
        scheduler.submit(lane, [1], deadline=now + 2)
    assert refused.value.headers["Retry-After"] == "4"
    scheduler.submit(lane, [1], deadline=now + 6)


def test_a_deadline_that_has_passed_is_that_and_not_an_overload(scheduler: Scheduler) -> None:
    with pytest.raises(DeadlineExceeded):
        scheduler.admit(deadline=0.0)


def test_what_is_late_is_not_run(device: Device) -> None:
    clock = [0.0]
    scheduler = Scheduler(100, clock=lambda: clock[0])
    lane = Lane("squares", device.run, (1, 2, 4))
    late, timely = scheduler.submit(lane, [1], 5.0) + scheduler.submit(lane, [2], 50.0)
    clock[0] = 10.0
    scheduler.start()
    assert timely.result(SECONDS).value == 4
    assert isinstance(late.exception(SECONDS), DeadlineExceeded)
    assert device.batches == [[2]]
    scheduler.close()


def test_what_nobody_waits_for_is_not_run_and_frees_its_place(
    device: Device, scheduler: Scheduler
) -> None:
    lane = Lane("squares", device.run, (1, 2, 4, 8))
    hold(device, scheduler, lane)
    gone = scheduler.submit(lane, range(1, 9), FAR)
    for future in gone:
        assert future.cancel()
    assert scheduler.waiting == 0
    (kept,) = scheduler.submit(lane, [9], FAR)
    device.open.set()
    assert kept.result(SECONDS).value == 81
    assert device.batches == [[0], [9]]


def test_costs_are_learnt() -> None:
    lane: Lane[int, int] = Lane("squares", lambda items: items)
    lane.learn(4.0, [1, 1])
    assert lane.cost([1]) == 2.0
    lane.learn(4.0, [1])
    assert 2.0 < lane.cost([1]) < 4.0


def test_costs_are_learnt_by_weight_so_that_an_outlier_costs_no_one_else() -> None:
    lane: Lane[int, int] = Lane("squares", lambda items: items, weigh=float)
    lane.learn(0.1, [1])
    lane.learn(100.0, [1000])
    assert lane.cost([1]) == pytest.approx(0.1)
    assert lane.cost([1000, 10]) == pytest.approx(101.0)


def test_what_is_left_of_the_running_batch_and_the_own_cost_count(device: Device) -> None:
    clock = [0.0]
    scheduler = Scheduler(100, clock=lambda: clock[0])
    lane = Lane("squares", device.run, weigh=float, seconds_per_weight=1.0)
    scheduler.start()
    device.open.clear()
    (long,) = scheduler.submit(lane, [10], FAR)
    assert device.entered.acquire(timeout=SECONDS)
    clock[0] = 4.0
    assert scheduler.predicted_wait() == 6.0
    with pytest.raises(Overloaded) as refused:
        scheduler.submit(lane, [5], deadline=12.0)  # 6 to wait and 5 of its own
    assert refused.value.headers["Retry-After"] == "3"
    (fits,) = scheduler.submit(lane, [1], deadline=12.0)
    device.open.set()
    assert (long.result(SECONDS).value, fits.result(SECONDS).value) == (100, 1)
    scheduler.close()


def test_an_idle_device_tries_what_seems_too_long(device: Device, scheduler: Scheduler) -> None:
    lane = Lane("squares", device.run, seconds_per_weight=1e6)
    (future,) = scheduler.submit(lane, [3], scheduler._clock() + SECONDS)
    assert future.result(SECONDS).value == 9
    assert lane.seconds_per_weight < 1e6


class Long:
    """Work in steps that the test lets through one by one."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.entered, self.step = threading.Semaphore(0), threading.Semaphore(0)
        self.steps = 0

    def run(self, items: Sequence[int]) -> Sequence[int]:
        for _ in range(1000):
            self.entered.release()
            assert self.step.acquire(timeout=SECONDS)
            self.scheduler.check()
            self.steps += 1
        return items


def test_long_work_ends_between_its_parts_once_nobody_waits() -> None:
    clock = [0.0]
    scheduler = Scheduler(100, clock=lambda: clock[0])
    scheduler.start()
    long = Long(scheduler)
    lane = Lane("long", long.run, (1, 2))
    gone, late = scheduler.submit(lane, [1, 2], deadline=10.0)
    for _ in range(2):
        assert long.entered.acquire(timeout=SECONDS)
        long.step.release()
    assert long.entered.acquire(timeout=SECONDS)
    assert gone.cancel()
    long.step.release()  # the other is still waited for
    assert long.entered.acquire(timeout=SECONDS)
    clock[0] = 10.0
    long.step.release()
    assert isinstance(late.exception(SECONDS), DeadlineExceeded)
    same: Lane[int, int] = Lane("same", lambda items: items)
    assert scheduler.submit(same, [7], FAR)[0].result(SECONDS).value == 7
    assert long.steps == 3
    # How long it took at the least is known from now on.
    assert lane.cost([1, 2]) >= 10.0
    scheduler.close()


def test_closing_runs_what_was_accepted_and_refuses_the_rest(device: Device) -> None:
    scheduler = Scheduler(100)
    lane = Lane("squares", device.run)
    futures = scheduler.submit(lane, range(5), FAR)
    scheduler.start()
    scheduler.close()
    assert [future.result(0).value for future in futures] == [0, 1, 4, 9, 16]
    with pytest.raises(Draining):
        scheduler.submit(lane, [1], FAR)
    assert scheduler.silence() == float("inf")


def test_the_heart_beats_while_idle_and_stops_while_the_device_hangs(device: Device) -> None:
    clock = [0.0]
    scheduler = Scheduler(100, clock=lambda: clock[0])
    scheduler.start()
    lane = Lane("squares", device.run)
    hold(device, scheduler, lane)
    clock[0] = 50.0
    assert scheduler.silence() == 50.0
    device.open.set()
    (after,) = scheduler.submit(lane, [1], FAR)
    after.result(SECONDS)
    scheduler.close()
    assert scheduler.waiting == 0


def test_an_outcome_tells_how_long_its_item_waited(device: Device) -> None:
    clock = [0.0]
    scheduler = Scheduler(100, clock=lambda: clock[0])
    (future,) = scheduler.submit(Lane("squares", device.run), [1], FAR)
    clock[0] = 3.0
    scheduler.start()
    assert future.result(SECONDS).waited_s == 3.0
    scheduler.close()
