import asyncio

from service.overdue import Overdue


class Caller:
    def __init__(self) -> None:
        self.hung_up = 0

    def hang_up(self) -> None:
        self.hung_up += 1


def test_only_those_past_their_own_time_are_hung_up_on_and_once() -> None:
    async def scenario() -> None:
        now = [0.0]
        overdue = Overdue(lambda: now[0])
        late, renewed, forgotten, patient = (Caller() for _ in range(4))
        for caller in (late, renewed, forgotten):
            overdue.wait(caller, 1.0)
        overdue.wait(patient, 9.0)
        now[0] = 0.9
        overdue.sweep()
        assert not late.hung_up
        overdue.wait(renewed, 1.0)
        overdue.forget(forgotten)
        overdue.forget(forgotten)
        for now[0] in (1.0, 1.5):
            overdue.sweep()
            assert [c.hung_up for c in (late, renewed, forgotten, patient)] == [1, 0, 0, 0]
        now[0] = 10.0
        overdue.sweep()
        assert [c.hung_up for c in (late, renewed, forgotten, patient)] == [1, 1, 0, 1]

    asyncio.run(scenario())


def test_it_looks_again_by_itself_while_anybody_is_waited_for() -> None:
    async def scenario() -> None:
        overdue, gone = Overdue(), asyncio.Event()

        class Impatient:
            def hang_up(self) -> None:
                gone.set()

        for _ in range(2):  # also when there has been nobody for a while
            gone.clear()
            overdue.wait(Impatient(), 0.0)
            async with asyncio.timeout(30):
                await gone.wait()

    asyncio.run(scenario())
