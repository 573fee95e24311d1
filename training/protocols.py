"""How the other sets measure: CrowdPose's AP by crowdedness, MPII's PCKh, LSP's PCP (MODELS 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from models.formats import CocoRow
from models.keypoints import CROWDPOSE14, LSP14, MPII16
from training.metrics import KeypointMatches

CROWDED: Mapping[str, tuple[float, float]] = {
    "APE": (-np.inf, 0.2),
    "APM": (0.2, 0.8),
    "APH": (0.8, np.inf),
}
"""CrowdPose's tool calls an image easy, medium or hard by these bounds of its `crowdIndex`.

The paper's text has 0.1 in place of 0.2; published tables are the tool's.
"""

HEAD_SHARE = 0.6
"""Of a head box's diagonal, MPII's unit of length."""

MPII_BUG = 0.11
"""What HRNet's and NerPE's code reads as PCKh@0.1: the bin after it (MODELS 4)."""

LIMBS = tuple(
    (LSP14.index(f"{side}_{a}"), LSP14.index(f"{side}_{b}"))
    for side in ("right", "left")
    for a, b in (("hip", "knee"), ("knee", "ankle"), ("shoulder", "elbow"), ("elbow", "wrist"))
)
"""PCP's limbs beside torso and head: upper and lower legs and arms."""


def crowdpose_matches(labels: dict[str, Any], rows: Sequence[CocoRow]) -> KeypointMatches:
    """What CrowdPose's figures are taken of, photo by photo.

    Args:
        labels: the annotation file's content.
        rows: the people found, of CROWDPOSE14.
    """
    annotations = [
        # CrowdPose's people have no area: a share of their box takes its place.
        {**row, "area": 0.53 * row["bbox"][2] * row["bbox"][3]}
        for row in labels["annotations"]
    ]
    return KeypointMatches({**labels, "annotations": annotations}, rows, CROWDPOSE14.sigmas)


def crowdpose_figures(labels: dict[str, Any], matches: KeypointMatches) -> dict[str, float]:
    """CrowdPose's figures.

    Args:
        labels: the annotation file's content; each image has its `crowdIndex`.
        matches: `crowdpose_matches` of it.

    Returns:
        AP, AP50, AP75, AR, AR50, AR75, and AP of easy, medium and hard images (APE, APM, APH).
    """
    figures = {name: matches.stats[name] for name in ("AP", "AP50", "AP75", "AR", "AR50", "AR75")}
    images = sorted(labels["images"], key=lambda image: int(image["id"]))
    crowded = np.array([image["crowdIndex"] for image in images])
    for name, (low, high) in CROWDED.items():
        figures[name] = matches.ap(((crowded >= low) & (crowded < high)).astype(float))
    return figures


def head_sizes(boxes: NDArray[np.floating]) -> NDArray[np.float64]:
    """MPII's unit of length, px.

    Args:
        boxes: (N, 4) of the heads: left, top, right, bottom.
    """
    diagonal = np.linalg.norm(boxes[:, 2:] - boxes[:, :2], axis=1)
    return np.asarray(HEAD_SHARE * diagonal, np.float64)


def pckh(
    points: NDArray[np.floating],
    truth: NDArray[np.floating],
    visible: NDArray[np.bool_],
    heads: NDArray[np.floating],
    share: float = 0.5,
) -> tuple[float, NDArray[np.float64]]:
    """MPII's PCKh: which joints are within a share of the head of their label.

    Args:
        points: (N, 16, 2) found, px.
        truth: (N, 16, 2) px, from the same origin.
        visible: (N, 16).
        heads: (N,) from `head_sizes`, px.
        share: of the head; `MPII_BUG` for what some tables call 0.1.

    Returns:
        The mean over all visible joints but pelvis and thorax, which the set leaves out, and
        (16,) of each joint, nan for these two and where none is visible.
    """
    asked = visible.copy()
    asked[:, [MPII16.index("pelvis"), MPII16.index("thorax")]] = False
    right = (np.linalg.norm(points - truth, axis=-1) <= share * heads[:, None]) & asked
    count = asked.sum(0)
    each = np.where(count > 0, right.sum(0) / np.maximum(count, 1), np.nan)
    return float(right.sum() / asked.sum()), each


def pcp(
    points: NDArray[np.floating],
    truth: NDArray[np.floating],
    labelled: NDArray[np.bool_],
    *,
    form: Literal["strict", "loose"] = "strict",
    share: float = 0.5,
) -> float:
    """LSP's PCP: the share of limbs that are found.

    Args:
        points: (N, 14, 2) found, px.
        truth: (N, 14, 2) px.
        labelled: (N, 14); a limb counts if both its ends are.
        form: `strict` asks that both ends are within `share` of the limb's length of their labels,
            `loose` that the mean of their distances is.
        share: of the limb's length.
    """
    first, second = np.array(LIMBS).T
    distances = np.linalg.norm(points - truth, axis=-1)
    ends = np.stack([distances[:, first], distances[:, second]])
    length = np.linalg.norm(truth[:, first] - truth[:, second], axis=-1)
    error = ends.max(0) if form == "strict" else ends.mean(0)
    counted = labelled[:, first] & labelled[:, second]
    return float((error <= share * length)[counted].mean())
