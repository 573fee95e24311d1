"""How many of the people in the photos a detector finds, and at what price."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from models.detectors import Detector
from models.detectors.decode import Outputs
from models.detectors.dense import DenseDetector, Pixels
from models.detectors.nms import overlaps
from models.geometry import Box
from models.manifest import DetectorManifest
from training.detector.config import Experiment
from training.detector.export import Served, describe
from training.detector.network import RtmdetNano
from training.detector.photos import Photo
from training.errors import DataError

MOST = 5
"""Boxes a photo that recall is measured with, the best."""
_LARGE_PX = 96.0**2
_SMALL_PX = 48.0**2
_IOU = 0.5
_CROWD = 6
_CROWD_MOST = 20
LEAST_SCORE = 0.02
"""Score from which boxes are kept for later choices of a threshold."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one detector at one threshold on one split.

    People are those with keypoints; one is found if a box has an IoU of 0.5 or more with it.

    Attributes:
        recall: with the best 5 boxes a photo.
        matched: the same, each box finding one person at most.
        large: recall of people whose box is over 96 x 96 px.
        small: recall of people whose box is under 48 x 48 px.
        crowded: recall in photos with 6 people and more, with the best 20 boxes.
        boxes: of the best 5 above the threshold, a photo with people.
        boxes_all: above the threshold, any photo.
        false: boxes above the threshold, any photo, that lie on no labelled person or crowd.
    """

    recall: float
    matched: float
    large: float
    small: float
    crowded: float
    boxes: float
    boxes_all: float
    false: float


def detect_all(detector: Detector, photos: Sequence[Photo]) -> list[list[Box]]:
    """Every box of each photo, whatever the detector's threshold."""
    return [detector.detect([photo.pixels()], min_box_score=LEAST_SCORE)[0] for photo in photos]


def measure(found: Sequence[Sequence[Box]], photos: Sequence[Photo], threshold: float) -> Figures:
    """The figures of boxes that are at least `threshold`."""
    rows: list[tuple[NDArray[np.bool_], ...]] = []
    crowded: list[NDArray[np.bool_]] = []
    counts, totals, strays = [], [], []
    for boxes, photo in zip(found, photos, strict=True):
        corners = _corners([box for box in boxes if box.score >= threshold])
        posed = photo.people[photo.posed]
        iou = overlaps(posed, corners)
        area = np.prod(posed[:, 2:] - posed[:, :2], axis=1)
        hit = _any(iou[:, :MOST])
        rows.append((hit, _one_to_one(iou[:, :MOST]), area > _LARGE_PX, area < _SMALL_PX))
        if len(photo.people) >= _CROWD:
            crowded.append(_any(iou[:, :_CROWD_MOST]))
        totals.append(len(corners))
        if len(photo.people):
            counts.append(min(MOST, len(corners)))
        known = (overlaps(photo.people, corners) >= _IOU).any(axis=0)
        known |= (_covered(corners, photo.crowds) >= _IOU).any(axis=1)
        strays.append(int((~known).sum()))
    hit, matched, large, small = (np.concatenate(column) for column in zip(*rows, strict=True))
    return Figures(
        recall=_share(hit),
        matched=_share(matched),
        large=_share(hit[large]),
        small=_share(hit[small]),
        crowded=_share(np.concatenate([*crowded, np.zeros(0, bool)])),
        boxes=float(np.mean(counts)),
        boxes_all=float(np.mean(totals)),
        false=float(np.mean(strays)),
    )


def threshold_for(found: Sequence[Sequence[Box]], photos: Sequence[Photo], boxes: float) -> float:
    """The least threshold, in hundredths, with at most `boxes` a photo of the best 5."""
    for hundredth in range(round(LEAST_SCORE * 100), 100):
        if measure(found, photos, hundredth / 100).boxes <= boxes:
            return hundredth / 100
    raise DataError(f"no threshold leaves {boxes} boxes a photo")


def measure_dev(
    network: RtmdetNano, experiment: Experiment, photos: Sequence[Photo]
) -> dict[str, float]:
    """The figures of a network in training, at the threshold that `boxes` a photo asks for."""
    found = detect_all(torch_detector(network, experiment), photos)
    threshold = threshold_for(found, photos, experiment.boxes)
    return {"threshold": threshold, **asdict(measure(found, photos, threshold))}


def torch_detector(network: RtmdetNano, experiment: Experiment) -> DenseDetector:
    """The network as it would be served, run by torch."""
    served = Served(network).eval()

    @torch.no_grad()
    def run(pixels: Pixels) -> Outputs:
        return [level.numpy() for level in served(torch.from_numpy(pixels))]

    manifest = DetectorManifest(
        schema_version=1,
        kind="detector",
        name=experiment.name,
        graph="detector.onnx",
        files={"detector.onnx": ""},
        **describe(experiment, threshold=LEAST_SCORE, accuracy={}),
    )
    return DenseDetector(manifest, run, device="cpu")


def _corners(boxes: Sequence[Box]) -> NDArray[np.float64]:
    rows = [(box.x, box.y, box.x + box.width, box.y + box.height) for box in boxes]
    return np.array(rows, np.float64).reshape(-1, 4)


def _share(values: NDArray[np.bool_]) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _any(iou: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.asarray((iou >= _IOU).any(axis=1), np.bool_)


def _one_to_one(iou: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which people are found if each box, best first, takes the free person it fits best."""
    free = np.ones(len(iou), bool)
    for column in iou.T:
        fits = np.where(free, column, 0)
        if len(fits) and fits.max() >= _IOU:
            free[fits.argmax()] = False
    return ~free


def _covered(corners: NDArray[np.float64], regions: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, M) share of each box that lies in each region."""
    low = np.maximum(corners[:, None, :2], regions[None, :, :2])
    high = np.minimum(corners[:, None, 2:], regions[None, :, 2:])
    area = np.prod(corners[:, 2:] - corners[:, :2], axis=1)
    return np.asarray(np.prod(np.clip(high - low, 0, None), axis=2) / area[:, None], np.float64)
