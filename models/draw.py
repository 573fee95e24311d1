"""People on their photo, and heatmaps in colour."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from models.keypoints import RGB, KeypointSet
from models.predictor import Person

Colormap = Literal["grey", "viridis", "turbo"]

OUTLINE: RGB = (0x18, 0x18, 0x18)
SUBPIXEL_BITS = 4
"""Positions are drawn to a sixteenth of a pixel, edges are smooth."""

ANCHORS = {
    # Every eighth colour of matplotlib's tables (viridis: CC0; turbo: Google, Apache-2.0). Straight
    # lines between them stay within 2 of 255 of the tables.
    "viridis": (
        "440154 460c5f 47186a 482273 472c7b 453681 424085 3e4989 3a528b 365a8c 32628d "
        "2f6a8d 2c728e 287a8e 26818e 23898d 20908c 1e978a 1e9e88 21a685 27ad80 31b47a "
        "3dbb74 4cc26c 5cc862 6ece58 81d34c 95d73f aadb32 bfdf24 d4e11a e9e419 fde724"
    ),
    "turbo": (
        "30123b 392972 4040a1 4456c7 466be3 467ff6 4193fe 36a7f9 28baec 1cccd8 17dbc3 "
        "1ee8b0 31f198 4cf97e 6bfd63 89fe4c a2fc3c b7f635 cbec33 dedf36 ecd039 f7bf39 "
        "fcad34 fe972c fb7f22 f56717 ec520e e04008 d23005 c02302 ac1601 940c01 7a0402"
    ),
}


def draw_people(
    image: NDArray[np.uint8],
    people: Sequence[Person],
    keypoints: KeypointSet,
    *,
    min_score: float = 0.5,
    single: RGB | None = None,
) -> NDArray[np.uint8]:
    """The photo with each person's skeleton (of the first head) over it.

    Lines are coloured by side and as wide as the person is large, over a dark outline, so that
    they show on any background. The best person is drawn last, on top.

    Args:
        image: (H, W, 3) RGB; left as it is.
        people: best first, as a predictor answers them.
        keypoints: the set of their poses.
        min_score: joints that score lower, and their limbs, are left out.
        single: one colour for everything, to tell two drawings on one photo apart.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    canvas = np.ascontiguousarray(image).copy()
    for person in reversed(people):
        _draw_person(canvas, person, keypoints, min_score, single)
    return canvas


def _draw_person(
    canvas: NDArray[np.uint8],
    person: Person,
    keypoints: KeypointSet,
    min_score: float,
    single: RGB | None,
) -> None:
    pose = person.pose
    shown = pose.scores >= min_score
    # A joint far outside the image must not overflow the drawing's fixed-point coordinates.
    reach = 2 * max(canvas.shape)
    points = np.clip(pose.points, -reach, reach)
    limbs = [(a, b) for a, b in keypoints.edges if shown[a] and shown[b]]
    joints = np.flatnonzero(shown).tolist()
    width = max(1, round(math.sqrt(person.box.area) / 90))
    outline = max(1, round(width / 2))

    def limb(a: int, b: int, colour: RGB, thickness: int) -> None:
        ends = _fixed(points[a]), _fixed(points[b])
        cv2.line(canvas, *ends, colour, thickness, cv2.LINE_AA, SUBPIXEL_BITS)

    def joint(k: int, colour: RGB, radius: float) -> None:
        size = round(radius * (1 << SUBPIXEL_BITS))
        cv2.circle(canvas, _fixed(points[k]), size, colour, cv2.FILLED, cv2.LINE_AA, SUBPIXEL_BITS)

    # The whole outline first: no limb's outline may cut a limb drawn before.
    for a, b in limbs:
        limb(a, b, OUTLINE, width + 2 * outline)
    for k in joints:
        joint(k, OUTLINE, width * 1.4 + outline)
    for a, b in limbs:
        limb(a, b, single or keypoints.colour(keypoints.names[a], keypoints.names[b]), width)
    for k in joints:
        joint(k, single or keypoints.colour(keypoints.names[k]), width * 1.4)


def _fixed(point: NDArray[np.float64]) -> tuple[int, int]:
    x, y = np.round(point * (1 << SUBPIXEL_BITS)).astype(int)
    return int(x), int(y)


def colour(
    values: NDArray[np.floating], colormap: Colormap = "grey", *, alpha: bool = False
) -> NDArray[np.uint8]:
    """A heatmap as pixels.

    Args:
        values: (H, W), clipped to [0, 1].
        colormap: `grey` from black to white, or a table of colours.
        alpha: low values are transparent, full opacity is reached at 0.5: to lay over a photo.

    Returns:
        uint8: (H, W) for grey, (H, W, 3) RGB for colours, (H, W, 4) RGBA with alpha.
    """
    values = np.clip(values, 0.0, 1.0)
    grey = np.round(values * 255).astype(np.uint8)
    if colormap == "grey" and not alpha:
        return grey
    rgb = np.repeat(grey[..., None], 3, axis=2) if colormap == "grey" else _table(colormap)[grey]
    if not alpha:
        return rgb
    opacity = np.round(np.minimum(values * 2, 1.0) * 255).astype(np.uint8)
    return np.concatenate([rgb, opacity[..., None]], axis=2)


def _table(colormap: Colormap) -> NDArray[np.uint8]:
    """All 256 colours, (256, 3) uint8."""
    anchors = np.array([list(bytes.fromhex(colour)) for colour in ANCHORS[colormap].split()])
    at = np.linspace(0, 255, len(anchors))
    channels = [np.interp(np.arange(256), at, channel) for channel in anchors.T]
    return np.round(np.stack(channels, axis=1)).astype(np.uint8)
