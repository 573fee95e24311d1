"""From photos to a graph's input, and from its dense output to boxes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.detectors.decode import DECODERS, Outputs
from models.detectors.letterbox import Letterbox
from models.detectors.nms import suppress
from models.geometry import Box, Size
from models.manifest import DetectorManifest, InputSpec

Pixels = NDArray[np.uint8] | NDArray[np.float32]


class DenseDetector:
    """A detector as its manifest describes it, whatever runs the graph.

    Attributes:
        name: of the bundle.
        device: that the graph runs on.
        min_box_score: below it, boxes are not answered unless the caller says so.
    """

    def __init__(
        self, manifest: DetectorManifest, run: Callable[[Pixels], Outputs], *, device: str
    ) -> None:
        self.name = manifest.name
        self.device = device
        self.min_box_score = manifest.score_threshold
        self._manifest = manifest
        self._sizes = ((manifest.input.width, manifest.input.height), *manifest.further_sizes)
        self._decode = DECODERS[manifest.decoder]
        self._run = run

    def detect(
        self, images: Sequence[NDArray[np.uint8]], *, min_box_score: float | None = None
    ) -> list[list[Box]]:
        """People in each image; see `models.detectors.Detector`."""
        least = self.min_box_score if min_box_score is None else min_box_score
        letterboxes = [
            Letterbox.fit((image.shape[1], image.shape[0]), self._sizes) for image in images
        ]
        found: list[list[Box]] = [[] for _ in images]
        for batch in _batches(letterboxes, self._manifest.input.largest_batch):
            pixels = np.stack([letterboxes[index].place(images[index]) for index in batch])
            outputs = self._run(prepare(pixels, self._manifest.input))
            corners, scores = self._decode(outputs, letterboxes[batch[0]].size)
            for row, index in enumerate(batch):
                found[index] = self._people(letterboxes[index], corners[row], scores[row], least)
        return found

    def _people(
        self,
        letterbox: Letterbox,
        corners: NDArray[np.float32],
        scores: NDArray[np.float32],
        least: float,
    ) -> list[Box]:
        likely = (scores >= least) & np.isfinite(corners).all(axis=1)
        inside, scores = letterbox.to_image(corners[likely]), scores[likely]
        some = (inside[:, 2:] > inside[:, :2]).all(axis=1)
        inside, scores = inside[some], scores[some]
        kept = suppress(inside, scores, self._manifest.nms_threshold)
        return [
            Box(x1, y1, x2 - x1, y2 - y1, score)
            for (x1, y1, x2, y2), score in zip(
                inside[kept].tolist(), scores[kept].tolist(), strict=True
            )
        ]


def prepare(pixels: NDArray[np.uint8], spec: InputSpec) -> Pixels:
    """Pixels as a graph takes them.

    Args:
        pixels: (B, H, W, 3) uint8 RGB.
        spec: the manifest's.
    """
    values: NDArray[Any] = pixels
    if spec.channels == "BGR":
        values = values[..., ::-1]
    if spec.dtype == "float32":
        values = values.astype(np.float32)
    if spec.normalisation is not None:
        mean = np.array(spec.normalisation.mean, np.float32)
        std = np.array(spec.normalisation.std, np.float32)
        values = (values - mean) / std
    if spec.layout == "NCHW":
        values = values.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(values)


def _batches(letterboxes: Sequence[Letterbox], largest: int) -> Iterator[list[int]]:
    """Indices of images that share an input size, at most `largest` at a time."""
    by_size: defaultdict[Size, list[int]] = defaultdict(list)
    for index, letterbox in enumerate(letterboxes):
        by_size[letterbox.size].append(index)
    for indices in by_size.values():
        for start in range(0, len(indices), largest):
            yield indices[start : start + largest]
