"""Photos as small PNGs, for what is committed and looked at in a browser."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def small_png(pixels: NDArray[np.uint8], colours: int) -> bytes:
    """A PNG with a palette: with all its colours, a photo as a PNG is large.

    Args:
        pixels: (H, W, 3) RGB.
        colours: of the palette, at most 256.
    """
    buffer = io.BytesIO()
    picture = Image.fromarray(pixels).quantize(colours, dither=Image.Dither.NONE)
    picture.save(buffer, "png", optimize=True)
    return buffer.getvalue()
