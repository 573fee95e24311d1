"""What a bundle's scores and spreads are worth, fitted on `coco/dev` through the product's path.

A score becomes the share of labelled joints with such a peak that lie within a tenth of their
person's size; a spread the radius within which 68 % of the joints with such a spread lie.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.calibration import IDENTITY, Calibration, Curve
from models.manifest import PoseManifest
from models.pose import PoseModel
from models.predictor import HeadChoice, Predictor
from training.evaluate import encoded_photos
from training.joint_errors import JointErrors, People
from training.reliability import RIGHT
from training.truth import Truth

Floats = NDArray[np.float64]

WITHIN = 0.68
"""Of the joints, that lie within their sigma."""

SCORE_BINS, SIGMA_BINS = 16, 12
"""With as many joints each: the curves have a point a bin at most."""


@dataclass(frozen=True, slots=True, eq=False)
class Joints:
    """The labelled joints of a split as a head has found them, flat.

    Attributes:
        scores: as answered.
        sigmas: as answered, px of the image.
        errors: distance from the label, px of the image.
        sizes: of their people, px of the image.
        scales: of their crops: px of the image along a pixel of the crop.
    """

    scores: Floats
    sigmas: Floats
    errors: Floats
    sizes: Floats
    scales: Floats

    @classmethod
    def of(cls, errors: JointErrors, scales: Floats) -> Joints:
        """Those that are labelled.

        Args:
            errors: of N people, with sigmas.
            scales: (N,) of their crops.
        """
        assert errors.sigmas is not None
        seen = np.isfinite(errors.distances)
        person, _ = np.nonzero(seen)
        return cls(
            errors.scores[seen],
            errors.sigmas[seen],
            errors.distances[seen],
            errors.size[person],
            scales[person],
        )

    @property
    def right(self) -> NDArray[np.bool_]:
        """Those within a tenth of their person's size."""
        return np.asarray(self.errors <= RIGHT * self.sizes, np.bool_)


def calibrate(model: PoseModel, truth: Truth) -> PoseManifest:
    """The model's manifest with curves for each head, fitted with the manifest's decodes, no flip.

    Args:
        model: of the COCO keypoint set.
        truth: `coco/dev`, so that neither the weights have learnt from it nor is it reported.
    """
    seen = observe(with_curves(model, {}), truth)
    return with_curves(model, {head: fit(joints) for head, joints in seen.items()}).manifest


def with_curves(model: PoseModel, curves: dict[str, Calibration]) -> PoseModel:
    """The model as it were with these curves, raw where there is none, on the same engine."""
    return model.with_heads(
        {head: {"calibration": curves.get(head, IDENTITY)} for head in model.heads}
    )


def observe(model: PoseModel, truth: Truth) -> dict[str, Joints]:
    """By head the labelled joints of a split, with the labels' boxes and the manifest's decodes.

    Args:
        model: calibrated, or with the identity for curves.
        truth: the split.
    """
    predictor = Predictor(model)
    choices = [HeadChoice(head, model.decodes[head][0], sigma=True) for head in model.heads]
    truth = truth.with_people()
    people: dict[str, People] = {head: [] for head in model.heads}
    scales: list[float] = []
    for encoded in encoded_photos(predictor, truth, flip=False):
        scales += [geometry.scale for geometry in encoded.geometries]
        for choice in choices:
            people[choice.head].append(predictor.read(encoded, [choice]))
    return {
        head: Joints.of(JointErrors.of(truth, found), np.array(scales))
        for head, found in people.items()
    }


def fit(joints: Joints) -> Calibration:
    """Curves from raw scores and spreads."""
    raw, share = _rising(joints.scores, joints.right.astype(float), SCORE_BINS, _share)
    inner = (raw > 0) & (raw < 1)
    score = _curve(np.r_[0.0, raw[inner], 1.0], np.r_[0.0, share[inner], 1.0])
    spread = joints.sigmas / joints.scales
    return Calibration(
        score=score,
        sigma=_curve(*_rising(spread, joints.errors / joints.scales, SIGMA_BINS, _radius)),
    )


def _share(right: Floats) -> float:
    """Of joints that are right; of few joints none is certain (Laplace's rule)."""
    return float((right.sum() + 1) / (len(right) + 2))


def _radius(errors: Floats) -> float:
    return float(np.quantile(errors, WITHIN))


def _rising(
    raw: Floats, outcome: Floats, bins: int, summary: Callable[[Floats], float]
) -> tuple[Floats, Floats]:
    """Bins of equal counts, joined until their summaries rise (pool adjacent violators).

    Args:
        raw: (N,).
        outcome: (N,) of each.
        bins: at most.
        summary: of the outcomes of a bin.

    Returns:
        The bins' mean raw numbers and their summaries, both strictly rising.
    """
    pools: list[NDArray[np.intp]] = []
    for part in np.array_split(np.argsort(raw, kind="stable"), min(bins, len(raw))):
        pools.append(part)
        while len(pools) > 1 and not (
            summary(outcome[pools[-2]]) < summary(outcome[pools[-1]])
            and raw[pools[-2]].mean() < raw[pools[-1]].mean()
        ):
            last = pools.pop()
            pools[-1] = np.concatenate([pools[-1], last])
    return (
        np.array([raw[pool].mean() for pool in pools]),
        np.array([summary(outcome[pool]) for pool in pools]),
    )


def _curve(raw: Floats, value: Floats) -> Curve:
    """Four digits; a single point is level."""
    if len(raw) == 1:
        raw, value = np.r_[raw, raw + 1], np.r_[value, value]
    digits = np.round(raw, 4)
    kept = np.r_[True, np.diff(digits) > 0]
    return Curve(raw=tuple(digits[kept].tolist()), value=tuple(np.round(value, 4)[kept].tolist()))
