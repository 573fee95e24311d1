"""How fast weights may move, from the first step to the last."""

from __future__ import annotations

import math


def rate(step: int, steps: int, ramp: int, flat: float) -> float:
    """The share of the full learning rate: a line up, flat, then a cosine down to a hundredth.

    Args:
        step: that is about to be taken, from 0.
        steps: of the whole run.
        ramp: steps of the line.
        flat: the share of the steps before the cosine.
    """
    if step < ramp:
        return (step + 1) / ramp
    through = (step - flat * steps) / max(1.0, (1 - flat) * steps)
    return 1.0 if through <= 0 else 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, through)))
