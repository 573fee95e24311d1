import asyncio
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from service.homeward import Homeward


def test_each_task_gets_its_own_result_or_error() -> None:
    async def wait() -> list[object]:
        homeward = Homeward(asyncio.get_running_loop())
        with ThreadPoolExecutor(2) as pool:
            futures = [pool.submit(int, text) for text in ("1", "two", "3")]
            return await asyncio.gather(*map(homeward.result, futures), return_exceptions=True)

    one, two, three = asyncio.run(wait())
    assert (one, three) == (1, 3)
    assert isinstance(two, ValueError)


def test_an_error_that_no_future_takes_holds_up_nobody_behind_it() -> None:
    async def wait() -> Sequence[object]:
        homeward, futures = Homeward(asyncio.get_running_loop()), [Future[int]() for _ in range(2)]
        waiting = asyncio.gather(*map(homeward.result, futures), return_exceptions=True)
        await asyncio.sleep(0)
        futures[0].set_exception(StopIteration())
        futures[1].set_result(2)
        return await waiting

    first, second = asyncio.run(wait())
    assert isinstance(first, RuntimeError)
    assert second == 2


def test_the_loop_is_woken_once_for_all_that_ends_before_it_looks() -> None:
    async def wait() -> tuple[list[int], int]:
        loop, woken = asyncio.get_running_loop(), 0
        wake = loop.call_soon_threadsafe

        def counting(*args: object, **options: object) -> asyncio.Handle:
            nonlocal woken
            woken += 1
            return wake(*args, **options)  # type: ignore[arg-type]

        loop.call_soon_threadsafe = counting  # type: ignore[method-assign]
        homeward, futures = Homeward(loop), [Future[int]() for _ in range(16)]
        waiting = asyncio.gather(*map(homeward.result, futures))
        await asyncio.sleep(0)
        for number, future in enumerate(futures):
            future.set_result(number)
        return await waiting, woken

    results, woken = asyncio.run(wait())
    assert results == list(range(16))
    assert woken == 1


def test_who_gives_up_takes_the_work_along() -> None:
    async def give_up(future: Future[int]) -> None:
        task = asyncio.create_task(Homeward(asyncio.get_running_loop()).result(future))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    future: Future[int] = Future()
    asyncio.run(give_up(future))
    assert future.cancelled()
