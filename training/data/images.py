"""Photos from files."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from training.errors import DataError

ENDS = {b"\xff\xd8": b"\xff\xd9", b"\x89P": b"IEND\xaeB`\x82"}
"""How a whole file ends, by how it begins: JPEG, PNG."""


def is_whole(path: Path) -> bool:
    """Whether a picture's file begins and ends as one does: a look at two places, no decoding.

    A JPEG that was cut off would decode, to grey where its rest is missing.
    """
    with path.open("rb") as file:
        end = ENDS.get(file.read(2))
        if end is None:
            return cv2.haveImageReader(str(path))
        length = file.seek(0, os.SEEK_END)
        file.seek(max(0, length - 64))
        # Some cameras pad their files.
        return end in file.read()


def read_image(path: Path) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB.

    Raises:
        DataError: the file is not a picture that can be read.
    """
    pixels = cv2.imread(str(path))
    if pixels is None:
        raise DataError(f"{path} cannot be read as a picture")
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)
