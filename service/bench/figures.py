"""From what a run saw to the figures that one compares."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from service.bench.load import BROKEN, GAVE_UP, Answer, Plan, Record

_REFUSED = (429, 503)
_LATE = (GAVE_UP, 408, 504)
_SETTLE = 0.2
"""Share of a run that is left out of its rates: queues fill and empty there."""


@dataclass(frozen=True, slots=True)
class Figures:
    """One run.

    Attributes:
        load: what was put on, in words.
        offered_s: requests sent a second.
        photos_s: answered 200 a second, in time where the loop is open: the goodput.
        people_s: in them.
        p50_ms: of what was answered 200.
        p99_ms: likewise.
        sent: requests.
        answered: 200.
        refused: answered 429 or 503.
        refused_p99_ms: how long that took.
        late: whose client hung up after its patience, or that were answered 408 or 504.
        failed: everything else.
        health_p99_ms: of the health route meanwhile.
        lag_p99_ms: how late the clients themselves were in sending.
        recovered_s: after the last arrival, until a lone request took no longer than usual.
    """

    load: str
    offered_s: float
    photos_s: float
    people_s: float
    p50_ms: float
    p99_ms: float
    sent: int
    answered: int
    refused: int
    refused_p99_ms: float
    late: int
    failed: int
    health_p99_ms: float
    lag_p99_ms: float
    recovered_s: float | None


def figures(plan: Plan, record: Record) -> Figures:
    """Sum up a run; what it has none of is NaN."""
    good = [answer for answer in record.answers if answer.status == 200]
    ended = [answer.sent_s + answer.ms / 1000 for answer in good]
    # A run that ends with its last request ends with its last answer; any other by the clock.
    last = min(plan.seconds, max(ended, default=0.0)) if plan.requests else plan.seconds
    first = _SETTLE * last
    counted = [answer for answer, end in zip(good, ended, strict=True) if first < end <= last]
    counted_s = max(last - first, 1e-9)
    refused = [answer for answer in record.answers if answer.status in _REFUSED]
    late = sum(answer.status in _LATE for answer in record.answers)
    sent = len(record.answers)
    open_loop = plan.rate is not None
    return Figures(
        load=f"{plan.rate:.4g}/s" if open_loop else f"{plan.clients} at once",
        offered_s=sent / max(plan.seconds if open_loop else last, 1e-9),
        photos_s=len(counted) / counted_s,
        people_s=sum(answer.people for answer in counted) / counted_s,
        p50_ms=quantile(_ms(good), 0.5),
        p99_ms=quantile(_ms(good), 0.99),
        sent=sent,
        answered=len(good),
        refused=len(refused),
        refused_p99_ms=quantile(_ms(refused), 0.99),
        late=late,
        failed=sent - len(good) - len(refused) - late,
        health_p99_ms=quantile(record.health_ms, 0.99),
        lag_p99_ms=quantile(record.lag_ms, 0.99),
        recovered_s=record.recovered_s,
    )


def quantile(values: Sequence[float], share: float) -> float:
    """The value that `share` of all are no larger than; NaN of none."""
    if not values:
        return math.nan
    return sorted(values)[min(len(values) - 1, math.ceil(share * len(values)) - 1)]


def failure(answer: Answer) -> str:
    """In words what went wrong."""
    if answer.status == BROKEN:
        return "closed the connection without an answer"
    if answer.status == GAVE_UP:
        return "did not answer"
    return f"answered {answer.status}"


def _ms(answers: Iterable[Answer]) -> list[float]:
    return [answer.ms for answer in answers]
