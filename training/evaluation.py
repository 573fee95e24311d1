"""The file `evaluation.json`: all that was measured of a bundle; cards and tables come of it."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from models.files import write_whole
from models.pose import PoseModel
from models.strict import Strict
from training.reliability import Reliability
from training.truth import Split

GROUND_TRUTH = "ground truth"
"""Boxes of the labels, in place of a detector's name."""


class Figures(Strict):
    """How one head with one decode did on one split.

    Attributes:
        boxes: `ground truth`, or the detector's name.
        photos: that were looked at.
        people: labelled in them, with at least one joint.
        found: people answered.
        metrics: the first one is the main one: COCO's ten, CrowdPose's nine, MPII's `PCKh@0.5` or
            LSP's `PCK@0.2`, of the joints that set and model share; with boxes of the labels
            also `error_median` and `error_mean`, a joint's distance over the square root of its
            person's box, `calibration_error`, of its score, and `within_sigma`, the share of
            joints within theirs.
        interval: 95 % of the main one, over photos.
        by_threshold: AP at each of COCO's ten thresholds; empty for LSP.
        reliability: of scores, with boxes of the labels.
        seconds: that encoding everyone and reading them this way took.
    """

    split: Split
    boxes: str
    flip: bool
    head: str
    decode: str
    resolution: int | None
    photos: int
    people: int
    found: int
    metrics: dict[str, float]
    interval: tuple[float, float]
    by_threshold: tuple[float, ...]
    reliability: Reliability = ()
    seconds: float

    @property
    def setting(self) -> tuple[str, str, bool, str, str, int | None]:
        """What was measured, without how it went."""
        return self.split, self.boxes, self.flip, self.head, self.decode, self.resolution

    @property
    def main(self) -> float:
        """The main metric."""
        return next(iter(self.metrics.values()))


Move = Literal["shift", "scale", "flip"]
"""Of the box that is cut out: aside by fractions of a pixel, larger and smaller, mirrored."""


class Deviation(Strict):
    """How far joints went that should have stayed while the crop moved around them.

    Attributes:
        joints: how many were compared.
        median_px: pixels of the crop.
        p90_px: likewise; one in ten went farther.
    """

    split: Split
    head: str
    decode: str
    resolution: int | None
    move: Move
    joints: int
    median_px: float
    p90_px: float


class Evaluation(Strict):
    """All that was measured of one bundle: the file `evaluation.json`.

    Attributes:
        bundle: its name.
        weights: digest of everything in the manifest that bears on the figures.
        engine: and device that ran it.
        measured: when, last.
    """

    bundle: str
    weights: str
    engine: str
    measured: datetime.date
    rows: tuple[Figures, ...]
    equivariance: tuple[Deviation, ...] = ()


def record(
    path: Path,
    model: PoseModel,
    figures: Sequence[Figures] = (),
    equivariance: Sequence[Deviation] = (),
) -> Evaluation:
    """Put figures into an evaluation file, whole or not at all.

    Figures of the same weights that are there already stay, unless the same was measured again;
    those of other weights go.

    Args:
        path: of `evaluation.json`.
        model: that was measured.
        figures: of it.
        equivariance: of it; replaces all of what was measured before.

    Raises:
        pydantic.ValidationError: what lies there is no evaluation.
    """
    weights = model.bundle.digest
    rows: dict[tuple[object, ...], Figures] = {}
    if path.exists():
        before = Evaluation.model_validate_json(path.read_bytes())
        if before.weights == weights:
            rows |= {row.setting: row for row in before.rows}
            equivariance = equivariance or before.equivariance
    rows |= {row.setting: row for row in figures}
    evaluation = Evaluation(
        bundle=model.name,
        weights=weights,
        engine=f"{model.engine.name}/{model.engine.device}",
        measured=datetime.datetime.now(datetime.UTC).date(),
        rows=tuple(rows.values()),
        equivariance=tuple(equivariance),
    )
    write_whole(path, evaluation.model_dump_json(indent=1) + "\n")
    return evaluation
