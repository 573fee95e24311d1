"""COCO-WholeBody's 133 keypoints: body, feet, the 68 landmarks of a face, 21 of each hand.

Order and OKS constants are the published ones (Jin et al., ECCV 2020; `myeval_wholebody.py`). The
face's landmarks have numbers there; here each says what it is, so that its mirror image is found
as everywhere: by its name's side. `left` is the person's left.
"""

from __future__ import annotations

from itertools import pairwise

Edges = tuple[tuple[str, str], ...]

FEET = (
    "left_big_toe", "left_small_toe", "left_heel", "right_big_toe", "right_small_toe", "right_heel",
)  # fmt: skip


def _numbered(part: str, *numbers: int) -> tuple[str, ...]:
    return tuple(f"{part}_{number}" for number in numbers)


# From ear to chin, from the outer corner of a brow, an eye or the mouth inwards.
_JAW = (
    *_numbered("right_jaw", 1, 2, 3, 4, 5, 6, 7, 8), "chin",
    *_numbered("left_jaw", 8, 7, 6, 5, 4, 3, 2, 1),
)  # fmt: skip
_RIGHT_BROW = _numbered("right_brow", 1, 2, 3, 4, 5)
_LEFT_BROW = _numbered("left_brow", 5, 4, 3, 2, 1)
_NOSE = _numbered("nose_bridge", 1, 2, 3, 4)
_NOSTRILS = (
    *_numbered("right_nostril", 1, 2), "nose_base", *_numbered("left_nostril", 2, 1),
)  # fmt: skip
# Round each, over the upper lid or lip first.
_RIGHT_EYE = _numbered("right_eye", 1, 2, 3, 4, 5, 6)
_LEFT_EYE = _numbered("left_eye", 4, 3, 2, 1, 6, 5)
_LIPS = (
    *_numbered("right_lip", 1, 2, 3), "upper_lip", *_numbered("left_lip", 3, 2, 1, 5, 4),
    "lower_lip", *_numbered("right_lip", 4, 5),
)  # fmt: skip
_MOUTH = (
    *_numbered("right_mouth", 1, 2), "upper_mouth", *_numbered("left_mouth", 2, 1, 3),
    "lower_mouth", "right_mouth_3",
)  # fmt: skip
FACE = (
    *_JAW, *_RIGHT_BROW, *_LEFT_BROW, *_NOSE, *_NOSTRILS, *_RIGHT_EYE, *_LEFT_EYE, *_LIPS, *_MOUTH,
)  # fmt: skip
"""In iBUG's order, 0 to 67."""

_FINGERS = ("thumb", "forefinger", "middle_finger", "ring_finger", "pinky_finger")


def _fingers(side: str) -> list[tuple[str, ...]]:
    return [_numbered(f"{side}_{finger}", 1, 2, 3, 4) for finger in _FINGERS]


def hand(side: str) -> tuple[str, ...]:
    """The 21 names of a hand: its root, then each finger from there to its tip."""
    return (f"{side}_hand_root", *(name for finger in _fingers(side) for name in finger))


def _hand_edges(side: str) -> Edges:
    root = f"{side}_hand_root"
    fingers = (edge for finger in _fingers(side) for edge in pairwise((root, *finger)))
    return ((f"{side}_wrist", root), *fingers)


def _foot_edges(side: str) -> Edges:
    return tuple((f"{side}_ankle", f"{side}_{part}") for part in ("big_toe", "small_toe", "heel"))


PARTS = (*FEET, *FACE, *hand("left"), *hand("right"))
"""What follows COCO's 17."""

EDGES: Edges = (
    *_foot_edges("left"),
    *_foot_edges("right"),
    *(
        edge
        for line in (_JAW, _RIGHT_BROW, _LEFT_BROW, _NOSE, _NOSTRILS)
        for edge in pairwise(line)
    ),
    *(
        edge
        for ring in (_RIGHT_EYE, _LEFT_EYE, _LIPS, _MOUTH)
        for edge in pairwise((*ring, ring[0]))
    ),
    *_hand_edges("left"),
    *_hand_edges("right"),
)
"""Their limbs and outlines."""

_HAND_SIGMAS = (
    0.029, 0.022, 0.035, 0.037, 0.047, 0.026, 0.025, 0.024, 0.035, 0.018, 0.024, 0.022, 0.026,
    0.017, 0.021, 0.021, 0.032, 0.020, 0.019, 0.022, 0.031,
)  # fmt: skip

SIGMAS = (
    0.068, 0.066, 0.066, 0.092, 0.094, 0.094,
    0.042, 0.043, 0.044, 0.043, 0.040, 0.035, 0.031, 0.025, 0.020, 0.023, 0.029, 0.032, 0.037,
    0.038, 0.043, 0.041, 0.045, 0.013, 0.012, 0.011, 0.011, 0.012, 0.012, 0.011, 0.011, 0.013,
    0.015, 0.009, 0.007, 0.007, 0.007, 0.012, 0.009, 0.008, 0.016, 0.010, 0.017, 0.011, 0.009,
    0.011, 0.009, 0.007, 0.013, 0.008, 0.011, 0.012, 0.010, 0.034, 0.008, 0.008, 0.009, 0.008,
    0.008, 0.007, 0.010, 0.008, 0.009, 0.009, 0.009, 0.007, 0.007, 0.008, 0.011, 0.008, 0.008,
    0.008, 0.010, 0.008,
    *_HAND_SIGMAS, *_HAND_SIGMAS,
)  # fmt: skip
"""Of the parts. Measured on people: the two sides of feet and faces differ a little."""
