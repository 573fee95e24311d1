"""What ends work on the device, and what an engine's failure is to the callers."""

from __future__ import annotations

from models.engines import EngineAway
from service.lanes import RECOVER_S
from service.problems import EngineFailed, Overloaded, Problem


class Abandoned(Exception):  # noqa: N818
    """Nobody waits any more for anything in the batch."""


def memory_ran_out(error: Exception) -> bool:
    """Whether an engine failed for want of memory; each says so in its own way."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error).lower()
    return "out of memory" in text or "failed to allocate memory" in text or "bad_alloc" in text


def as_problem(error: object) -> Problem:
    """What a caller is told of an engine's failure; problems as they are."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, Exception) and memory_ran_out(error):
        return Overloaded("the device ran out of memory; try again later", retry_after=RECOVER_S)
    if isinstance(error, EngineAway):
        return Overloaded("the engine cannot be reached; try again later")
    return EngineFailed(
        f"the engine failed on this item ({type(error).__name__}); the log has more"
    )
