"""People -> augmented crops with labels, and what the teachers saw of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset

from models.geometry import Box, CropGeometry, CropMatrix, Size
from models.keypoints import KeypointSet
from training.data.annotations import LabelledPerson
from training.data.images import read_image
from training.errors import DataError
from training.teacher import GRID, SIGMA, plain_crop
from training.teacher import SIZE as TEACHER_SIZE


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How a training crop differs from the plain one (MODELS 1.1, HRNet's, and cut-out)."""

    scale: float = 0.35
    rotation: float = 40.0
    rotation_share: float = 0.6
    shift: float = 0.08
    flip: bool = True
    half_body: float = 0.2
    colour: float = 0.25
    cutout: float = 0.3


T_co = TypeVar("T_co", covariant=True)


class Each(Protocol[T_co]):
    """Something of each person of a set, read when it is asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> T_co: ...


class Examples(Dataset[dict[str, Tensor]]):
    """One example a person, fresh each time it is asked for.

    The random numbers of an example depend on the seed, the epoch, its index among those of all
    sets, and how often it was drawn in the epoch before: a run that resumes sees what it would
    have seen.
    """

    def __init__(
        self,
        people: list[LabelledPerson],
        keypoints: KeypointSet,
        size: Size,
        matrix: CropMatrix,
        *,
        augmentation: Augmentation | None,
        teacher: Path | Each[NDArray[np.floating]] | None = None,
        pictures: Each[NDArray[np.uint8]] | None = None,
        seed: int = 0,
    ) -> None:
        """Prepare.

        Args:
            people: of the set.
            keypoints: their joints.
            size: of the crops (width, height).
            matrix: how boxes become crops.
            augmentation: None for plain crops.
            teacher: what `training.teacher.observe` wrote of the same people, or a pack's maps.
            pictures: that the labels lie in; None for the people's photos.
            seed: of all randomness.

        Raises:
            DataError: the teacher's maps are of other people.
        """
        self.people = people
        self.keypoints = keypoints
        self.size = size
        self.matrix: CropMatrix = matrix
        self.augmentation = augmentation
        self.pictures = pictures
        self.maps = np.load(teacher, mmap_mode="r") if isinstance(teacher, Path) else teacher
        if self.maps is not None and len(self.maps) != len(people):
            raise DataError(f"{teacher} holds {len(self.maps)} people, the set {len(people)}")
        self.seed = seed
        self.epoch = 0
        self.first = 0

    def __len__(self) -> int:
        return len(self.people)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """One example, drawn for the first time."""
        return self.drawn(index)

    def drawn(self, index: int, before: int = 0) -> dict[str, Tensor]:
        """One example.

        Args:
            index: of the person.
            before: how often they were drawn in this epoch already.

        Returns:
            crop (H, W, 3) uint8, points (K, 2) crop px, visible (K,) bool, index; with a teacher
            also maps (K, rows, columns) float32, all zero outside what the teacher saw.
        """
        person = self.people[index]
        random = np.random.default_rng((self.seed, self.epoch, self.first + index, before))
        geometry, mirrored = self._geometry(person, random)
        picture = read_image(person.image) if self.pictures is None else self.pictures[index]
        crop = geometry.cut(picture)
        if self.augmentation is not None:
            crop = _coloured(crop, self.augmentation.colour, random)
            if random.random() < self.augmentation.cutout:
                crop = _cut_out(crop, random)
        points, visible = geometry.to_crop(person.points), person.visibility > 0
        order = list(self.keypoints.mirror) if mirrored else slice(None)
        example = {
            "crop": torch.from_numpy(crop),
            "points": torch.from_numpy(points[order].astype(np.float32)),
            "visible": torch.from_numpy(visible[order]),
            "index": torch.tensor(index),
        }
        if self.maps is not None:
            maps = _warped(np.asarray(self.maps[index], np.float32), person, geometry)
            example["maps"] = torch.from_numpy(maps[order])
        return example

    def _geometry(
        self, person: LabelledPerson, random: np.random.Generator
    ) -> tuple[CropGeometry, bool]:
        augmentation = self.augmentation
        if augmentation is None:
            return CropGeometry.from_box(person.box, self.size, matrix=self.matrix), False
        box = person.box
        if random.random() < augmentation.half_body:
            box = half_body(person, self.keypoints, lower=random.random() < 0.3) or box
        scale = 1 + augmentation.scale * np.clip(random.standard_normal(), -1, 1)
        rotation = 0.0
        if random.random() < augmentation.rotation_share:
            rotation = augmentation.rotation * float(np.clip(random.standard_normal(), -2, 2))
        reach = augmentation.shift * max(box.width, box.height)
        dx, dy = random.uniform(-reach, reach, 2)
        mirrored = augmentation.flip and random.random() < 0.5
        return (
            CropGeometry.from_box(
                Box(box.x + dx, box.y + dy, box.width, box.height),
                self.size,
                matrix=self.matrix,
                padding=1.25 * float(scale),
                rotation=rotation,
                mirrored=mirrored,
            ),
            mirrored,
        )


def set_epoch(data: ConcatDataset[dict[str, Tensor]], epoch: int) -> None:
    """Fresh augmentation, of each set its own."""
    for part, end in zip(data.datasets, data.cumulative_sizes, strict=True):
        assert isinstance(part, Examples)
        part.epoch, part.first = epoch, end - len(part)


def half_body(person: LabelledPerson, keypoints: KeypointSet, *, lower: bool) -> Box | None:
    """A box around the upper or the lower half's joints, or None if too few are labelled."""
    visible = person.visibility > 0
    below = np.array([name.endswith(("hip", "knee", "ankle")) for name in keypoints.names])
    half = visible & (below == lower)
    if visible.sum() <= 8 or half.sum() < 3:
        return None
    low, high = person.points[half].min(0), person.points[half].max(0)
    width, height = np.maximum(high - low, 8.0) * 1.2
    cx, cy = (low + high) / 2
    return Box(cx - width / 2, cy - height / 2, width, height)


def _coloured(
    crop: NDArray[np.uint8], strength: float, random: np.random.Generator
) -> NDArray[np.uint8]:
    """Brightness, contrast, and each channel's gain; now and then grey."""
    gain = 1 + strength * random.uniform(-1, 1, 3) * 0.5 + strength * random.uniform(-1, 1)
    offset = 255 * strength * random.uniform(-0.5, 0.5)
    table = np.clip(np.arange(256)[:, None] * gain + offset, 0, 255).astype(np.uint8)
    crop = np.stack([table[:, c][crop[..., c]] for c in range(3)], axis=-1)
    if strength and random.random() < 0.05:
        crop = np.repeat(crop.mean(-1, keepdims=True).astype(np.uint8), 3, axis=-1)
    return crop


def _cut_out(crop: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    """One rectangle of noise or of a flat colour."""
    height, width = crop.shape[:2]
    area, aspect = random.uniform(0.02, 0.12) * width * height, random.uniform(0.4, 2.5)
    w = min(width - 1, int(math.sqrt(area * aspect)))
    h = min(height - 1, int(math.sqrt(area / aspect)))
    x, y = random.integers(0, width - w), random.integers(0, height - h)
    crop = crop.copy()
    crop[y : y + h, x : x + w] = random.integers(0, 256, 3 if random.random() < 0.5 else (h, w, 3))
    return crop


def _warped(
    maps: NDArray[np.float32], person: LabelledPerson, geometry: CropGeometry
) -> NDArray[np.float32]:
    """The teacher's maps as they lie in another crop of the same person.

    Its bumps stay as wide as labels, however large people are there. A Gaussian to the power of the
    zoom's square is that much narrower; one that is blurred is wider. Its peak, which is the
    teacher's score, is left alone.
    """
    columns, rows = GRID

    def cells(size: Size) -> NDArray[np.float64]:
        """Cells -> crop px, homogeneous; the teacher's grid is a UDP one."""
        pitch = (size[0] - 1) / (columns - 1), (size[1] - 1) / (rows - 1)
        return np.diag([*pitch, 1.0])

    def square(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.vstack([matrix, [0, 0, 1]])

    own = np.linalg.inv(cells((geometry.width, geometry.height))) @ square(geometry.matrix)
    seen = square(plain_crop(person).inverse) @ cells(TEACHER_SIZE)
    matrix = (own @ seen)[:2]
    warped = np.stack([cv2.warpAffine(m, matrix, GRID, flags=cv2.INTER_LINEAR) for m in maps])
    zoom_square = abs(float(np.linalg.det(matrix[:, :2])))
    if zoom_square > 1:
        peak = maps.max((1, 2), keepdims=True).clip(1e-6)  # which may lie outside
        return np.asarray(peak * (warped.clip(0) / peak) ** zoom_square, np.float32)
    if (width := SIGMA * math.sqrt(1 - zoom_square)) < 0.1:
        return np.asarray(warped, np.float32)
    blurred = np.stack([cv2.GaussianBlur(m, (0, 0), width) for m in warped])
    peak = warped.max((1, 2), keepdims=True)
    return np.asarray(blurred * peak / blurred.max((1, 2), keepdims=True).clip(1e-6), np.float32)
