"""Image <-> crop, exact both ways.

A pixel's centre is an integer, x right, y down. `CropGeometry` alone knows how a box of the image
becomes a crop; every codec alone knows its own grid within the crop.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from models.arrays import Array, namespace

CropMatrix = Literal["legacy", "udp"]
Size = tuple[int, int]
"""(width, height)"""

SMALLEST_PX, LARGEST_PX = 1e-3, 1e9
"""Sides of a box that a crop can be made of."""


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle of the image in pixels, as in COCO: its upper left corner and its extent."""

    x: float
    y: float
    width: float
    height: float
    score: float = 1.0

    @property
    def area(self) -> float:
        """Square pixels."""
        return self.width * self.height

    @property
    def center(self) -> tuple[float, float]:
        """Pixels of the image."""
        return self.x + self.width / 2, self.y + self.height / 2

    def clipped(self, width: int, height: int) -> Box | None:
        """The part of a COCO ground-truth box that lies in the image, or None if there is none.

        COCO's own rule, one pixel narrower than the box (MODELS 1.1, `lib/dataset/coco.py`).
        """
        x1, y1 = max(0.0, self.x), max(0.0, self.y)
        x2 = min(width - 1.0, x1 + max(0.0, self.width - 1))
        y2 = min(height - 1.0, y1 + max(0.0, self.height - 1))
        if x2 <= x1 or y2 <= y1:
            return None
        return Box(x1, y1, x2 - x1, y2 - y1, self.score)

    def padded(self, aspect: float, padding: float) -> Box:
        """Widened about its centre to `aspect` = width / height, then scaled by `padding`."""
        width, height = self.width, self.height
        if width > aspect * height:
            height = width / aspect
        else:
            width = aspect * height
        width, height = width * padding, height * padding
        cx, cy = self.center
        return Box(cx - width / 2, cy - height / 2, width, height, self.score)


class Extent(NamedTuple):
    """What a crop reads of an image: columns and rows of it, reduced by area.

    Reduced pixel r covers image pixels factor * r + left ... and has its centre in their middle.
    """

    factor: int
    left: int
    top: int
    right: int
    bottom: int

    @property
    def first(self) -> NDArray[np.float64]:
        """Where in the image the first reduced pixel's centre lies, px."""
        return np.array([self.left, self.top]) + (self.factor - 1) / 2


@dataclass(frozen=True, slots=True, eq=False)
class CropGeometry:
    """The affine map between an image and one crop of it.

    Attributes:
        matrix: (2, 3) float64, image px -> crop px.
        width: of the crop, px.
        height: of the crop, px.
    """

    matrix: NDArray[np.float64]
    width: int
    height: int

    @classmethod
    def from_box(
        cls,
        box: Box,
        size: Size,
        *,
        matrix: CropMatrix = "legacy",
        padding: float = 1.25,
        rotation: float = 0.0,
        mirrored: bool = False,
    ) -> CropGeometry:
        """The crop of `size` (width, height) around a box.

        Args:
            box: in the image, px.
            size: of the crop (width, height), px.
            matrix: `legacy` takes the centre of the box to (W/2, H/2); `udp` takes it to
                ((W-1)/2, (H-1)/2) and counts W-1 steps across it (MODELS 1.1, 4 and 5).
            padding: how much larger than the box the crop is.
            rotation: degrees; above 0 the content turns counter-clockwise.
            mirrored: the crop seen in a mirror: column u becomes W-1-u.

        Raises:
            ValueError: a box without area, or with coordinates that are not finite or so large
                or small that float64 cannot hold the map.
        """
        if not all(map(math.isfinite, (box.x, box.y, box.width, box.height))):
            raise ValueError(f"box {box} has coordinates that are not finite")
        if box.width <= 0 or box.height <= 0:
            raise ValueError(f"box {box} has no area: width and height must be above 0")
        if min(box.width, box.height) < SMALLEST_PX or max(box.width, box.height) > LARGEST_PX:
            raise ValueError(f"box {box} is not between {SMALLEST_PX:g} and {LARGEST_PX:g} px")
        width, height = size
        padded = box.padded(width / height, padding)
        last = 1 if matrix == "udp" else 0
        scale_x = (width - last) / padded.width
        # The legacy matrix takes its one scale from the width.
        scale_y = (height - last) / padded.height if matrix == "udp" else scale_x
        angle = math.radians(rotation)
        cos, sin = math.cos(angle), math.sin(angle)
        linear = np.array([[scale_x * cos, scale_x * sin], [-scale_y * sin, scale_y * cos]])
        offset = np.array([(width - last) / 2, (height - last) / 2]) - linear @ padded.center
        affine = np.column_stack([linear, offset])
        if mirrored:
            affine[0] *= -1
            affine[0, 2] += width - 1
        return cls(affine, width, height)

    @property
    def inverse(self) -> NDArray[np.float64]:
        """(2, 3) float64, crop px -> image px."""
        linear = np.linalg.inv(self.matrix[:, :2])
        return np.column_stack([linear, -linear @ self.matrix[:, 2]])

    @property
    def scale(self) -> float:
        """Px of the image along a pixel of the crop, the mean of all directions."""
        return 1 / math.sqrt(abs(float(np.linalg.det(self.matrix[:, :2]))))

    @property
    def box(self) -> Box:
        """The crop's extent in the image (px, from edge to edge), without rotation."""
        (x1, y1), (x2, y2) = self.to_image(
            np.array([[-0.5, -0.5], [self.width - 0.5, self.height - 0.5]])
        )
        return Box(min(x1, x2) + 0.5, min(y1, y2) + 0.5, abs(x2 - x1), abs(y2 - y1))

    def to_crop(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """Image px -> crop px, (..., 2) to (..., 2) float64."""
        return np.asarray(points @ self.matrix[:, :2].T + self.matrix[:, 2], np.float64)

    def to_image(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """Crop px -> image px, (..., 2) to (..., 2) float64."""
        inverse = self.inverse
        return np.asarray(points @ inverse[:, :2].T + inverse[:, 2], np.float64)

    def extent(self, image: Size) -> Extent:
        """What `cut` reads of an image of a size (width, height); no pixel where they do not meet.

        Where the crop is much larger in the image than its own size, the image is first reduced
        by area with a whole factor, so that the bilinear warp has no more than two pixels of the
        image to a pixel of the crop and does not alias.
        """
        # An image that is thinner than a pixel of the crop needs no whole such pixel of memory.
        factor = max(1, min(int(self.scale), *image))
        corners = self.to_image(
            np.array([(u, v) for u in (-1, self.width) for v in (-1, self.height)], float)
        )
        low = np.clip(np.floor(corners.min(0) / factor) * factor, 0, image).astype(int)
        high = np.clip(np.ceil(corners.max(0) / factor + 1) * factor, low, image).astype(int)
        return Extent(factor, *low.tolist(), *high.tolist())

    def cut(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The crop's pixels, black outside the image; `extent` says how finely it is read.

        Args:
            image: (H, W, 3) uint8.

        Returns:
            (height, width, 3) uint8.
        """
        extent = self.extent((image.shape[1], image.shape[0]))
        affine = self.matrix
        if extent.factor > 1:
            image = _reduced(image, extent)
            to_image = np.diag([extent.factor, extent.factor, 1.0])
            to_image[:2, 2] = extent.first
            affine = affine @ to_image
        if 0 in image.shape:
            return np.zeros((self.height, self.width, 3), np.uint8)
        crop = cv2.warpAffine(image, affine, (self.width, self.height), flags=cv2.INTER_LINEAR)
        return np.asarray(crop, np.uint8)


def _reduced(image: NDArray[np.uint8], extent: Extent) -> NDArray[np.uint8]:
    """A part of an image, reduced by area."""
    factor, left, top, right, bottom = extent
    part = image[top:bottom, left:right]
    # A last column or row narrower than the factor is repeated to full width, not stretched.
    missing_y, missing_x = -part.shape[0] % factor, -part.shape[1] % factor
    if part.size and (missing_x or missing_y):
        full = cv2.copyMakeBorder(part, 0, missing_y, 0, missing_x, cv2.BORDER_REPLICATE)
        part = np.asarray(full, np.uint8)
    if not part.size:
        return part
    size = part.shape[1] // factor, part.shape[0] // factor
    return np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_AREA), np.uint8)


def normalise(points: Array, size: Size) -> Array:
    """Crop px -> positions in which the longer side spans [-1, 1] (MODELS 2.1).

    Args:
        points: (..., 2), crop px.
        size: of the crop (width, height).
    """
    xp = namespace(points)
    half = xp.asarray([size[0] / 2, size[1] / 2], dtype=points.dtype, device=points.device)
    return (points + 0.5 - half) / (max(size) / 2)


def denormalise(positions: Array, size: Size) -> Array:
    """The inverse of `normalise`."""
    xp = namespace(positions)
    half = xp.asarray([size[0] / 2, size[1] / 2], dtype=positions.dtype, device=positions.device)
    return positions * (max(size) / 2) + half - 0.5
