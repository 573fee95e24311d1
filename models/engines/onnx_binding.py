"""ONNX Runtime's graphs on a device: what one answers stays there for the next to take."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from types import ModuleType
from typing import Any

import array_api_compat.numpy
import numpy as np
import onnxruntime as ort
from numpy.typing import DTypeLike, NDArray

from models.arrays import Array
from models.engines import Floats
from models.engines.graphs import Run


class _Buffer:
    """What a graph answered, and once anybody wants to see it, a copy on the host."""

    def __init__(self, value: ort.OrtValue) -> None:
        self.value = value

    @cached_property
    def host(self) -> Floats:
        return np.asarray(self.value.numpy(), np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class OnDevice:
    """Float32 rows in ONNX Runtime's own memory: a graph's input as they are, numpy's on demand.

    ONNX Runtime slices nothing, but takes an address: some rows of a batch are a part of it. All
    of it stays while there are any, and one copy on the host serves them all.

    Attributes:
        shape: (B, ...).
    """

    shape: tuple[int, ...]
    _buffer: _Buffer
    _first: int = 0

    @classmethod
    def of(cls, value: ort.OrtValue) -> OnDevice:
        """All rows that a graph answered."""
        return cls(tuple(value.shape()), _Buffer(value))

    dtype = np.dtype(np.float32)
    device = "cpu"
    """Where the array API computes with them."""

    @property
    def nbytes(self) -> int:
        """Of the rows."""
        return int(np.prod(self.shape)) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: slice) -> OnDevice:
        first, last, step = index.indices(len(self))
        if step != 1:
            raise IndexError(f"{index} is not rows one after the other")
        shape = (max(0, last - first), *self.shape[1:])
        return replace(self, shape=shape, _first=self._first + first)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("what lies on a device comes to the host only as a copy")
        rows = self._buffer.host[self._first : self._first + len(self)]
        return np.array(rows, dtype, copy=copy or None)

    def __array_namespace__(self, api_version: str | None = None) -> ModuleType:
        return array_api_compat.numpy

    def astype(self, dtype: DTypeLike, copy: bool = True) -> Array:
        """Itself where it is so already and need not be a copy, else on the host."""
        return self if dtype == self.dtype and not copy else np.array(self, dtype)

    def bind(self, binding: ort.IOBinding, name: str) -> None:
        """Make the rows a graph's input, which they have to outlive."""
        value = self._buffer.value
        row = int(np.prod(self.shape[1:])) * self.dtype.itemsize
        address = value.data_ptr() + self._first * row
        binding.bind_input(name, value.device_name(), 0, np.float32, self.shape, address)


def bound(session: ort.InferenceSession, device: str, *, stays: bool) -> Run:
    """A graph whose inputs may be on the device, and whose outputs stay there or come to the host.

    Args:
        session: on the device.
        device: ONNX Runtime's name of it: `cuda`, or `cpu`.
        stays: the outputs are wanted by other graphs first.
    """
    inputs = [node.name for node in session.get_inputs()]
    outputs = [node.name for node in session.get_outputs()]

    def run(*arrays: Array) -> tuple[Array, ...]:
        binding = session.io_binding()  # one a run, so that threads share none
        for name, array in zip(inputs, arrays, strict=True):
            if isinstance(array, OnDevice):
                array.bind(binding, name)
            else:
                binding.bind_cpu_input(name, np.ascontiguousarray(array))
        for name in outputs:
            binding.bind_output(name, device if stays else "cpu")
        binding.synchronize_inputs()
        # Back once the device is done, so that any other session may read what it answered.
        session.run_with_iobinding(binding)
        answers = binding.get_outputs()
        return tuple(OnDevice.of(x) if stays else x.numpy() for x in answers)

    return run
