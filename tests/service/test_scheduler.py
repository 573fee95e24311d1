from concurrent.futures import Future

import pytest

from service.line import TURN_S, Done
from service.problems import DeadlineExceeded, Draining, Overloaded
from service.scheduler import PROMPT_S, Scheduler
from tests.service.sim import BASE_S, EACH_S, Sim


@pytest.fixture
def sim() -> Sim:
    return Sim()


def test_what_waits_goes_together_first_come_first_served(sim: Sim) -> None:
    lane = sim.lane()
    asked = [sim.ask(lane, number) for number in range(11)]
    sim.work()
    assert [future.result(0).results for future in asked] == [[n * n] for n in range(11)]
    assert sim.batches == [[0, 1, 2, 3, 4, 5, 6, 7], [8, 9, 10]]


def test_a_lone_item_goes_at_once(sim: Sim) -> None:
    future = sim.ask(sim.lane(), 3)
    sim.scheduler.device.step()
    done = future.result(0)
    assert done.results == [9]
    assert sim.now == done.on_device_s == pytest.approx(BASE_S + EACH_S)


def test_time_on_the_device_is_that_of_its_own_batches(sim: Sim) -> None:
    lane = sim.lane()
    first, second = sim.ask(lane, *range(8)), sim.ask(lane, 9)
    sim.work()
    assert first.result(0).on_device_s == pytest.approx(BASE_S + 8 * EACH_S)
    assert second.result(0).on_device_s == pytest.approx(BASE_S + EACH_S)


def test_lanes_do_not_share_batches_and_go_in_turn(sim: Sim) -> None:
    odd, even = sim.lane("odd"), sim.lane("even")
    for number in (1, 2, 3, 4):
        sim.ask(odd if number % 2 else even, number)
    sim.work()
    assert sim.batches == [[1, 3], [2, 4]]


def test_a_photo_of_sixty_people_does_not_starve_one_of_one(sim: Sim) -> None:
    lane = sim.lane(buckets=(1, 2, 4))
    sim.ask(lane, *range(100, 1000))
    for _ in range(3):
        sim.scheduler.device.step()
    late = sim.ask(lane, 7)
    came = sim.now
    while not late.done():
        sim.scheduler.device.step()
    # The rest of the first one's turn and a batch: not its other 880 crops.
    assert sim.now - came <= TURN_S + 2 * lane.cost(4)


def test_a_request_comes_back_to_its_place(sim: Sim) -> None:
    photos, crops = sim.lane("photos", (1,)), sim.lane("crops")
    early = sim.visit()
    sim.scheduler.submit(early, photos, [1])
    for number in (2, 3):
        sim.ask(photos, number)
    sim.scheduler.device.step()
    sim.scheduler.submit(early, crops, [10, 11])
    sim.work()
    assert sim.batches == [[1], [10, 11], [2], [3]]


def test_long_work_lets_others_go_first_and_is_done_in_the_end(sim: Sim) -> None:
    short = sim.lane()
    long = sim.ask(sim.long_lane(part_s=0.05), 100)
    quick: list[Future[Done[int]]] = []
    came: list[float] = []
    went: list[float] = []

    def meanwhile() -> None:
        if len(quick) < 5 and (not quick or quick[-1].done()):
            came.append(sim.now)
            quick.append(sim.ask(short, len(quick)))
            quick[-1].add_done_callback(lambda _: went.append(sim.now))

    sim.during = meanwhile
    sim.work()
    assert len(went) == 5
    longest = max(end - begin for begin, end in zip(came, went, strict=True))
    assert longest <= 0.05 + TURN_S + short.cost(1)
    assert long.result(0).results == [10_000]
    # What others took meanwhile is not what it cost.
    assert long.result(0).on_device_s == pytest.approx(100 * 0.05)


def test_long_work_ends_when_nobody_waits_for_it(sim: Sim) -> None:
    lane = sim.long_lane(part_s=0.05)
    future = sim.ask(lane, 1000)

    def give_up() -> None:
        if sim.now > 1:
            future.cancel()

    sim.during = give_up
    sim.scheduler.device.step()
    assert sim.now == pytest.approx(1.05, abs=0.051)


def test_long_work_ends_at_its_deadline(sim: Sim) -> None:
    future = sim.ask(sim.long_lane(part_s=0.05), 1000, deadline=2.0)
    sim.scheduler.device.step()
    assert isinstance(future.exception(0), DeadlineExceeded)
    assert sim.now == pytest.approx(2.0, abs=0.051)


def test_a_request_that_ends_takes_its_items_along(sim: Sim) -> None:
    lane = sim.lane()
    with sim.scheduler.admit(1e9) as visit:
        future = sim.scheduler.submit(visit, lane, range(8))
        assert sim.scheduler.waiting == 8
    assert future.cancelled()
    assert sim.scheduler.waiting == 0
    kept = sim.ask(lane, 9)
    sim.work()
    assert kept.result(0).results == [81]
    assert sim.batches == [[9]]


def test_items_that_nobody_waits_for_are_left_out(sim: Sim) -> None:
    lane = sim.lane()
    for future in [sim.ask(lane, number) for number in range(8)][::2]:
        future.cancel()
    sim.work()
    assert sim.batches == [[1, 3, 5, 7]]


def test_what_is_late_is_not_run(sim: Sim) -> None:
    lane = sim.lane()
    late, timely = sim.ask(lane, 1, deadline=5.0), sim.ask(lane, 2, deadline=50.0)
    sim.now = 10.0
    sim.work()
    assert isinstance(late.exception(0), DeadlineExceeded)
    assert timely.result(0).results == [4]
    assert sim.batches == [[2]]


def test_a_full_line_refuses_at_once_and_whole_requests() -> None:
    sim = Sim(capacity=8)
    lane = sim.lane()
    sim.ask(lane, *range(6))
    with pytest.raises(Overloaded):
        sim.ask(lane, 1, 2, 3)
    assert sim.scheduler.waiting == 6
    sim.ask(lane, 1, 2)
    with pytest.raises(Overloaded) as refused:
        sim.visit()
    assert int(refused.value.headers["Retry-After"]) >= 1


def test_a_lone_request_larger_than_the_line_is_served() -> None:
    sim = Sim(capacity=8)
    future = sim.ask(sim.lane(), *range(20))
    sim.work()
    assert future.result(0).results == [n * n for n in range(20)]


def test_a_wait_longer_than_the_deadline_refuses_before_any_work(sim: Sim) -> None:
    lane = sim.lane(buckets=(1,))
    lane.cost.learn(1, 0.5)
    for _ in range(16):
        lane.cost.learn(1, 0.5)
    for number in range(10):
        sim.ask(lane, number)
    with pytest.raises(Overloaded) as refused:
        sim.visit(deadline=1.0, seconds=0.05)
    # 10 turns come before it, and then a little is missing.
    assert refused.value.retry_after == pytest.approx(10 * TURN_S + 0.05 - 1.0)
    sim.visit(deadline=10 * TURN_S + 0.2, seconds=0.05)


def test_what_the_running_batch_still_takes_counts_and_no_more(sim: Sim) -> None:
    lane = sim.lane(buckets=(1,))
    for _ in range(16):
        lane.cost.learn(1, 4.0)
    waits = []

    def during() -> None:
        began = sim.now
        for passed in (0.0, 1.0, 3.0, 9.0):
            sim.now = began + passed
            waits.append(sim.scheduler.turn_in_s)

    sim.during = during
    sim.ask(lane, 1)
    sim.scheduler.device.step()
    taken = BASE_S + EACH_S
    assert waits == pytest.approx([4.0 - taken, 3.0 - taken, 1.0 - taken, 0.0])


def test_those_let_in_before_count_with_what_they_are_expected_to_ask_for(sim: Sim) -> None:
    first = sim.visit(seconds=0.08)
    assert sim.scheduler.turn_in_s == pytest.approx(0.08)
    sim.now += PROMPT_S
    assert sim.scheduler.turn_in_s == 0.0  # its body may never come
    sim.scheduler.promise(first, 0.08)
    assert sim.scheduler.turn_in_s == pytest.approx(0.08)
    lane = sim.lane(buckets=(1,))
    sim.scheduler.submit(first, lane, [1], promised=0.08)
    assert sim.scheduler.turn_in_s == pytest.approx(lane.cost(1))


def test_on_an_idle_device_everything_is_tried(sim: Sim) -> None:
    future = sim.ask(sim.long_lane(), 100_000, deadline=1.0)
    assert not future.done()


def test_a_deadline_that_has_passed_is_that_and_not_an_overload(sim: Sim) -> None:
    with pytest.raises(DeadlineExceeded):
        sim.visit(deadline=0.0)


def test_closing_runs_what_was_accepted_and_refuses_the_rest() -> None:
    scheduler = Scheduler(100)
    sim = Sim()
    sim.scheduler = scheduler
    lane = sim.lane()
    futures = [sim.ask(lane, number) for number in range(20)]
    scheduler.device.start()
    scheduler.close(30)
    assert [future.result(0).results for future in futures] == [[n * n] for n in range(20)]
    with pytest.raises(Draining):
        sim.visit()
