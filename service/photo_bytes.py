"""A kept photo as bytes and back: a short header in JSON, then the features as they are.

Nothing is unpickled, and nothing that does not fit the header exactly is believed.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.features import Features
from models.geometry import CropGeometry
from service.features import Entry, KeptPhoto

_START = struct.Struct("<4sI")
_MAGIC = b"SPF1"
"""The last character is the version: another one is not read."""
_HALF = np.dtype("<f2")


def pack(entry: Entry, weights: str) -> bytes:
    """The bytes of an entry, without its id and owner, which its key stands for.

    Args:
        entry: to be packed.
        weights: digest of the model's, without which its features mean nothing.
    """
    photo = entry.photo
    header = {
        "weights": weights,
        "model": photo.model,
        "size": photo.size,
        "expires": entry.expires,
        "crops": [[crop.width, crop.height, *crop.matrix.ravel()] for crop in photo.geometries],
        # Of each person: of one crop, or of it and its mirror image; none where it failed.
        "shapes": [
            None if kept is None else [2 if kept.mirrored is not None else 1, *kept.plain.shape[1:]]
            for kept in photo.features
        ],
    }
    text = json.dumps(header, separators=(",", ":")).encode()
    arrays = [
        np.ascontiguousarray(array, _HALF).tobytes()
        for kept in photo.features
        if kept is not None
        for array in (kept.plain, kept.mirrored)
        if array is not None
    ]
    return b"".join([_START.pack(_MAGIC, len(text)), text, *arrays])


def unpack(data: bytes, id: str, owner: str, weights: Mapping[str, str]) -> Entry | None:  # noqa: A002
    """The entry of these bytes; None where other weights made it, or where it is damaged.

    Args:
        data: from `pack`.
        id: it was asked for under.
        owner: who asked.
        weights: digests by the names of the models that are served here.
    """
    try:
        magic, length = _START.unpack_from(data)
        first = _START.size + length
        header = json.loads(data[_START.size : first]) if magic == _MAGIC else {}
        if weights.get(header["model"]) != header["weights"]:
            return None
        photo = _photo(header, memoryview(data)[first:])
        return Entry(id, owner, photo, float(header["expires"]))
    except (struct.error, ValueError, KeyError, TypeError, AttributeError):
        return None


def _photo(header: dict[str, Any], rest: memoryview) -> KeptPhoto:
    features: list[Features | None] = []
    for shape in header["shapes"]:
        if shape is None:
            features.append(None)
            continue
        passes, *sizes = shape
        if passes not in (1, 2) or len(sizes) != 3 or any(size < 1 for size in sizes):
            raise ValueError("features of no shape")
        arrays: list[NDArray[np.float16] | None] = [None, None]
        for number in range(passes):
            count = int(np.prod(sizes))
            part = np.frombuffer(rest, _HALF, count).reshape(1, *sizes)
            arrays[number] = part.astype(np.float16)  # its own memory, not the whole message's
            rest = rest[part.nbytes :]
        assert arrays[0] is not None
        features.append(Features(arrays[0], arrays[1]))
    if len(rest) or len(features) != len(header["crops"]):
        raise ValueError("more or less than the header says")
    crops = tuple(
        CropGeometry(np.array(matrix, np.float64).reshape(2, 3), int(width), int(height))
        for width, height, *matrix in header["crops"]
    )
    width, height = header["size"]
    return KeptPhoto(int(width), int(height), str(header["model"]), crops, tuple(features))
