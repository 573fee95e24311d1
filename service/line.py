"""Who waits for the device, and whose turn it is.

A visit is one request's stay. Visits take turns: each may use the device for a moment before it
goes to the end of the line, so that a photo of sixty people starves nobody, and a request that
comes back with its crops still has the place that it had with its photo.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from service.lanes import Lane
from service.problems import DeadlineExceeded, Problem

R = TypeVar("R")

TURN_S = 0.25
"""Of the device, in a turn: most photos are through in one. Where each needs two, of many who come
at once nobody is answered before all have had their first."""


@dataclass(frozen=True, slots=True)
class Done(Generic[R]):
    """What a submission comes back with.

    Attributes:
        results: of each item, in order, or its own problem.
        on_device_s: of its time, what was spent there, in batches that it may have shared and
            that may have run at the same time.
    """

    results: Sequence[R | Problem]
    on_device_s: float


@dataclass(eq=False)
class Ticket:
    """One submission: items of one visit for one lane, all of the same weight."""

    visit: Visit
    lane: Lane[Any, Any]
    items: Sequence[Any]
    future: Future[Done[Any]] = field(default_factory=Future)
    on_device_s: float = 0.0
    counted: float = -math.inf

    def __post_init__(self) -> None:
        self.todo = deque(range(len(self.items)))
        self.results: list[Any] = [None] * len(self.items)
        self._missing = set(self.todo)
        self.each_s = self.lane.share(self.items[0])
        self._count(len(self.todo))

    def _count(self, items: int) -> None:
        # Sums are kept, not made: whoever asks to come in is told at once how long the line is.
        self.visit.waiting += items
        self.visit.queued_s += items * self.each_s if self.visit.waiting else -self.visit.queued_s

    def take(self) -> int:
        """An item that waits no longer."""
        self._count(-1)
        return self.todo.popleft()

    def count(self, seconds: float, now: float) -> None:
        """Count a batch that has just ended, where no other one has been counted."""
        self.on_device_s += min(seconds, max(0.0, now - self.counted))
        self.counted = now

    def wanted(self, now: float) -> bool:
        """Whether somebody waits for it, in time."""
        return not self.future.done() and now < self.visit.deadline

    def put(self, index: int, result: object) -> None:
        """Take an item's first result; with the last item's the future is done."""
        if index not in self._missing:
            return
        self.results[index] = result
        self._missing.remove(index)
        if not self._missing:
            done = Done(self.results, self.on_device_s)
            self.items = ()  # photos are large, and their room is somebody else's now
            self._settle(lambda: self.future.set_result(done))

    def fail(self, problem: Problem) -> None:
        """All of it."""
        self._count(-len(self.todo))
        self.todo.clear()
        self._settle(lambda: self.future.set_exception(problem))

    def _settle(self, answer: Callable[[], None]) -> None:
        # False where whoever waited has given up.
        if not self.future.done() and self.future.set_running_or_notify_cancel():
            answer()


@dataclass(eq=False)
class Visit:
    """One request's stay.

    Attributes:
        deadline: on the scheduler's clock.
        promised: seconds of the device that it is counted on to ask for yet.
        prompt: until then; for good once its body is here. Who drips is counted on no more.
        left: seconds of its turn.
        tickets: submitted and not yet answered.
        trace: the request's span, where spans are made.
        waiting: its items that wait.
        queued_s: seconds of the device that these will take.
    """

    deadline: float
    promised: float = 0.0
    prompt: float = math.inf
    left: float = TURN_S
    tickets: list[Ticket] = field(default_factory=list)
    trace: object = None
    waiting: int = 0
    queued_s: float = 0.0


@dataclass(eq=False)
class Batch:
    """Items that run together.

    Attributes:
        items: tickets, and the number of the item in each.
        work: in the lane's unit.
        predicted: seconds.
        had_s: seconds of the device that it has had.
        others_s: since it began, while others went first.
        charged_s: of its own time, what its visit's turns have been charged with.
        inputs: prepared for the lane's `run`, or None.
        preparing: they are being made.
    """

    lane: Lane[Any, Any]
    items: Sequence[tuple[Ticket, int]]
    work: float = field(init=False)
    predicted: float = field(init=False)
    had_s: float = field(default=0.0, init=False)
    others_s: float = field(default=0.0, init=False)
    charged_s: float = field(default=0.0, init=False)
    inputs: Any = field(default=None, init=False)
    preparing: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.work = self.lane.work(self.payloads)
        self.predicted = self.lane.cost(self.work)

    def wanted(self, now: float) -> bool:
        """Whether somebody waits for any of it, in time."""
        return any(ticket.wanted(now) for ticket in self.tickets)

    @property
    def payloads(self) -> list[Any]:
        """The items themselves."""
        return [ticket.items[index] for ticket, index in self.items]

    @property
    def tickets(self) -> set[Ticket]:
        """Whose items they are."""
        return {ticket for ticket, _ in self.items}

    def rest(self, most: float) -> float:
        """Seconds of the device until it is done or, where it pauses, has run for `most`."""
        left = max(0.0, self.predicted - self.had_s)
        return min(left, most) if self.lane.pauses else left


class Line:
    """Visits in the order of their turns. Not safe to share without a lock."""

    def __init__(self) -> None:
        self._visits: dict[Visit, None] = {}

    def __iter__(self) -> Iterator[Visit]:
        return iter(self._visits)

    def join(self, visit: Visit) -> None:
        """Stand at the end."""
        self._visits[visit] = None

    def leave(self, visit: Visit) -> None:
        """Be gone, and with it what it asked for."""
        self._visits.pop(visit, None)
        for ticket in visit.tickets:
            ticket.future.cancel()

    def end_turn(self, visit: Visit) -> None:
        """Go to the end, if it still stands here."""
        if visit in self._visits:
            del self._visits[visit]
            self._visits[visit] = None
        visit.left = TURN_S

    def ahead(self, seconds: float, now: float, of: Visit | None = None) -> float:
        """How long others have the device before a visit has had it for `seconds`.

        Args:
            seconds: that the visit needs.
            now: on the scheduler's clock.
            of: the visit; None for one that joins now.
        """
        turns, total = max(1, math.ceil(seconds / TURN_S)), 0.0
        for visit in self:
            if visit is of:
                turns -= 1  # those behind have one turn fewer
            else:
                promised = visit.promised if now < visit.prompt else 0.0
                total += min(promised + visit.queued_s, turns * TURN_S)
        return total

    @property
    def waiting(self) -> int:
        """Items that do."""
        return sum(visit.waiting for visit in self)

    def bury(self, now: float) -> None:
        """Drop what nobody waits for, and what is late."""
        for visit in self:
            late = now >= visit.deadline
            gone = [ticket for ticket in visit.tickets if late or ticket.future.done()]
            for ticket in gone:
                ticket.fail(DeadlineExceeded("its deadline passed in the queue"))
                visit.tickets.remove(ticket)

    def queued(self) -> Iterator[Ticket]:
        """Tickets with items that wait, in the order of their turns."""
        return (ticket for visit in self for ticket in visit.tickets if ticket.todo)

    def form(self, now: float, before: Visit | None = None, among: int = 1) -> Batch | None:
        """The next batch: the lane of whoever is first, filled from all who stand in the line.

        Args:
            now: what is late by then is left out.
            before: a visit whose long work lets others go first: those who stand before it, and
                nothing that is long as well.
            among: threads that have nothing to do, the caller's included: they share what waits.
        """
        self.bury(now)
        first = self._first(before)
        if first is None:
            return None
        lane = first.lane
        lane.recover(now)
        tickets = [ticket for ticket in self.queued() if ticket.lane is lane]
        room = lane.first(math.ceil(sum(len(ticket.todo) for ticket in tickets) / among))
        items: list[tuple[Ticket, int]] = []
        # Everyone's turn first; then whoever is there, for a fuller batch costs little more.
        for within_turn in (True, False):
            for ticket in tickets:
                while ticket.todo and len(items) < room:
                    if within_turn and ticket.visit.left <= 0:
                        break
                    items.append((ticket, ticket.take()))
                    if not lane.pauses:  # such work is charged as it goes
                        ticket.visit.left -= ticket.each_s
        for visit in dict.fromkeys(ticket.visit for ticket, _ in items):
            if visit.left <= 0:
                self.end_turn(visit)
        return Batch(lane, items)

    def _first(self, before: Visit | None) -> Ticket | None:
        for visit in self:
            if visit is before:
                return None
            for ticket in visit.tickets:
                if ticket.todo and (before is None or not ticket.lane.pauses):
                    return ticket
        return None
