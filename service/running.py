"""What runs on the device, and each batch's share of its time.

On a GPU one batch runs at a time, for it has the whole device. On a CPU a batch leaves cores idle
wherever its arithmetic is not parallel, so several run at once. What they cost is told in seconds
of the device all the same: of a second in which two batches run each has half.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable

from service.line import Batch


class Running:
    """Batches by the thread that runs them. Not safe to share without a lock.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        # Of each thread: long work, and what it has let go first.
        self._stacks: defaultdict[int, list[Batch]] = defaultdict(list)
        self._shared_out = clock()

    @property
    def own(self) -> list[Batch]:
        """The calling thread's."""
        return self._stacks[threading.get_ident()]

    @property
    def batches(self) -> list[Batch]:
        """All."""
        return [batch for stack in self._stacks.values() for batch in stack]

    @property
    def busy(self) -> int:
        """Threads that have one."""
        return sum(map(bool, tuple(self._stacks.values())))

    def begin(self, batch: Batch) -> None:
        """The calling thread has it now."""
        self.share_out()
        self.own.append(batch)

    def end(self, batch: Batch) -> None:
        """The calling thread is through with it."""
        self.share_out()
        self.own.remove(batch)

    def share_out(self) -> None:
        """Give each batch that runs its share of the time since this was last asked."""
        now = self._clock()
        running = [stack[-1] for stack in self._stacks.values() if stack]
        for batch in running:
            batch.had_s += (now - self._shared_out) / len(running)
        self._shared_out = now
