import asyncio

import pytest

from service.budget import ByteBudget
from service.gate import ClientBuckets, Gate
from service.problems import ClientLimit, Draining, Overloaded, Starting


def test_nothing_comes_in_before_the_weights() -> None:
    with pytest.raises(Starting), Gate(2).enter():
        pass


def test_no_more_come_in_than_fit() -> None:
    gate = Gate(2)
    gate.state = "ready"
    with gate.enter(), gate.enter():
        with pytest.raises(Overloaded), gate.enter():
            pass
        assert gate.inside == 2
    with gate.enter():
        assert gate.inside == 1


def test_a_leaving_server_is_not_ready_and_still_lets_in() -> None:
    gate = Gate(2)
    gate.state = "leaving"
    with pytest.raises(Draining):
        gate.check_ready()
    with gate.enter():
        pass


def test_a_closed_server_lets_nobody_in_and_empties() -> None:
    async def scenario() -> None:
        gate = Gate(2)
        gate.state = "ready"
        inside = gate.enter()
        inside.__enter__()
        gate.state = "closed"
        with pytest.raises(Draining), gate.enter():
            pass
        emptied = asyncio.create_task(gate.empty())
        await asyncio.sleep(0)
        assert not emptied.done()
        inside.__exit__(None, None, None)
        await emptied

    asyncio.run(scenario())


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
