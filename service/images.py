"""Bytes -> pixels, safely.

The kind is judged by the first bytes alone and the size by the header, before anything is decoded.
JPEG is decoded by simplejpeg where it can, all else by Pillow.
"""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import ExifTags, Image

from service.problems import TooManyPixels, UnreadableImage, UnsupportedImage

# OpenCV's warp takes no longer side.
LONGEST_SIDE = 32_766

# Pillow's own limit would be judged before ours, which has the words for it.
Image.MAX_IMAGE_PIXELS = None

_JPEG = b"\xff\xd8\xff"

_LONE = frozenset((0x00, 0xC8, *range(0xD0, 0xDA), *range(0xF0, 0xFE)))
"""Markers that no segment follows; 0x00 is none, and stands behind a stray 0xff."""

_WHOLE = frozenset((*range(0xE0, 0xF0), 0xFE))
"""Markers of segments that are taken whole: APP0 to APP15 and comments."""

_SCAN = 0xDA

_QUICK_BYTES, _MOST_BYTES = 1 << 10, 1 << 16
"""Of a JPEG's header, bytes looked at one by one. Real ones have less than a thousand."""

_QUICK_HEADER = 1 << 14
"""Bytes of it with all that is taken whole, EXIF's many entries among them."""

_LAYER_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2}
"""Of Pillow's own image, by mode; 4 of any other, RGB too."""

_WEBP_BYTES = 18
"""libwebp has two canvases for what may be an animation, and hands over a third."""

_STRIP_PIXELS = 1 << 18

_quiet_lock = threading.Lock()


def kind_of(data: bytes) -> str:
    """Pillow's name of the format that the first bytes tell.

    Raises:
        UnsupportedImage: none of ours.
        UnreadableImage: no bytes at all.
    """
    if not data:
        raise UnreadableImage("the body is empty; post the bytes of a JPEG, PNG or WebP image")
    if data.startswith(_JPEG):
        return "JPEG"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP"
    raise UnsupportedImage(
        f"the first bytes ({data[:8].hex(' ')}) are not those of a JPEG, PNG or WebP image; "
        "convert it to one of these"
    )


def quick(data: bytes) -> bool:
    """Whether its header is read in microseconds: a PNG's or WebP's may hide behind megabytes.

    A JPEG's, too, may be endless: segments without content, or a marker's fill bytes.
    """
    if not data.startswith(_JPEG):
        return False
    looked_at, end = _jpeg_header(data, _QUICK_BYTES)
    return looked_at <= _QUICK_BYTES and end <= _QUICK_HEADER


def _jpeg_header(data: bytes, most: int) -> tuple[int, int]:
    """What reading a JPEG's header costs Pillow, who goes through it byte by byte.

    Returns:
        Bytes looked at, no further than somewhat beyond `most`, and where the walk has ended.
    """
    looked_at, at = 0, 2
    while looked_at <= most and at < len(data):
        marker = data[at + 1] if data[at] == 0xFF and at + 1 < len(data) else 0xFF
        begin = at
        if marker == 0xFF:  # that of a marker is still to come, or this byte is stray
            at += 1
        elif marker in _LONE:
            at += 2
        else:
            at += 2 + max(2, int.from_bytes(data[at + 2 : at + 4], "big"))
        looked_at += 4 if marker in _WHOLE else at - begin
        if marker == _SCAN:
            break
    return looked_at, at


class PostedImage:
    """An image whose header has been read and whose pixels have not.

    Args:
        data: the file's bytes.
        most_pixels: an image with more is refused.

    Raises:
        UnsupportedImage: not JPEG, PNG or WebP.
        UnreadableImage: a header that cannot be read.
        TooManyPixels: from the header.
    """

    def __init__(self, data: bytes, most_pixels: int) -> None:
        kind = kind_of(data)
        self._data = data
        with _readable():
            if kind == "JPEG" and _jpeg_header(data, _MOST_BYTES)[0] > _MOST_BYTES:
                raise ValueError("no end of its header is in sight")
        with _readable(), _quiet():
            self._image = Image.open(io.BytesIO(data), formats=[kind])
            self.size = width, height = self._image.size
            """Before EXIF's orientation is applied."""
            self.nbytes = width * height * _bytes_a_pixel(self._image)
            """What decoding holds at its peak."""
        if width * height > most_pixels or max(width, height) > LONGEST_SIDE:
            raise TooManyPixels(
                f"{width} x {height} pixels; at most {most_pixels / 1e6:g} megapixels and "
                f"{LONGEST_SIDE} a side are taken: make it smaller"
            )

    def pixels(self) -> NDArray[np.uint8]:
        """The image as it is meant to be seen, once: EXIF orientation applied, alpha over white.

        Returns:
            (H, W, 3) uint8 RGB, contiguous.

        Raises:
            UnreadableImage: truncated or corrupt.
        """
        with _readable():
            pixels = self._jpeg_pixels()
            if pixels is None:
                self._image.load()
                pixels = _rgb(self._image)
            with _quiet():
                orientation = _orientation(self._image)
        del self._image  # its layer makes room for a turned one
        return np.ascontiguousarray(_upright(pixels, orientation))

    def _jpeg_pixels(self) -> NDArray[np.uint8] | None:
        """By simplejpeg, or None where Pillow has to do it (grey, CMYK, stray bytes)."""
        if self._image.format not in ("JPEG", "MPO") or self._image.mode != "RGB":
            return None
        try:
            return np.asarray(simplejpeg.decode_jpeg(self._data, "RGB"), np.uint8)
        except ValueError as error:
            # Stray bytes between two segments harm nothing and are common in files of phones.
            if "extraneous bytes" in str(error):
                return None
            raise


@contextmanager
def _readable() -> Iterator[None]:
    """Whatever a decoder raises about bytes of a stranger means that they cannot be read."""
    try:
        yield
    except Exception as error:
        reason = str(error).strip() or type(error).__name__
        if "<_io.BytesIO" in reason:
            reason = "its header makes no sense"
        raise UnreadableImage(
            f"the image is truncated or corrupt ({reason}); check that all of it was sent"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Pillow warns of odd headers; a server's log is no place for that.

    The lock is there because the filters that `catch_warnings` restores belong to the process.
    """
    with _quiet_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _bytes_a_pixel(image: Image.Image) -> int:
    """What decoding an image holds at its peak: Pillow's layer, ours, the decoder's own."""
    layer = _LAYER_BYTES.get(image.mode, 4)
    if image.format == "WEBP":
        return _WEBP_BYTES
    if image.format == "PNG":
        return layer + 3
    # A progressive file's coefficients are there as a whole before there is a pixel.
    decoder = 2 * len(image.getbands()) if image.info.get("progressive") else 0
    if image.mode != "RGB":
        return decoder + layer + 3
    return 3 + max(decoder, 0 if _orientation(image) == 1 else 3)


def _rgb(image: Image.Image) -> NDArray[np.uint8]:
    """Any mode to (H, W, 3) uint8 RGB, a strip at a time: no layer but the result is whole."""
    width, height = image.size
    pixels = np.empty((height, width, 3), np.uint8)
    rows = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        pixels[top:bottom] = _strip(image.crop((0, top, width, bottom)))
    return pixels


def _strip(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode.startswith("I"):
        # 16-bit grey: Pillow's own conversion clips at 255.
        wide = np.asarray(image).astype(np.float32)
        grey = np.clip(np.round(wide / 257), 0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        page = Image.new("RGBA", layer.size, "white")
        image = Image.alpha_composite(page, layer)
    return np.asarray(image.convert("RGB"), np.uint8)


def _orientation(image: Image.Image) -> int:
    """EXIF's, which JPEG has in its header and others perhaps behind the pixels."""
    orientation: int = image.getexif().get(ExifTags.Base.Orientation, 1)
    return orientation


def _upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Undo EXIF's orientation, 1 to 8; any other value means nothing and is ignored."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels
