"""Photos from files."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from training.errors import DataError


def read_image(path: Path) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB.

    Raises:
        DataError: the file is not a picture that can be read.
    """
    pixels = cv2.imread(str(path))
    if pixels is None:
        raise DataError(f"{path} cannot be read as a picture")
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)
