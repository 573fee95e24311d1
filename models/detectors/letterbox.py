"""A photo of any size in a detector's input, and boxes back, exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from models.geometry import Size

PADDING = 114
"""What both families of detectors were trained to see where the photo is not."""


@dataclass(frozen=True, slots=True)
class Letterbox:
    """A photo resized to fit, at the top left of the input.

    The photo's size there is a whole number of pixels, so each axis has its own, exact scale.

    Attributes:
        image: size of the photo (width, height).
        fitted: size of the photo within the input.
        size: of the input.
    """

    image: Size
    fitted: Size
    size: Size

    @classmethod
    def fit(cls, image: Size, sizes: Sequence[Size]) -> Letterbox:
        """In that one of `sizes` in which the photo is largest; the first of equals."""
        width, height = image

        def scale(size: Size) -> float:
            return min(size[0] / width, size[1] / height)

        size = max(sizes, key=scale)
        fitted = (
            min(size[0], max(1, round(width * scale(size)))),
            min(size[1], max(1, round(height * scale(size)))),
        )
        return cls(image, fitted, size)

    def place(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The input's pixels.

        Args:
            image: (H, W, 3) uint8.

        Returns:
            (height, width, 3) uint8 of `size`.
        """
        width, height = self.fitted
        # By area where the photo shrinks, so that nothing aliases.
        shrinks = width < self.image[0] or height < self.image[1]
        interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        image = _halved(image, self.fitted)
        canvas = np.full((self.size[1], self.size[0], 3), PADDING, np.uint8)
        canvas[:height, :width] = cv2.resize(image, self.fitted, interpolation=interpolation)
        return canvas

    def to_image(self, corners: NDArray[np.floating]) -> NDArray[np.float64]:
        """Input px -> image px, (N, 4) x1 y1 x2 y2, clipped to the image."""
        width, height = self.image
        scale = np.array([width / self.fitted[0], height / self.fitted[1]] * 2)
        return np.asarray(np.clip(corners * scale, 0, [width, height] * 2), np.float64)


def _halved(image: NDArray[np.uint8], fitted: Size) -> NDArray[np.uint8]:
    """A large photo by exact halves, at least twice as large as `fitted` still.

    The same mean, within two grey levels, in less than half the time: OpenCV is slow at areas
    that are no whole pixels, and they are far fewer then.
    """
    while not (image.shape[1] % 2 or image.shape[0] % 2) and (
        image.shape[1] >= 4 * fitted[0] and image.shape[0] >= 4 * fitted[1]
    ):
        half = (image.shape[1] // 2, image.shape[0] // 2)
        image = np.asarray(cv2.resize(image, half, interpolation=cv2.INTER_AREA), np.uint8)
    return image
