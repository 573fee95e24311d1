"""Where a heatmap has its samples, how large it gets, and what it looks like as bytes."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.draw import Colormap, colour
from models.geometry import CropGeometry, Size

Frame = Literal["crop", "image"]
Format = Literal["png", "npy", "json"]

_BYTES_A_VALUE: dict[Format, int] = {"png": 1, "npy": 4, "json": 8}
"""At the most: a value of json has four decimals, a bracket and a comma now and then."""

_HELD_A_VALUE: dict[Format, int] = {"png": 12, "npy": 8, "json": 20}
"""While an answer is made: its float32 and what it becomes."""

_DECIMALS = 4
_WRITTEN = np.array([f"{step / 10**_DECIMALS:g}," for step in range(10**_DECIMALS + 1)], "S7")
"""Every value that JSON has, as it stands there."""


@dataclass(frozen=True, slots=True, eq=False)
class Lattice:
    """The samples of a heatmap: a separable lattice.

    Attributes:
        columns: crop px of each column.
        rows: crop px of each row.
        affine: a..f: x = a*column + b*row + c, y = d*column + e*row + f, image px.
    """

    columns: NDArray[np.float64]
    rows: NDArray[np.float64]
    affine: tuple[float, float, float, float, float, float]

    def held_bytes(self, channels: int, kind: Format) -> int:
        """Memory that an answer takes while it is made."""
        return len(self.columns) * len(self.rows) * channels * _HELD_A_VALUE[kind]

    @classmethod
    def over(cls, frame: Frame, resolution: int, geometry: CropGeometry, image: Size) -> Lattice:
        """`resolution` samples along the frame's longer side, the same pitch along the other.

        Args:
            frame: the crop, or the whole image.
            resolution: samples along the longer side.
            geometry: of the crop.
            image: its (width, height), px.
        """
        size = (geometry.width, geometry.height) if frame == "crop" else image
        pitch = max(size) / resolution
        first = 0.5 * pitch - 0.5
        columns, rows = (
            first + pitch * np.arange(count, dtype=np.float64) for count in shape(size, resolution)
        )
        if frame == "image":
            (a, _, c), (_, e, f) = geometry.matrix
            return cls(a * columns + c, e * rows + f, (pitch, 0.0, first, 0.0, pitch, first))
        (a, b, c), (d, e, f) = geometry.inverse.tolist()
        affine = (
            a * pitch, b * pitch, (a + b) * first + c,
            d * pitch, e * pitch, (d + e) * first + f,
        )  # fmt: skip
        return cls(columns, rows, affine)


def shape(size: Size, resolution: int) -> Size:
    """(columns, rows) of a lattice over `size`: as many of the longer side's pitch as cover it."""
    longer = max(size)
    return -(-size[0] * resolution // longer), -(-size[1] * resolution // longer)


def answer_bytes(
    size: Size,
    resolution: int,
    channels: int,
    kind: Format,
    *,
    coloured: bool,
) -> int:
    """What a heatmap's answer takes at the most."""
    columns, rows = shape(size, resolution)
    depth = 4 if coloured else 1
    return columns * rows * channels * depth * _BYTES_A_VALUE[kind]


def largest_fit(
    most_bytes: int,
    size: Size,
    channels: int,
    kind: Format,
    *,
    coloured: bool,
) -> int:
    """The largest resolution (16 to 2048) whose answer takes no more; 0 where none does."""
    fitting = (
        resolution
        for resolution in range(2048, 15, -1)
        if answer_bytes(size, resolution, channels, kind, coloured=coloured) <= most_bytes
    )
    return next(fitting, 0)


@dataclass(frozen=True, slots=True, eq=False)
class Heatmap:
    """Values on a lattice.

    Attributes:
        values: (channels, H, W) float32 in [0, 1].
        channels: their names.
        lattice: where the samples are.
    """

    values: NDArray[np.float32]
    channels: Sequence[str]
    lattice: Lattice

    def png(self, colormap: Colormap, *, alpha: bool) -> bytes:
        """The one channel as an 8-bit picture."""
        return png(colour(self.values[0], colormap, alpha=alpha))

    def npy(self) -> bytes:
        """(channels, H, W) float32."""
        stream = io.BytesIO()
        np.save(stream, self.values.astype(np.float32, copy=False))
        return stream.getvalue()

    def json(self) -> bytes:
        """Channels, sizes, affine, values, and the peak of each channel."""
        _, height, width = self.values.shape
        body = {
            "channels": list(self.channels),
            "height": height,
            "width": width,
            "affine": list(self.lattice.affine),
            "peaks": [self._peak(channel) for channel in range(len(self.channels))],
        }
        head = json.dumps(body, separators=(",", ":"), allow_nan=False).encode()
        return head[:-1] + b',"values":' + _array(map(_rows, self.values)) + b"}"

    def _peak(self, channel: int) -> dict[str, object]:
        values = self.values[channel]
        row, column = (int(index) for index in np.unravel_index(values.argmax(), values.shape))
        a, b, c, d, e, f = self.lattice.affine
        return {
            "channel": self.channels[channel],
            "column": column,
            "row": row,
            "x": round(a * column + b * row + c, 2),
            "y": round(d * column + e * row + f, 2),
            "value": round(float(values[row, column]), 4),
        }


def _rows(values: NDArray[np.float32]) -> bytes:
    """(H, W) in [0, 1] as JSON: looked up row by row, so that no one waits for the interpreter.

    An encoder of numbers, of the standard library or not, keeps it for the whole of a heatmap.
    """
    steps = np.rint(values * np.float32(10**_DECIMALS)).astype(np.uint16)
    texts = (_WRITTEN[row].tobytes().translate(None, b"\0") for row in steps)
    return _array(b"[" + text[:-1] + b"]" for text in texts)


def _array(items: Iterable[bytes]) -> bytes:
    return b"[" + b",".join(items) + b"]"


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Pixels as a file, made quickly rather than small."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=1)
    return stream.getvalue()
