"""Detectors beside each other: the table of a card."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
from rich.progress import track

from models.detectors import Detector
from training.detector.evaluate import detect_all, measure
from training.detector.photos import Photo

_TIMED = 60
"""Photos that the time is taken on."""


def compare(
    detectors: Sequence[Detector],
    photos: Sequence[Photo],
    thresholds: Sequence[float | None] = (None,),
) -> str:
    """A Markdown table of every detector at every threshold.

    Args:
        detectors: the first is what the others' time is relative to.
        photos: of one split.
        thresholds: None for each detector's own.
    """
    ratios = relative_times(detectors, photos[:_TIMED])
    lines: list[str] = []
    for detector, ratio in zip(detectors, ratios, strict=True):
        found = detect_all(detector, list(track(photos, detector.name, transient=True)))
        for threshold in thresholds:
            least = detector.min_box_score if threshold is None else threshold
            figures = asdict(measure(found, photos, least))
            if not lines:
                lines += [
                    "| detector | threshold | " + " | ".join(figures) + " | time |",
                    "|" + "---|" * (len(figures) + 3),
                ]
            cells = [
                f"{value:.2f}" if name in ("boxes", "boxes_all", "false") else f"{value:.3f}"
                for name, value in figures.items()
            ]
            lines.append(f"| {detector.name} | {least:.2f} | {' | '.join(cells)} | {ratio:.2f} |")
    return "\n".join(lines)


def relative_times(detectors: Sequence[Detector], photos: Sequence[Photo]) -> list[float]:
    """Median time of one photo, pixels to boxes, over the first detector's.

    Every photo is shown to each detector in turn, so that what else the machine does meets all.
    """
    times = np.empty((len(photos), len(detectors)))
    for row, photo in zip(times, photos, strict=True):
        pixels = photo.pixels()
        for index, detector in enumerate(detectors):
            detector.detect([pixels])
            start = time.perf_counter()
            detector.detect([pixels])
            row[index] = time.perf_counter() - start
    return [float(value) for value in np.median(times / times[:, :1], axis=0)]
