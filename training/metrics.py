"""How far joints are from their labels: COCO's AP, LSP's PCK, errors in pixels, intervals."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Sequence
from typing import Any

import faster_coco_eval
import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from models.formats import CocoRow
from models.keypoints import COCO17

STATS = ("AP", "AP50", "AP75", "APM", "APL", "AR", "AR50", "AR75", "ARM", "ARL")
"""COCO's ten, in its order: by threshold of similarity, by size of the person."""

OKS_THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""COCO's thresholds of similarity."""


class KeypointMatches:
    """COCO's matching of people found to people labelled, kept photo by photo.

    The matching is pycocotools' own and runs once. What it left of each photo is kept, so that AP
    over any resampling of the photos is a few sums.

    Attributes:
        stats: COCO's ten figures.
    """

    def __init__(
        self,
        labels: dict[str, Any],
        rows: Sequence[CocoRow],
        sigmas: Sequence[float] = COCO17.sigmas,
    ) -> None:
        """Match.

        Args:
            labels: a COCO keypoint file's content; all its images count, also those without rows.
            rows: the people found in them.
            sigmas: OKS constants of the joints.
        """
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints as it goes
            truth = COCO()
            truth.dataset = labels
            truth.createIndex()
            # loadRes refuses an empty list.
            found = truth.loadRes([dict(row) for row in rows]) if rows else COCO()
            evaluation = COCOeval(truth, found, "keypoints")
            evaluation.params.kpt_oks_sigmas = np.asarray(sigmas)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        self.stats = dict(zip(STATS, map(float, evaluation.stats), strict=True))
        self._recalls: NDArray[np.float64] = evaluation.params.recThrs
        self.images = len(evaluation.params.imgIds)
        self._keep(evaluation.evalImgs[: self.images])  # the first area is `all`

    def _keep(self, photos: Sequence[dict[str, Any] | None]) -> None:
        thresholds = len(OKS_THRESHOLDS)
        nothing: dict[str, Any] = {
            "dtScores": [],
            "dtMatches": np.zeros((thresholds, 0)),
            "dtIgnore": np.zeros((thresholds, 0), bool),
            "gtIgnore": np.zeros(0),
        }
        kept = [photo or nothing for photo in photos]
        self._labelled = np.array([np.sum(photo["gtIgnore"] == 0) for photo in kept], np.float64)
        counts = [len(photo["dtScores"]) for photo in kept]
        order = np.argsort(-np.concatenate([photo["dtScores"] for photo in kept]), kind="stable")
        matched = np.concatenate([photo["dtMatches"] for photo in kept], axis=1)[:, order] > 0
        counted = ~np.concatenate([photo["dtIgnore"] for photo in kept], axis=1)[:, order]
        self._image = np.repeat(np.arange(len(kept)), counts)[order]
        self._right, self._wrong = matched & counted, ~matched & counted

    def precision(self, weights: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        """Precision at COCO's 101 recalls, for each threshold of similarity.

        Args:
            weights: (images,) how often each image counts; None for once.

        Returns:
            (thresholds, recalls).
        """
        weights = np.ones(self.images) if weights is None else weights
        weight = weights[self._image]
        right = np.cumsum(self._right * weight, axis=1)
        wrong = np.cumsum(self._wrong * weight, axis=1)
        labelled = weights @ self._labelled
        result = np.zeros((len(OKS_THRESHOLDS), len(self._recalls)))
        if not labelled or not right.shape[1]:
            return result
        precision = right / (right + wrong + np.spacing(1))
        # The best precision at this recall or a higher one.
        envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        for row, recall, best in zip(result, right / labelled, envelope, strict=True):
            at = np.searchsorted(recall, self._recalls, side="left")
            reached = at < len(best)
            row[reached] = best[at[reached]]
        return result

    def ap(self, weights: NDArray[np.float64] | None = None) -> float:
        """AP, of the images as often as `weights` says."""
        return float(self.precision(weights).mean())


def quick_stats(
    labels: dict[str, Any],
    rows: Sequence[CocoRow],
    sigmas: Sequence[float] = COCO17.sigmas,
) -> dict[str, float]:
    """COCO's ten figures as `KeypointMatches` has them, by faster-coco-eval: while a run goes.

    Args:
        labels: a COCO keypoint file's content; all its images count, also those without rows.
        rows: the people found in them.
        sigmas: OKS constants of the joints.
    """
    if not rows:
        return dict.fromkeys(STATS, 0.0)
    truth = faster_coco_eval.COCO(labels)
    found = truth.loadRes([dict(row) for row in rows])
    evaluation = faster_coco_eval.COCOeval_faster(
        truth, found, "keypoints", kpt_oks_sigmas=list(sigmas)
    )
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return dict(zip(STATS, map(float, evaluation.stats[: len(STATS)]), strict=True))


def bootstrap(
    figure: Callable[[NDArray[np.float64]], float], images: int, *, draws: int = 200, seed: int = 0
) -> tuple[float, float]:
    """The 95 % interval of a figure, over images drawn with replacement.

    Args:
        figure: of (images,) weights, how often each image was drawn.
        images: that the figure was measured on.
        draws: how many samples.
        seed: of the samples: two figures with the same seed see the same ones.

    Returns:
        Its 2.5th and 97.5th percentile.
    """
    random = np.random.default_rng(seed)
    figures = [
        figure(np.bincount(random.integers(images, size=images), minlength=images).astype(float))
        for _ in range(draws)
    ]
    low, high = np.percentile(figures, (2.5, 97.5))
    return float(low), float(high)


def oks(
    points: NDArray[np.floating],
    truth: NDArray[np.floating],
    labelled: NDArray[np.bool_],
    area: float,
    sigmas: Sequence[float],
) -> float:
    """Object keypoint similarity of one person (MODELS 4).

    Args:
        points: (K, 2) found, px.
        truth: (K, 2) px.
        labelled: (K,), at least one.
        area: of the person, square px.
        sigmas: (K,) OKS constants.
    """
    squares = ((points - truth) ** 2).sum(-1)[labelled]
    variances = (2 * np.asarray(sigmas)[labelled]) ** 2
    return float(np.exp(-squares / (2 * area * variances)).mean())


def torso_correct(
    distances: NDArray[np.floating], torso: NDArray[np.floating], share: float = 0.2
) -> NDArray[np.bool_]:
    """PCK's question: is a joint within `share` of its person's torso (MODELS 4)?

    Args:
        distances: (N, K) px, from joint to label.
        torso: (N,) px, from the left shoulder to the right hip.
        share: of the torso.

    Returns:
        (N, K).
    """
    return np.asarray(distances <= share * torso[:, None], np.bool_)
