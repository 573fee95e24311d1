"""The codecs' array type: numpy on the CPU, torch on a GPU, by the array API standard."""

from __future__ import annotations

from typing import Any, TypeAlias

import array_api_compat
import numpy as np
from numpy.typing import NDArray

# The array API standard has no static type yet; each function states shapes and dtypes instead.
Array: TypeAlias = Any


def namespace(*arrays: Array) -> Any:  # noqa: ANN401
    """The array API namespace that these arrays share."""
    return array_api_compat.array_namespace(*arrays)


def to_numpy(array: Array) -> NDArray[Any]:
    """The same on the host, of the same dtype; a copy only where it lies on another device."""
    if array_api_compat.is_torch_array(array):
        array = array.cpu().numpy()
    return np.asarray(array)
