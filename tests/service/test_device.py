import math
import threading
from collections.abc import Sequence

import pytest

from models.engines import EngineAway
from service.lanes import RECOVER_S, Lane
from service.line import TURN_S
from service.problems import EngineFailed, Overloaded
from service.scheduler import Scheduler
from tests.http.serving import until
from tests.service.sim import FAR, Sim, threaded

SECONDS = 30


@pytest.fixture
def sim() -> Sim:
    return Sim()


@pytest.mark.parametrize("size", [2, 8, 16, 32])
def test_a_bad_item_is_found_by_halving_and_fails_alone(sim: Sim, size: int) -> None:
    lane = sim.lane(buckets=(1, 2, 4, 8, 16, 32))
    asked = [sim.ask(lane, number) for number in range(size)]
    sim.bad = {size // 3}
    sim.work()
    for number, future in enumerate(asked):
        (result,) = future.result(0).results
        assert isinstance(result, EngineFailed) if number in sim.bad else result == number**2
    assert len(sim.batches) == 2 * math.log2(size) + 1


def test_a_result_that_is_not_finite_fails_its_item_alone_and_nothing_is_run_again(
    sim: Sim,
) -> None:
    sim.odd = {2}
    future = sim.ask(sim.lane(), 1, 2, 3)
    sim.work()
    one, two, three = future.result(0).results
    assert (one, three) == (1, 9)
    assert isinstance(two, EngineFailed)
    assert sim.batches == [[1, 2, 3]]


def test_out_of_memory_makes_batches_smaller_for_a_while_and_costs_no_answer(sim: Sim) -> None:
    lane, sim.room = sim.lane(), 3
    first = sim.ask(lane, *range(8))
    sim.work()
    assert first.result(0).results == [n * n for n in range(8)]
    assert max(map(len, sim.batches[-2:])) <= 2
    sim.batches.clear()
    second = sim.ask(lane, *range(8))
    sim.work()
    assert second.result(0).results == [n * n for n in range(8)]
    assert [len(batch) for batch in sim.batches] == [2, 2, 2, 2]
    sim.room = 100
    for _ in range(2):
        sim.now += RECOVER_S
        sim.batches.clear()
        sim.ask(lane, *range(8))
        sim.work()
    assert [len(batch) for batch in sim.batches] == [8]


def test_an_item_that_alone_finds_no_memory_is_told_to_come_again(sim: Sim) -> None:
    sim.room = 0
    future = sim.ask(sim.lane(), 1)
    sim.work()
    (result,) = future.result(0).results
    assert isinstance(result, Overloaded)


def test_an_engine_that_is_away_is_asked_once_and_no_item_is_blamed(sim: Sim) -> None:
    def away() -> None:
        raise EngineAway("nobody there")

    lane, sim.during = sim.lane(), away
    first = sim.ask(lane, *range(8))
    sim.work()
    assert all(isinstance(result, Overloaded) for result in first.result(0).results)
    assert len(sim.batches) == 1
    sim.during = lambda: None
    second = sim.ask(lane, *range(8))
    sim.work()
    assert second.result(0).results == [n * n for n in range(8)]


def test_a_wrong_number_of_results_fails_that_batch_only(sim: Sim) -> None:
    none: Lane[int, int] = Lane("none", lambda items: [])
    lost, fine = sim.ask(none, 1), sim.ask(sim.lane(), 2)
    sim.work()
    assert isinstance(lost.result(0).results[0], EngineFailed)
    assert fine.result(0).results == [4]


def test_an_error_of_the_loop_itself_fails_that_batch_only(sim: Sim) -> None:
    def fail(work: float, seconds: float) -> None:
        raise ZeroDivisionError

    broken = sim.lane("broken")
    broken.cost.learn = fail  # type: ignore[method-assign]
    lost, fine = sim.ask(broken, 1), sim.ask(sim.lane(), 2)
    sim.work()
    assert isinstance(lost.result(0).results[0], EngineFailed)
    assert fine.result(0).results == [4]


def test_an_error_of_the_observer_costs_no_answer() -> None:
    def fail(batch: object, seconds: float) -> None:
        raise RuntimeError("metrics are broken")

    scheduler = Scheduler(8, on_batch=fail)
    lane: Lane[int, int] = Lane("same", lambda items: items)
    with threaded(scheduler), scheduler.admit(FAR) as visit:
        for number in (1, 2):
            future = scheduler.submit(visit, lane, [number])
            assert future.result(SECONDS).results == [number]


def test_the_next_batch_is_prepared_while_one_runs_and_runs_next(sim: Sim) -> None:
    told: list[str] = []

    def prepare(items: Sequence[int], size: int) -> list[int]:
        told.append(f"prepare {list(items)} for {size}")
        return list(items)

    lane = sim.lane(prepare=prepare)

    def during() -> None:
        told.append(f"run {sim.batches[-1]}")
        if len(sim.batches) == 1:
            sim.scheduler.device.stage()

    sim.during = during
    sim.ask(lane, *range(8))
    sim.ask(lane, 8, 9, 10)
    sim.scheduler.device.step()
    sim.scheduler.device.step()
    assert told == [
        "prepare [0, 1, 2, 3, 4, 5, 6, 7] for 8",
        "run [0, 1, 2, 3, 4, 5, 6, 7]",
        "prepare [8, 9, 10] for 4",
        "run [8, 9, 10]",
    ]


def test_a_batch_that_cannot_be_prepared_fails_on_the_device_item_by_item(sim: Sim) -> None:
    def prepare(items: Sequence[int], size: int) -> list[int]:
        if 2 in items:
            raise ValueError("cannot be stacked")
        return list(items)

    future = sim.ask(sim.lane(prepare=prepare), 1, 2, 3)
    sim.scheduler.device.stage()
    sim.scheduler.device.step()
    one, two, three = future.result(0).results
    assert (one, three) == (1, 9)
    assert isinstance(two, EngineFailed)


class Held:
    """A device that stays in the middle of a batch until a test lets it go on."""

    def __init__(self) -> None:
        self.entered, self.go = threading.Semaphore(0), threading.Semaphore(0)
        self.prepared = threading.Semaphore(0)
        self.lane: Lane[int, int] = Lane("held", self.run, (1, 2, 4), self.prepare)

    def prepare(self, items: Sequence[int], size: int) -> list[int]:
        self.prepared.release()
        return list(items)

    def run(self, items: Sequence[int]) -> Sequence[int]:
        self.entered.release()
        assert self.go.acquire(timeout=SECONDS)
        return items


def test_with_two_threads_preparing_does_not_wait_for_the_device() -> None:
    held, scheduler = Held(), Scheduler(100)
    with threaded(scheduler, ahead=True), scheduler.admit(FAR) as visit:
        first = scheduler.submit(visit, held.lane, [1])
        assert held.entered.acquire(timeout=SECONDS)
        assert held.prepared.acquire(timeout=SECONDS)
        second = scheduler.submit(visit, held.lane, [2, 3])
        assert held.prepared.acquire(timeout=SECONDS)
        assert not first.done()
        held.go.release()
        assert held.entered.acquire(timeout=SECONDS)
        held.go.release()
        assert first.result(SECONDS).results == [1]
        assert second.result(SECONDS).results == [2, 3]


def test_several_batches_run_at_once_and_share_what_one_request_brings() -> None:
    held, scheduler = Held(), Scheduler(100)
    with threaded(scheduler, at_once=2), scheduler.admit(FAR) as visit:
        future = scheduler.submit(visit, held.lane, [1, 2, 3, 4])
        for _ in range(2):
            assert held.entered.acquire(timeout=SECONDS)
        assert not held.entered.acquire(blocking=False)
        held.go.release(2)
        assert future.result(SECONDS).results == [1, 2, 3, 4]


def test_batches_that_run_at_once_cost_and_count_each_second_once() -> None:
    now = [0.0]
    held, scheduler = Held(), Scheduler(100, clock=lambda: now[0])
    with threaded(scheduler, at_once=2), scheduler.admit(FAR) as visit:
        future = scheduler.submit(visit, held.lane, [1, 2])
        for _ in range(2):
            assert held.entered.acquire(timeout=SECONDS)
        now[0] = 4.0
        held.go.release(2)
        assert future.result(SECONDS).on_device_s == 4.0
        until(lambda: not scheduler.device.busy)
    assert held.lane.cost(1) == pytest.approx(2.0)


def test_what_was_prepared_during_long_work_goes_before_the_rest_of_it() -> None:
    now, long_parts = [0.0], 100
    scheduler = Scheduler(100, clock=lambda: now[0])
    device = scheduler.device
    parts: list[int] = []

    def staged() -> bool:
        return device.staged is not None and not device.staged.preparing

    def run(items: Sequence[int]) -> Sequence[int]:
        with scheduler._wake:
            assert scheduler._wake.wait_for(staged, SECONDS)
        for part in range(long_parts):
            now[0] += 0.06
            device.pause()
            if short.done():
                parts.append(part)
                break
        return items

    long: Lane[int, int] = Lane("long", run, pauses=True)
    full: Lane[int, int] = Lane("full", lambda items: items, (1, 2, 4))
    with threaded(scheduler, ahead=True), scheduler.admit(FAR) as one, scheduler.admit(FAR) as two:
        with scheduler._wake:  # both are there before the device looks
            first = scheduler.submit(one, long, [0])
            short = scheduler.submit(two, full, [1, 2, 3, 4])
        assert short.result(SECONDS).results == [1, 2, 3, 4]
        first.result(SECONDS)
    assert parts == [math.ceil(TURN_S / 0.06) - 1], "as soon as the long one's turn was over"


def test_busy_is_not_stuck_and_a_batch_far_beyond_its_cost_is() -> None:
    clock = [0.0]
    held, scheduler = Held(), Scheduler(100, clock=lambda: clock[0])
    assert not scheduler.device.stuck(1.0)
    for size in (1, 2):
        held.lane.cost.learn(size, 10.0 * size)
    with threaded(scheduler), scheduler.admit(FAR) as visit:
        future = scheduler.submit(visit, held.lane, [1])
        assert held.entered.acquire(timeout=SECONDS)
        clock[0] = 150.0
        assert not scheduler.device.stuck(90.0)
        clock[0] = 250.0
        assert scheduler.device.stuck(90.0)
        held.go.release()
        future.result(SECONDS)
        future = scheduler.submit(visit, held.lane, [2])
        assert held.entered.acquire(timeout=SECONDS)
        assert not scheduler.device.stuck(90.0)
        held.go.release()
        future.result(SECONDS)


def test_it_may_be_stuck_while_it_closes_and_is_not_once_it_has_ended() -> None:
    clock = [0.0]
    held, scheduler = Held(), Scheduler(100, clock=lambda: clock[0])
    with threaded(scheduler, at_once=2), scheduler.admit(FAR) as visit:
        future = scheduler.submit(visit, held.lane, [1])
        assert held.entered.acquire(timeout=SECONDS)
        scheduler.close(0)
        clock[0] = 1e6
        assert scheduler.device.stuck(90.0)
        held.go.release()
        future.result(SECONDS)
        scheduler.close(SECONDS)
        clock[0] = 1e7
        assert not scheduler.device.stuck(90.0)


def test_who_prepares_for_ever_is_stuck() -> None:
    clock, go = [0.0], threading.Event()
    held, scheduler = Held(), Scheduler(100, clock=lambda: clock[0])

    def hang(items: Sequence[int], size: int) -> Sequence[int]:
        if threading.current_thread().name == "stage":
            held.prepared.release()
            assert go.wait(SECONDS)
        return items

    held.lane.prepare = hang
    with threaded(scheduler, ahead=True), scheduler.admit(FAR) as visit:
        first = scheduler.submit(visit, held.lane, [1])
        assert held.entered.acquire(timeout=SECONDS)
        second = scheduler.submit(visit, held.lane, [2])
        assert held.prepared.acquire(timeout=SECONDS)
        held.go.release()
        first.result(SECONDS)
        until(lambda: not scheduler.device.busy)
        clock[0] = 100.0
        scheduler.device.step()  # it waits for what is being prepared
        assert scheduler.device.stuck(90.0)
        held.go.release()
        go.set()
        second.result(SECONDS)
        assert not scheduler.device.stuck(90.0)


def test_when_its_thread_dies_the_device_is_stuck_and_nobody_waits_for_ever() -> None:
    def die(items: Sequence[int]) -> Sequence[int]:
        raise SystemExit

    scheduler = Scheduler(100)
    scheduler.device.start()
    with scheduler.admit(FAR) as visit:
        running = scheduler.submit(visit, Lane("die", die), [1])
        assert isinstance(running.exception(SECONDS), EngineFailed)
        assert scheduler.device.stuck(1e9)
    scheduler.close(SECONDS)
