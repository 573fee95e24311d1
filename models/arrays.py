"""The codecs' array type: numpy on the CPU, torch on a GPU, by the array API standard."""

from __future__ import annotations

from typing import Any, TypeAlias

import array_api_compat

# The array API standard has no static type yet; each function states shapes and dtypes instead.
Array: TypeAlias = Any


def namespace(*arrays: Array) -> Any:  # noqa: ANN401
    """The array API namespace that these arrays share."""
    return array_api_compat.array_namespace(*arrays)
