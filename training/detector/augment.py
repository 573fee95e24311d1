"""Photos -> varied training samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from models.detectors.letterbox import PADDING
from models.geometry import Size

_LEAST_VISIBLE = 0.3
"""A person of whom less is left in the sample is ignored there, neither taught nor forbidden."""
_LEAST_SIDE_PX = 4.0


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How far samples may differ from their photos.

    Attributes:
        scale: least and largest size beside the one that just fits.
        brightness: of the values, up to this share up and down; contrast likewise.
        saturation: up to this share up and down.
        hue: degrees up and down, of 180.
    """

    scale: tuple[float, float] = (0.6, 1.6)
    brightness: float = 0.2
    saturation: float = 0.3
    hue: float = 6.0


@dataclass(frozen=True, slots=True)
class Sample:
    """What the network is shown and taught, corners in px of the input.

    Attributes:
        pixels: (H, W, 3) uint8 RGB.
        people: (N, 4) float32.
        ignored: (M, 4) float32: no loss inside, but for the people.
    """

    pixels: NDArray[np.uint8]
    people: NDArray[np.float32]
    ignored: NDArray[np.float32]


def augmented(
    pixels: NDArray[np.uint8],
    people: NDArray[np.float64],
    crowds: NDArray[np.float64],
    size: Size,
    augmentation: Augmentation,
    rng: np.random.Generator,
) -> Sample:
    """A random view of a photo: mirrored half of the time, resized, shifted, recoloured.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        people: (N, 4), px of the photo.
        crowds: (M, 4).
        size: of the sample (width, height).
        augmentation: the bounds.
        rng: decides everything.
    """
    height, width = pixels.shape[:2]
    if rng.random() < 0.5:
        pixels, people, crowds = pixels[:, ::-1], _mirrored(people, width), _mirrored(crowds, width)
    fit = min(size[0] / width, size[1] / height)
    scale = fit * np.exp(rng.uniform(*np.log(augmentation.scale)))
    scaled = max(1, round(width * scale)), max(1, round(height * scale))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    resized = cv2.resize(np.ascontiguousarray(pixels), scaled, interpolation=interpolation)
    # A photo smaller than the sample lies anywhere inside; of a larger one any part shows.
    shift = np.array([round(free * rng.random()) for free in np.subtract(size, scaled)])
    canvas = np.full((size[1], size[0], 3), PADDING, np.uint8)
    low, high = np.clip(shift, 0, None), np.minimum(shift + scaled, size)
    window = resized[low[1] - shift[1] : high[1] - shift[1], low[0] - shift[0] : high[0] - shift[0]]
    canvas[low[1] : high[1], low[0] : high[0]] = _recoloured(window, augmentation, rng)

    factors = np.tile(np.divide(scaled, (width, height)), 2)
    people, seen = _visible(people * factors + np.tile(shift, 2), size)
    crowds, _ = _visible(crowds * factors + np.tile(shift, 2), size)
    sides = people[:, 2:] - people[:, :2]
    shown = (seen >= _LEAST_VISIBLE) & (sides.min(axis=1, initial=np.inf) >= _LEAST_SIDE_PX)
    ignored = np.concatenate([people[~shown], crowds])
    return Sample(canvas, people[shown].astype(np.float32), ignored.astype(np.float32))


def _mirrored(corners: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    return np.column_stack(
        [width - corners[:, 2], corners[:, 1], width - corners[:, 0], corners[:, 3]]
    )


def _visible(
    corners: NDArray[np.float64], size: Size
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Clipped to the sample, and which share of each area that leaves."""
    clipped = np.clip(corners, 0, np.tile(size, 2))
    area = np.prod(corners[:, 2:] - corners[:, :2], axis=1)
    left = np.prod(clipped[:, 2:] - clipped[:, :2], axis=1)
    return clipped, np.divide(left, area, out=np.zeros_like(left), where=area > 0)


def _recoloured(
    pixels: NDArray[Any], augmentation: Augmentation, rng: np.random.Generator
) -> NDArray[np.uint8]:
    saturation = 1 + augmentation.saturation * rng.uniform(-1, 1)
    hue = augmentation.hue * rng.uniform(-1, 1)
    contrast, brightness = 1 + augmentation.brightness * rng.uniform(-1, 1, 2)
    values = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV)
    steps = np.arange(256)
    hues = ((steps + round(hue)) % 180).astype(np.uint8)
    saturations = np.clip(steps * saturation, 0, 255).astype(np.uint8)
    lights = np.clip((steps - 128) * contrast + 128 * brightness, 0, 255).astype(np.uint8)
    tables = np.stack([hues, saturations, lights], axis=-1)[None]
    return np.asarray(cv2.cvtColor(cv2.LUT(values, tables), cv2.COLOR_HSV2RGB), np.uint8)
