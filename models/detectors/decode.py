"""What detectors' graphs emit -> boxes of the input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.geometry import Size

Outputs = Sequence[NDArray[np.float32]]
Candidates = tuple[NDArray[np.float32], NDArray[np.float32]]
"""(B, N, 4) x1 y1 x2 y2 in px of the input, and their scores (B, N) in [0, 1]."""


def decode_rtmdet(outputs: Outputs, size: Size) -> Candidates:
    """RTMDet's dense outputs.

    Args:
        outputs: per stride (B, height / stride, width / stride, 5): the logit of a person, then the
            distances in px from the cell's point (column * stride, row * stride) to the left, top,
            right and bottom edge.
        size: of the input.
    """
    boxes, scores = [], []
    for level in outputs:
        batch, rows, columns, _ = level.shape
        points = _cells(columns, rows) * np.float32(size[0] / columns)
        level = level.reshape(batch, rows * columns, 5)
        boxes.append(np.concatenate([points - level[..., 1:3], points + level[..., 3:5]], axis=-1))
        scores.append(_sigmoid(level[..., 0]))
    return np.concatenate(boxes, axis=1), np.concatenate(scores, axis=1)


def decode_yolox(outputs: Outputs, size: Size) -> Candidates:
    """YOLOX's one output, its grid not applied.

    Args:
        outputs: (B, cells of strides 8, 16 and 32 row by row, 5 + classes): centre and logarithm
            of the size in strides, objectness, class scores; class 0 is a person.
        size: of the input.
    """
    (values,) = outputs
    grids, strides = [], []
    for stride in (8, 16, 32):
        cells = _cells(size[0] // stride, size[1] // stride)
        grids.append(cells)
        strides.append(np.full((len(cells), 1), stride, np.float32))
    scale = np.concatenate(strides)
    centers = (values[..., :2] + np.concatenate(grids)) * scale
    halves = np.exp(values[..., 2:4]) * scale / 2
    corners = np.concatenate([centers - halves, centers + halves], axis=-1)
    return corners, values[..., 4] * values[..., 5]


DECODERS: dict[str, Callable[[Outputs, Size], Candidates]] = {
    "rtmdet": decode_rtmdet,
    "yolox": decode_yolox,
}
"""By the name in a detector's manifest."""


def _cells(columns: int, rows: int) -> NDArray[np.float32]:
    """(rows * columns, 2) column and row of each cell, row by row."""
    return np.stack(
        np.meshgrid(np.arange(columns), np.arange(rows)), axis=-1, dtype=np.float32
    ).reshape(-1, 2)


def _sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    # By tanh, which overflows nowhere.
    result: Any = 0.5 * (1 + np.tanh(0.5 * logits))
    return np.asarray(result, np.float32)
