"""Whatever comes, goes, fails or is late: everyone gets exactly their own answer, once."""

from __future__ import annotations

from collections import Counter, deque
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, field

from hypothesis import strategies as st

from service.line import Done, Visit
from service.problems import DeadlineExceeded, EngineFailed, Overloaded, Problem
from tests.service.sim import Sim


@dataclass(frozen=True)
class Come:
    """A request, in one or two submissions, and what is wrong with some of its items."""

    items: tuple[str, ...]
    long: bool
    seconds: float
    again: bool


@dataclass(frozen=True)
class Leave:
    """The client of one of the requests hangs up, or gives up what it waits for."""

    which: int
    whole: bool


@dataclass(frozen=True)
class Wait:
    seconds: float


@dataclass(frozen=True)
class Turn:
    """The device runs a batch, or prepares one, while so many other things happen."""

    meanwhile: int
    stage: bool


SCHEDULES = st.lists(
    st.one_of(
        st.builds(
            Come,
            items=st.lists(st.sampled_from(("good",) * 6 + ("bad", "odd")), min_size=1, max_size=12)
            .map(tuple),
            long=st.booleans(),
            seconds=st.sampled_from((0.005, 0.02, 0.1, 1.0, 1e6, 1e6)),
            again=st.booleans(),
        ),
        st.builds(Leave, which=st.integers(0, 20), whole=st.booleans()),
        st.builds(Wait, seconds=st.sampled_from((0.001, 0.01, 0.5))),
        st.builds(Turn, meanwhile=st.integers(0, 4), stage=st.booleans()),
        st.builds(Turn, meanwhile=st.integers(0, 4), stage=st.booleans()),
    ),
    max_size=25,
)  # fmt: skip


@dataclass
class Asked:
    visit: Visit
    stack: ExitStack
    items: dict[int, str]
    future: Future[Done[int]]
    left: bool = False
    answers: list[object] = field(default_factory=list)


def check_schedule(schedule: list[Come | Leave | Wait | Turn]) -> None:
    """Play it, and look at who got what."""
    _Play(schedule).check()


class _Play:
    def __init__(self, schedule: list[Come | Leave | Wait | Turn]) -> None:
        self.todo = deque(schedule)
        self.sim = Sim(capacity=40)
        self.sim.during = self.meanwhile
        self.sim.room = 6
        self.short = self.sim.lane(prepare=lambda items, size: list(items))
        self.long = self.sim.long_lane(0.03)
        self.asked: list[Asked] = []
        self.numbers = 100
        self.left_meanwhile = 0

    def meanwhile(self) -> None:
        device = self.sim.scheduler.device
        while self.left_meanwhile and self.todo:
            action = self.todo[0]
            if isinstance(action, Turn) and (device.staged or not action.stage):
                return
            self.left_meanwhile -= 1
            self.todo.popleft()
            if isinstance(action, Turn):
                device.stage()
            else:
                self.do(action)

    def do(self, action: Come | Leave | Wait | Turn) -> None:
        device = self.sim.scheduler.device
        if isinstance(action, Wait):
            self.sim.now += action.seconds
        elif isinstance(action, Leave) and self.asked:
            asked = self.asked[action.which % len(self.asked)]
            if action.whole:
                asked.stack.close()
                asked.left = True
            else:
                asked.future.cancel()
        elif isinstance(action, Come):
            self.come(action)
        elif isinstance(action, Turn):
            self.left_meanwhile = action.meanwhile
            if self.sim.scheduler.waiting:
                (device.stage if action.stage and not device.staged else device.step)()

    def come(self, action: Come) -> None:
        stack = ExitStack()
        try:
            admitted = self.sim.scheduler.admit(self.sim.now + action.seconds, 0.01)
            visit = stack.enter_context(admitted)
            for _ in range(1 + action.again):
                if action.long:
                    # Long ones are known by their number of parts, which nobody shares.
                    self.numbers += 1
                    items = {self.numbers % 7 + 1: "good"}
                    lane = self.long
                else:
                    items = {self.numbers + n: kind for n, kind in enumerate(action.items)}
                    self.numbers += len(items)
                    lane = self.short
                self.sim.bad |= {n for n, kind in items.items() if kind == "bad"}
                self.sim.odd |= {n for n, kind in items.items() if kind == "odd"}
                future = self.sim.scheduler.submit(visit, lane, list(items))
                asked = Asked(visit, stack, items, future)
                future.add_done_callback(asked.answers.append)
                self.asked.append(asked)
        except (Overloaded, DeadlineExceeded):
            stack.close()  # refused, and said so at once

    def check(self) -> None:
        while self.todo:
            self.do(self.todo.popleft())
        self.left_meanwhile = 0
        while self.sim.scheduler.waiting or self.sim.scheduler.device.staged:
            self.sim.scheduler.device.step()
        for asked in self.asked:
            assert len(asked.answers) == 1, "answered once"
            self.check_answer(asked)
        runs = Counter(number for batch in self.sim.batches for number in batch if number >= 100)
        for asked in self.asked:
            for number in asked.items:
                # Only neighbours of a bad item, or of too many, are run again.
                assert number < 100 or runs[number] <= 5
        assert all(len(batch) <= 8 for batch in self.sim.batches)
        assert self.sim.scheduler.waiting == 0

    def check_answer(self, asked: Asked) -> None:
        if asked.future.cancelled():
            return
        error = asked.future.exception()
        if error is not None:
            assert isinstance(error, DeadlineExceeded)
            assert asked.left or self.sim.now >= asked.visit.deadline
            return
        results = asked.future.result().results
        assert len(results) == len(asked.items)
        for (number, kind), result in zip(asked.items.items(), results, strict=True):
            if kind == "good":
                assert result == number * number, (number, result)
            else:
                assert isinstance(result, EngineFailed)
                assert isinstance(result, Problem)
