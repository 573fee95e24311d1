"""What ONNX's operators are in torch: those that this project's graphs use, no more."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from models.engines import EngineError

Operator = Callable[..., Tensor | tuple[Tensor, ...]]
"""A node's inputs (None where one is left out) to its output or outputs."""

TYPES = {
    1: torch.float32,
    6: torch.int32,
    7: torch.int64,
    9: torch.bool,
    10: torch.float16,
}
"""By ONNX's number."""


def operator(kind: str, attributes: Mapping[str, Any]) -> Operator:
    """One node's function.

    Args:
        kind: ONNX's name of the operator.
        attributes: of the node.

    Raises:
        EngineError: there is none for this operator, or not with these attributes.
    """
    made = MADE.get(kind)
    if made is None and kind not in PLAIN:
        known = ", ".join(sorted({*PLAIN, *MADE}))
        raise EngineError(f"engine 'torch' knows no operator {kind}, only {known}")
    try:
        return made(**attributes) if made else _together(PLAIN[kind], **attributes)
    except (TypeError, ValueError) as error:
        raise EngineError(f"engine 'torch' knows {kind}, but not so: {error}") from error


def _together(function: Callable[..., Tensor]) -> Operator:
    """Lengths are counted on the host; where one meets the device's numbers, it joins them."""

    def run(*inputs: Tensor) -> Tensor:
        devices = {x.device for x in inputs}
        if len(devices) > 1:
            device = next(x.device for x in inputs if x.device.type != "cpu")
            inputs = tuple(x.to(device) for x in inputs)
        return function(*inputs)

    return run


def _expect(name: str, value: object, *known: object) -> None:
    if value not in known:
        raise ValueError(f"{name} is {value!r}")


def _ints(tensor: Tensor) -> list[int]:
    """Of a tensor on the host: a device's would make it wait."""
    return [int(x) for x in tensor.tolist()]


def _cast(*, to: int, saturate: int = 1) -> Operator:
    _expect("to", to, *TYPES)
    return lambda x: x.to(TYPES[to])


def _concat(*, axis: int) -> Operator:
    return _together(lambda *parts: torch.cat(parts, axis))


def _conv(
    *,
    group: int = 1,
    strides: Sequence[int] = (1, 1),
    dilations: Sequence[int] = (1, 1),
    pads: Sequence[int] = (0, 0, 0, 0),
    kernel_shape: Sequence[int] = (),
    auto_pad: bytes = b"NOTSET",
) -> Operator:
    _expect("auto_pad", auto_pad, b"NOTSET")
    begin, end = list(pads[:2]), list(pads[2:])
    before = [] if begin == end else [begin[1], end[1], begin[0], end[0]]

    def run(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        padded = functional.pad(x, before) if before else x
        padding = 0 if before else begin
        return functional.conv2d(padded, weight, bias, strides, padding, dilations, group)

    return run


def _gather(*, axis: int = 0) -> Operator:
    def run(x: Tensor, index: Tensor) -> Tensor:
        if not index.ndim and index.device.type == "cpu":
            return x.select(axis, int(index))
        at = axis % x.ndim
        flat = index.to(x.device).flatten() % x.shape[at]
        return x.index_select(at, flat).reshape(*x.shape[:at], *index.shape, *x.shape[at + 1 :])

    return run


def _gather_nd(*, batch_dims: int = 0) -> Operator:
    _expect("batch_dims", batch_dims, 0)
    return lambda x, index: x[index.unbind(-1)]


def _hard_sigmoid(*, alpha: float = 0.2, beta: float = 0.5) -> Operator:
    return lambda x: (alpha * x + beta).clamp(0, 1)


def _max_pool(
    *,
    kernel_shape: Sequence[int],
    strides: Sequence[int] = (1, 1),
    dilations: Sequence[int] = (1, 1),
    pads: Sequence[int] = (0, 0, 0, 0),
    ceil_mode: int = 0,
    storage_order: int = 0,
    auto_pad: bytes = b"NOTSET",
) -> Operator:
    _expect("auto_pad", auto_pad, b"NOTSET")
    _expect("ceil_mode", ceil_mode, 0)
    padding = list(pads[:2])
    _expect("pads", list(pads[2:]), padding)
    return partial(
        functional.max_pool2d,
        kernel_size=list(kernel_shape),
        stride=list(strides),
        padding=padding,
        dilation=list(dilations),
    )


def _reduced(function: Callable[..., Tensor]) -> Callable[..., Operator]:
    def make(*, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Operator:
        def run(x: Tensor, axes: Tensor) -> Tensor:
            for axis in sorted((axis % x.ndim for axis in _ints(axes)), reverse=True):
                x = function(x, axis, keepdim=bool(keepdims))
            return x

        return run

    return make


def _reshape(*, allowzero: int = 0) -> Operator:
    def run(x: Tensor, shape: Tensor) -> Tensor:
        sizes = _ints(shape)
        if not allowzero:
            sizes = [size or x.shape[i] for i, size in enumerate(sizes)]
        return x.reshape(sizes)

    return run


def _resize(
    *,
    mode: bytes = b"nearest",
    coordinate_transformation_mode: bytes = b"half_pixel",
    nearest_mode: bytes = b"round_prefer_floor",
    antialias: int = 0,
    exclude_outside: int = 0,
    keep_aspect_ratio_policy: bytes = b"stretch",
    cubic_coeff_a: float = -0.75,
    extrapolation_value: float = 0.0,
) -> Operator:
    known: dict[tuple[bytes, ...], dict[str, Any]] = {
        (b"nearest", b"asymmetric", b"floor"): {"mode": "nearest"},
        (b"linear", b"align_corners"): {"mode": "bilinear", "align_corners": True},
        (b"linear", b"half_pixel"): {"mode": "bilinear", "align_corners": False},
    }
    how: tuple[bytes, ...] = mode, coordinate_transformation_mode
    how = (*how, nearest_mode) if mode == b"nearest" else how
    _expect("mode", how, *known)
    _expect("antialias", antialias, 0)
    _expect("keep_aspect_ratio_policy", keep_aspect_ratio_policy, b"stretch")

    def run(
        x: Tensor,
        _: Tensor | None = None,
        scales: Tensor | None = None,
        sizes: Tensor | None = None,
    ) -> Tensor:
        if sizes is not None:
            size = _ints(sizes)[2:]
        else:
            assert scales is not None
            size = [int(n * s) for n, s in zip(x.shape[2:], scales.tolist()[2:], strict=True)]
        return functional.interpolate(x, size, **known[how])

    return run


def _shape(*, start: int = 0, end: int | None = None) -> Operator:
    return lambda x: torch.tensor(x.shape[start:end])


def _split(*, num_outputs: int, axis: int = 0) -> Operator:
    return lambda x: x.split(-(-x.shape[axis] // num_outputs), axis)


def _squeeze(x: Tensor, axes: Tensor | None = None) -> Tensor:
    return x.squeeze() if axes is None else x.squeeze(_ints(axes))


def _transpose(*, perm: Sequence[int]) -> Operator:
    return lambda x: x.permute(*perm)


def _unsqueeze(x: Tensor, axes: Tensor) -> Tensor:
    wanted = _ints(axes)
    rank = x.ndim + len(wanted)
    for axis in sorted(axis % rank for axis in wanted):
        x = x.unsqueeze(axis)
    return x


PLAIN: Mapping[str, Callable[..., Tensor]] = {
    "Abs": torch.abs,
    "Add": torch.add,
    "Floor": torch.floor,
    "GreaterOrEqual": torch.ge,
    "Less": torch.lt,
    "MatMul": torch.matmul,
    "Max": torch.maximum,
    "Min": torch.minimum,
    "Mul": torch.mul,
    "Or": torch.logical_or,
    "Range": torch.arange,
    "Relu": torch.relu,
    "Sigmoid": torch.sigmoid,
    "Sub": torch.sub,
    "Where": torch.where,
}
"""Operators without attributes."""

MADE: Mapping[str, Callable[..., Operator]] = {
    "Cast": _cast,
    "Concat": _concat,
    "Conv": _conv,
    "Gather": _gather,
    "GatherND": _gather_nd,
    "HardSigmoid": _hard_sigmoid,
    "MaxPool": _max_pool,
    "ReduceMean": _reduced(torch.mean),
    "ReduceProd": _reduced(torch.prod),
    "ReduceSum": _reduced(torch.sum),
    "Reshape": _reshape,
    "Resize": _resize,
    "Shape": _shape,
    "Split": _split,
    "Squeeze": lambda: _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": lambda: _unsqueeze,
}
"""Operators that are made of a node's attributes."""
