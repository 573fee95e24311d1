"""The threads that run batches: what happens between a batch and its items' results."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from models.engines import EngineAway
from service.failures import Abandoned, as_problem, memory_ran_out
from service.line import TURN_S, Batch, Line, Visit
from service.problems import DeadlineExceeded, EngineFailed
from service.running import Running

logger = logging.getLogger(__name__)

_BEYOND = 20
"""A batch that takes so many times its cost, and longer than is allowed, is stuck."""


class Device:
    """Serves a line, each of its threads one batch at a time.

    Args:
        line: of those who wait.
        wake: on the lock; whoever runs batches waits for it.
        lock: guards the line.
        on_batch: told of every batch that came back, and its seconds.
        clock: monotonic seconds.

    Attributes:
        staged: the batch that runs next, prepared or nearly so.
    """

    def __init__(
        self,
        line: Line,
        wake: threading.Condition,
        lock: threading.RLock,
        on_batch: Callable[[Batch, float], None],
        clock: Callable[[], float],
    ) -> None:
        self._line, self._wake, self._on_batch, self._clock = line, wake, on_batch, clock
        self._running = Running(clock)
        self.staged: Batch | None = None
        self._closing = self._dead = False
        self._at_once = 1
        # Who prepares is woken by what is worth it and not by every item.
        self._staging = threading.Condition(lock)
        self._staging_timed = False
        self._beats: dict[int, float] = {}
        self._threads: list[threading.Thread] = []

    def start(self, *, at_once: int = 1, ahead: bool = False) -> None:
        """Begin to run what waits.

        Args:
            at_once: batches.
            ahead: prepare the next batch while one runs. On a CPU that takes cores from it.
        """
        self._at_once = at_once
        for name, work in [("device", self._serve)] * at_once + [("stage", self._prepare)] * ahead:
            self._threads.append(threading.Thread(target=work, name=name, daemon=True))
            self._threads[-1].start()

    def close(self, patience: float) -> None:
        """Run what waits, then end.

        Args:
            patience: seconds to wait for that. A thread that has not ended then is left behind.
        """
        limit = time.monotonic() + patience
        with self._wake:
            self._closing = True
            self._wake.notify_all()
            self._staging.notify()
        for thread in self._threads:
            thread.join(max(0.0, limit - time.monotonic()))

    def grown(self) -> None:
        """The line has. To be told with its lock."""
        self._wake.notify_all()
        if not self._staging_timed:
            self._staging.notify()

    def stuck(self, patience: float) -> bool:
        """Whether it is dead, rather than busy.

        Args:
            patience: seconds that anything may take.
        """
        with self._wake:
            expected = max((batch.predicted for batch in self._running.batches), default=0.0)
            now = self._clock()
            silent = now - min(self._beats.values(), default=now)
        return self._dead or silent > max(patience, _BEYOND * self._at_once * expected)

    @property
    def busy(self) -> bool:
        """Whether it has a batch."""
        return self._running.busy > 0

    def rest(self, most: float = TURN_S) -> float:
        """Seconds until what runs and what is staged are done, or have run for `most`.

        To be asked with the line's lock, as all that concerns what runs.
        """
        self._running.share_out()
        staged = self.staged.predicted if self.staged else 0.0
        return staged + sum(batch.rest(most) for batch in self._running.batches)

    def _beat(self) -> float:
        now = self._beats[threading.get_ident()] = self._clock()
        return now

    def pause(self) -> None:
        """For long work, between its parts: end it if it is in vain, let others have their turn.

        Raises:
            Abandoned: nobody waits any more for anything in the batch.
        """
        now = self._clock()
        if not (own := self._running.own):  # a trial, before there is anybody to wait
            return
        self._beat()
        batch = own[-1]
        if not batch.wanted(now):
            raise Abandoned
        if not batch.lane.pauses or len(own) > 1:
            return
        (visit,) = {ticket.visit for ticket in batch.tickets}
        with self._wake:
            self._running.share_out()
            visit.left -= batch.had_s - batch.charged_s
            batch.charged_s = batch.had_s
            if visit.left > 0:
                return
            self._line.end_turn(visit)
        while batch.wanted(self._clock()):
            with self._wake:
                other = self._next(before=visit)
            if other is None:
                return
            self._hold(other)
        raise Abandoned

    def _serve(self) -> None:
        try:
            while self.step():
                pass
            with self._wake:
                del self._beats[threading.get_ident()]
        except BaseException:
            self._dead = True
            logger.critical("the device's thread has died", exc_info=True)
            with self._wake:
                for ticket in [ticket for visit in self._line for ticket in visit.tickets]:
                    ticket.fail(EngineFailed("the device has stopped; ask another replica"))

    def step(self) -> bool:
        """Run the next batch, waiting for one; False once closed and nothing waits."""
        with self._wake:
            self._beats.setdefault(threading.get_ident(), self._clock())
            # Woken without work as well, so that an idle device has a heartbeat.
            self._wake.wait_for(self._has_next, timeout=1)
            if self.staged is not None and self.staged.preparing:
                return True  # without a heartbeat: who prepares for ever holds up everything
            self._beat()
            batch = self._next()
            over = batch is None and self._closing
        if batch is not None:
            self._hold(batch)
        return not over

    def _has_next(self) -> bool:
        if self.staged is not None:
            return not self.staged.preparing
        return self._closing or next(self._line.queued(), None) is not None

    def _next(self, before: Visit | None = None) -> Batch | None:
        """What is staged, else what waits; in the midst of a visit's long work nothing long."""
        staged = self.staged
        if staged is None or staged.preparing or (before is not None and staged.lane.pauses):
            idle = self._at_once - self._running.busy
            staged = self._line.form(self._clock(), before, among=max(1, idle))
        else:
            self.staged = None
        if staged is not None:
            # In the same step: the next thread that looks has fewer to share with.
            self._running.begin(staged)
            self._staging.notify()
        return staged

    def _hold(self, batch: Batch) -> None:
        """Have a batch on the device, whatever comes of it."""
        began = self._clock()
        try:
            self._run(batch)
        except Exception as error:
            logger.exception("the device thread failed on a batch of %d", len(batch.items))
            failure = EngineFailed(f"the batch could not be run ({type(error).__name__})")
            self._deliver(batch, [failure] * len(batch.items), 0.0)
        finally:
            with self._wake:
                self._running.end(batch)
                took_s = self._beat() - began
                for outer in self._running.own:
                    outer.others_s += took_s

    def _run(self, batch: Batch) -> None:
        lane, held, began = batch.lane, self._running.own[-1], self._clock()
        with self._wake:
            self._running.share_out()
            had_s, others_s = held.had_s, held.others_s
        failure: Exception | None = None
        try:
            inputs = lane.inputs(batch.payloads) if batch.inputs is None else batch.inputs
            results = lane.run(inputs)
            if len(results) != len(batch.items):
                raise RuntimeError(
                    f"{lane.name}: {len(results)} results for {len(batch.items)} items"
                )
        except Abandoned:
            with self._wake:
                for ticket in batch.tickets:
                    ticket.fail(DeadlineExceeded("its deadline passed on the device"))
            return
        except Exception as error:
            failure = error
        if failure is not None:
            self._narrow(batch, failure)
            return
        with self._wake:
            self._running.share_out()
            lane.cost.learn(batch.work, max(0.0, held.had_s - had_s))
        seconds = self._clock() - began - (held.others_s - others_s)
        self._deliver(batch, results, seconds)
        self._on_batch(batch, seconds)

    def _narrow(self, batch: Batch, error: Exception) -> None:
        """A batch failed: its halves are run again, down to the item whose fault it is."""
        count = len(batch.items)
        if isinstance(error, EngineAway):
            # Each half would wait as long for it as the whole did.
            logger.warning("%s: %s", batch.lane.name, error)
            self._deliver(batch, [as_problem(error)] * count, 0.0)
            return
        if memory_ran_out(error):
            batch.lane.shrink(count, self._clock())
        if count == 1:
            logger.warning("%s: an item failed", batch.lane.name, exc_info=error)
            self._deliver(batch, [as_problem(error)], 0.0)
            return
        for half in (batch.items[: count // 2], batch.items[count // 2 :]):
            if (part := Batch(batch.lane, half)).wanted(self._clock()):
                self._run(part)

    def _deliver(self, batch: Batch, results: Sequence[object], seconds: float) -> None:
        with self._wake:
            for ticket in batch.tickets:
                ticket.count(seconds, self._clock())
            for (ticket, index), result in zip(batch.items, results, strict=True):
                failed = isinstance(result, Exception)
                ticket.put(index, as_problem(result) if failed else result)

    def _prepare(self) -> None:
        """The other thread: stage the next batch when it is time."""
        while True:
            with self._wake:
                if self._closing:
                    return
                if (delay := self._until_staging()) is None or delay > 0:
                    self._staging_timed = delay is not None
                    self._staging.wait(delay)
                    continue
            self.stage()

    def _until_staging(self) -> float | None:
        """Seconds: as late as possible, that later items can still share the batch; None: wait."""
        if not self.busy or self.staged is not None:
            return None
        self._line.bury(self._clock())
        tickets = list(self._line.queued())
        if not tickets:
            return None
        lane = tickets[0].lane
        count = sum(len(ticket.todo) for ticket in tickets if ticket.lane is lane)
        if count >= lane.largest:
            return 0.0
        return self.rest() - lane.preparing(count)

    def stage(self) -> None:
        """Form the next batch and prepare it, while another one runs."""
        with self._wake:
            batch = self.staged = self._line.form(self._clock())
            if batch is None:
                return
            batch.preparing = True
        try:
            batch.inputs = batch.lane.inputs(batch.payloads)
        except Exception:
            logger.debug("preparing failed; it is tried again on the device", exc_info=True)
        with self._wake:
            batch.preparing = False
            self._wake.notify_all()
