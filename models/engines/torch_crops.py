"""The crops of a photo, cut where torch computes, from one upload of what they read of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from models.geometry import CropGeometry, Extent

Place = Callable[[NDArray[Any]], Tensor]
"""Brings an array to the device."""


def cut_crops(
    photo: NDArray[np.uint8], geometries: Sequence[CropGeometry], place: Place
) -> list[Tensor]:
    """What `CropGeometry.cut` cuts on the host, within a grey level.

    Crops that read the photo at the same factor are one call of torch's sampler. It takes floats:
    while it runs the device holds 12 to 24 bytes for each pixel that they read.

    Args:
        photo: (H, W, 3) uint8.
        geometries: of crops that all have one size.
        place: brings the part of the photo that is needed to the device, and little else.

    Returns:
        (height, width, 3) uint8 on the device, in order.
    """
    if not geometries:
        return []
    size = photo.shape[1], photo.shape[0]
    groups: dict[int, list[int]] = {}
    extents = [geometry.extent(size) for geometry in geometries]
    for index, extent in enumerate(extents):
        groups.setdefault(extent.factor, []).append(index)
    whole = _around(extents)
    part = place(photo[whole.top : whole.bottom, whole.left : whole.right])
    crops: list[Tensor] = [part] * len(extents)
    for indices in groups.values():
        extent = _around([extents[index] for index in indices])
        rows = slice(extent.top - whole.top, extent.bottom - whole.top)
        columns = slice(extent.left - whole.left, extent.right - whole.left)
        chosen = [geometries[index] for index in indices]
        for index, crop in zip(
            indices, _sampled(part[rows, columns], extent, chosen, place), strict=True
        ):
            crops[index] = crop
    return crops


def _around(extents: Sequence[Extent]) -> Extent:
    """The least one that holds those that have any pixels; none has where none of them does."""
    some = [one for one in extents if one.left < one.right and one.top < one.bottom]
    if not some:
        return Extent(extents[0].factor, 0, 0, 0, 0)
    factors, lefts, tops, rights, bottoms = zip(*some, strict=True)
    return Extent(min(factors), min(lefts), min(tops), max(rights), max(bottoms))


def _sampled(
    part: Tensor, extent: Extent, geometries: Sequence[CropGeometry], place: Place
) -> Tensor:
    """(N, height, width, 3) uint8 crops of an extent's pixels (h, w, 3), black outside of them."""
    height, width = geometries[0].height, geometries[0].width
    if not part.numel():
        return part.new_zeros((len(geometries), height, width, 3))
    pixels = _reduced(part.permute(2, 0, 1)[None].float(), extent.factor)
    x_y = np.array([pixels.shape[3], pixels.shape[2]])
    # From a crop's pixels to the sampler's positions, in which the reduced part spans [-1, 1].
    maps = np.stack([geometry.inverse for geometry in geometries])
    maps[:, :, 2] -= extent.first
    maps *= 2 / (extent.factor * x_y)[:, None]
    maps[:, :, 2] += 1 / x_y - 1
    across, down, start = place(maps.astype(np.float32))[..., None, None].unbind(2)
    u = torch.arange(width, device=part.device)
    v = torch.arange(height, device=part.device)[:, None]
    grid = (across * u + down * v + start).permute(0, 2, 3, 1)
    # One below the other, so that the pixels are not repeated for each.
    column = grid.reshape(1, len(geometries) * height, width, 2)
    crops = functional.grid_sample(pixels, column, align_corners=False).round().to(torch.uint8)
    return crops.view(3, len(geometries), height, width).permute(1, 2, 3, 0).contiguous()


def _reduced(pixels: Tensor, factor: int) -> Tensor:
    """(1, 3, h, w) by area, a last row or column narrower than the factor repeated to full width.

    Rounded as the host's is, which has only bytes for it.
    """
    if factor == 1:
        return pixels
    missing_x, missing_y = -pixels.shape[3] % factor, -pixels.shape[2] % factor
    full = functional.pad(pixels, (0, missing_x, 0, missing_y), mode="replicate")
    rows, columns = full.shape[2] // factor, full.shape[3] // factor
    means = full.reshape(1, 3, rows, factor, columns, factor).mean((3, 5))
    # OpenCV rounds halves up where it averages four pixels, and to even everywhere else.
    return (means + 0.5).floor() if factor == 2 else means.round()
