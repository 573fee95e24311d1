"""What a head's raw numbers are worth: maps that were fitted on labelled people."""

from __future__ import annotations

from itertools import pairwise

from pydantic import ConfigDict, Field, model_validator

from models.arrays import Array, namespace
from models.strict import Strict


class Curve(Strict):
    """A map by straight lines between points, which never falls; level beyond its ends."""

    model_config = ConfigDict(allow_inf_nan=False)

    raw: tuple[float, ...] = Field(min_length=2, max_length=64)
    value: tuple[float, ...]

    @model_validator(mode="after")
    def _rising(self) -> Curve:
        if len(self.raw) != len(self.value):
            raise ValueError(f"{len(self.raw)} raw numbers have {len(self.value)} values")
        if any(b <= a for a, b in pairwise(self.raw)):
            raise ValueError("raw numbers do not rise")
        if any(b < a for a, b in pairwise(self.value)):
            raise ValueError("values fall")
        return self

    def __call__(self, raw: Array) -> Array:
        """The values of raw numbers, of the same shape, dtype and device."""
        xp = namespace(raw)

        def points(numbers: list[float]) -> Array:
            return xp.asarray(numbers, dtype=raw.dtype, device=raw.device)

        lengths = [b - a for a, b in pairwise(self.raw)]
        rises = [b - a for a, b in pairwise(self.value)]
        slopes = points([rise / length for rise, length in zip(rises, lengths, strict=True)])
        # How far into each of the lines a number has come.
        come = xp.clip(raw[..., None] - points(list(self.raw[:-1])), 0.0, None)
        return self.value[0] + xp.sum(xp.minimum(come, points(lengths)) * slopes, axis=-1)


class Calibration(Strict):
    """Of one head, fitted by `subpose-train calibrate` on people that it never learnt from."""

    score: Curve = Field(
        description="a joint's peak, over that of a perfect label -> the share of labelled joints "
        "within 0.1 of their person's size"
    )
    sigma: Curve = Field(
        description="the field's spread around the peak, crop px -> the radius, crop px, within "
        "which 68 % of labelled joints lie"
    )


IDENTITY = Calibration(
    score=Curve(raw=(0.0, 1.0), value=(0.0, 1.0)), sigma=Curve(raw=(0.0, 1e4), value=(0.0, 1e4))
)
"""Leaves the raw numbers as they are."""
