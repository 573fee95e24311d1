import asyncio
import random
from contextlib import ExitStack, suppress
from heapq import heappop, heappush

import pytest

from service.budget import ByteBudget
from service.clients import ClientBuckets
from service.gate import Gate, work_of
from service.problems import ClientLimit, Draining, Overloaded, Starting, UnreadableImage
from service.scheduler import PROMPT_S
from service.timings import Timings

FAR = 1e9


class Clock:
    """Moves when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def opened(capacity: int = 100, clock: Clock | None = None, device_s: float = 0.0) -> Gate:
    gate = Gate(capacity, lambda: device_s, clock or Clock())
    gate.state = "ready"
    return gate


def serve_one(gate: Gate, clock: Clock, seconds: float, work: float = 1.0) -> None:
    """A lone request that takes the host so long."""
    with gate.enter(FAR, Timings(), work) as place:
        gate.arrived(place)
        clock.now += seconds


def test_nothing_comes_in_before_the_weights() -> None:
    with pytest.raises(Starting), Gate(2).enter(FAR, Timings()):
        pass


def test_no_more_come_in_than_fit() -> None:
    gate = opened(2)
    with gate.enter(FAR, Timings()), gate.enter(FAR, Timings()):
        with pytest.raises(Overloaded), gate.enter(FAR, Timings()):
            pass
        assert gate.inside == 2
    with gate.enter(FAR, Timings()):
        assert gate.inside == 1


def test_a_leaving_server_is_not_ready_and_still_lets_in() -> None:
    gate = opened()
    gate.state = "leaving"
    with pytest.raises(Draining):
        gate.check_ready()
    with gate.enter(FAR, Timings()):
        pass


def test_a_closed_server_lets_nobody_in_and_empties() -> None:
    async def scenario() -> None:
        gate = opened()
        inside = gate.enter(FAR, Timings())
        inside.__enter__()
        gate.state = "closed"
        with pytest.raises(Draining), gate.enter(FAR, Timings()):
            pass
        emptied = asyncio.create_task(gate.empty())
        await asyncio.sleep(0)
        assert not emptied.done()
        inside.__exit__(None, None, None)
        await emptied

    asyncio.run(scenario())


def test_who_cannot_be_through_in_time_is_refused_and_who_has_time_is_not() -> None:
    clock = Clock()
    gate = opened(clock=clock)
    serve_one(gate, clock, 0.1)
    with ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(gate.enter(clock.now + 10, Timings()))
        refused = gate.refusal(0.5)
        assert refused is not None
        assert int(refused.headers["Retry-After"]) >= 1
        assert gate.refusal(2.0) is None
        # A large body is more work than a small one.
        assert gate.refusal(2.0, work_of(20_000_000)) is not None


def test_what_waits_for_the_device_counts_too() -> None:
    gate = opened(device_s=3.0)
    with gate.enter(FAR, Timings()):
        assert gate.refusal(2.0) is not None
        assert gate.refusal(4.0) is None


def test_time_on_the_device_says_nothing_of_the_host() -> None:
    clock = Clock()
    gate = opened(clock=clock)
    timings = Timings()
    with gate.enter(FAR, timings) as place:
        gate.arrived(place)
        clock.now += 5.0
        timings.record("queue", 0.0, 4.0)
        timings.record("encode", 4.0, 4.99)
    with gate.enter(FAR, Timings()):
        assert gate.refusal(0.1) is None


def test_those_that_passed_the_door_count_before_they_have_their_places() -> None:
    gate = opened(2)
    for _ in range(2):
        assert gate.refusal(1.0) is None
        gate.coming(1.0)
    assert gate.refusal(1.0) is not None
    gate.begun(1.0)
    with gate.enter(FAR, Timings()):
        assert gate.refusal(1.0) is not None
        gate.begun(1.0)
    assert gate.refusal(1.0) is None


def test_a_lone_request_is_always_tried_so_that_a_wrong_estimate_is_righted() -> None:
    clock = Clock()
    gate = opened(clock=clock)
    for _ in range(100):
        serve_one(gate, clock, 60.0)
    with gate.enter(clock.now + 1, Timings()):
        assert gate.refusal(1.0) is not None
    for _ in range(20):
        serve_one(gate, clock, 0.01)
    with gate.enter(clock.now + 1, Timings()):
        assert gate.refusal(1.0) is None


def test_a_bad_photo_that_fails_at_once_does_not_make_the_host_look_fast() -> None:
    clock = Clock()
    gate = opened(clock=clock)
    serve_one(gate, clock, 1.0)
    for _ in range(100):
        with suppress(UnreadableImage), gate.enter(FAR, Timings()) as place:
            gate.arrived(place)
            clock.now += 0.001
            raise UnreadableImage("no photo")
    with gate.enter(FAR, Timings()):
        assert gate.refusal(1.0) is not None


def test_who_drips_takes_nobodys_place_and_is_waited_for_all_the_same() -> None:
    async def scenario() -> None:
        clock = Clock()
        gate = opened(2, clock)
        with ExitStack() as drippers:
            slow = [drippers.enter_context(gate.enter(FAR, Timings())) for _ in range(2)]
            assert gate.refusal(60.0) is not None
            clock.now += PROMPT_S
            with gate.enter(FAR, Timings()), gate.enter(FAR, Timings()):
                assert gate.inside == 2
                # One of them is done at last, and others are at work meanwhile.
                with pytest.raises(Overloaded):
                    gate.arrived(slow[0])
            gate.arrived(slow[1])
            assert gate.inside == 1
            emptied = asyncio.create_task(gate.empty())
            await asyncio.sleep(0)
            assert not emptied.done()
        await emptied
        assert gate.inside == 0

    asyncio.run(scenario())


@pytest.mark.parametrize("lag_s", [0.0, 0.1])
@pytest.mark.parametrize("times", [1, 3, 10])
def test_under_any_load_what_is_let_in_is_in_time_and_the_host_stays_busy(
    times: int, lag_s: float
) -> None:
    """Two threads that need 8 ms a photo, a crowd that knows nothing of them.

    A lag is what each waits for besides, however few they are: a loop busy with refusals.
    """
    each_s, threads, deadline_s, seconds = 0.008, 2, 0.25, 20.0
    capacity = threads / each_s
    clock = Clock()
    gate = opened(256, clock)
    rng = random.Random(1)
    free = [0.0] * threads
    ends: list[tuple[float, int, float, ExitStack]] = []
    good = late = sent = 0
    due = 0.0
    while due < seconds:
        due += rng.expovariate(times * capacity)
        sent += 1
        while ends and ends[0][0] <= due:
            clock.now, _, deadline, stack = heappop(ends)
            good, late = (good + 1, late) if clock.now <= deadline else (good, late + 1)
            stack.close()
        clock.now = due
        stack = ExitStack()
        try:
            gate.arrived(stack.enter_context(gate.enter(due + deadline_s, Timings())))
        except Overloaded:
            continue
        begun = max(due, heappop(free))
        heappush(free, begun + each_s * rng.uniform(0.5, 1.5))
        end = max(free) + lag_s * rng.uniform(0.5, 1.5)
        heappush(ends, (end, sent, due + deadline_s, stack))
    offered = min(times * capacity, capacity) * seconds
    assert good >= 0.9 * offered
    assert late <= (0.05 if lag_s else 0.02) * good


def test_a_client_over_its_rate_is_refused_until_its_bucket_fills() -> None:
    now = [0.0]
    buckets = ClientBuckets(2.0, lambda: now[0])
    buckets.take("a")
    buckets.take("a")
    with pytest.raises(ClientLimit) as refused:
        buckets.take("a")
    assert refused.value.headers["Retry-After"] == "1"
    buckets.take("b")
    now[0] += 0.5
    buckets.take("a")
    with pytest.raises(ClientLimit):
        buckets.take("a")


def test_without_a_rate_nobody_is_refused() -> None:
    buckets = ClientBuckets(None, lambda: 0.0)
    for _ in range(1000):
        buckets.take("a")


def test_a_slow_rate_still_lets_the_first_request_through() -> None:
    buckets = ClientBuckets(0.1, lambda: 0.0)
    buckets.take("a")
    with pytest.raises(ClientLimit) as refused:
        buckets.take("a")
    assert refused.value.headers["Retry-After"] == "10"


def test_a_budget_makes_the_next_one_wait_for_room() -> None:
    async def scenario() -> None:
        budget = ByteBudget(10)
        order: list[str] = []

        async def holder(name: str, size: int, done: asyncio.Event) -> None:
            async with budget.hold(size):
                order.append(name)
                await done.wait()

        first, second = asyncio.Event(), asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(holder("first", 8, first))
            group.create_task(holder("second", 5, second))
            group.create_task(holder("third", 2, second))
            for _ in range(5):
                await asyncio.sleep(0)
            # The third would fit, but nobody overtakes.
            assert (order, budget.held) == (["first"], 8)
            first.set()
            second.set()
        assert order == ["first", "second", "third"]
        assert budget.held == 0

    asyncio.run(scenario())


def test_what_is_larger_than_the_budget_is_let_in_alone() -> None:
    async def scenario() -> None:
        budget = ByteBudget(10)
        async with budget.hold(50):
            assert budget.held == 50
        assert budget.held == 0

    asyncio.run(scenario())


def test_who_gives_up_waiting_blocks_nobody() -> None:
    async def scenario() -> None:
        budget = ByteBudget(10)
        async with budget.hold(10):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.001), budget.hold(5):
                    pass
        async with budget.hold(10):
            assert budget.held == 10

    asyncio.run(scenario())
