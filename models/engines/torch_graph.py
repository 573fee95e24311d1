"""An ONNX graph, run in torch operator by operator: the same weights, no second export."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import onnx
import onnx.helper
import onnx.numpy_helper
import torch
from torch import Tensor

from models.engines import EngineError
from models.engines.torch_operators import Operator, operator


class _Step(NamedTuple):
    """One node: what it reads, what it writes, and what nobody reads after it."""

    run: Operator
    inputs: Sequence[str]
    outputs: Sequence[str]
    done: Sequence[str]


class TorchGraph:
    """Tensors in, tensors out, all on one device.

    Integers that say lengths and axes stay on the host, so that no step waits for the device: a
    run is one stream of kernels, which a CUDA graph can hold.

    Attributes:
        inputs: their names, in the graph's order.
    """

    def __init__(self, path: Path, device: torch.device) -> None:
        """Read a file.

        Raises:
            EngineError: it is no graph, or one with an operator that is not known here.
        """
        try:
            graph = onnx.load(path).graph
        except Exception as error:  # onnx and protobuf raise types without a common base
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise EngineError(f"{path.name} cannot be loaded by torch: {reason}") from error
        # Lengths and axes, and the factors of a Resize, which are floats.
        counted = {
            name for node in graph.node if node.op_type == "Resize" for name in node.input[1:]
        }
        self._constants = {
            weight.name: _placed(weight, torch.device("cpu") if weight.name in counted else device)
            for weight in graph.initializer
        }
        self.inputs = [node.name for node in graph.input if node.name not in self._constants]
        self._outputs = [node.name for node in graph.output]
        self._steps = _steps(graph, keep={*self._outputs, *self._constants})

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """All outputs, in the graph's order."""
        values: dict[str, Tensor | None] = {"": None, **self._constants}
        values.update(zip(self.inputs, inputs, strict=True))
        for step in self._steps:
            answer = step.run(*(values[name] for name in step.inputs))
            answers = (answer,) if isinstance(answer, Tensor) else answer
            values.update(zip(step.outputs, answers, strict=True))
            for name in step.done:
                del values[name]
        outputs = (values[name] for name in self._outputs)
        return tuple(x for x in outputs if x is not None)


def _placed(weight: onnx.TensorProto, device: torch.device) -> Tensor:
    tensor = torch.from_numpy(onnx.numpy_helper.to_array(weight).copy())
    if not tensor.is_floating_point():
        return tensor
    # Tensor cores read four-dimensional weights with the channels last.
    order = (
        torch.channels_last
        if tensor.ndim == 4 and device.type != "cpu"
        else torch.contiguous_format
    )
    return tensor.to(device, memory_format=order)


def _steps(graph: onnx.GraphProto, keep: set[str]) -> list[_Step]:
    last: dict[str, int] = {}
    for number, node in enumerate(graph.node):
        last.update(dict.fromkeys([*node.input, *node.output], number))
    steps = []
    for number, node in enumerate(graph.node):
        attributes = {x.name: onnx.helper.get_attribute_value(x) for x in node.attribute}
        names = dict.fromkeys([*node.input, *node.output])
        done = [name for name in names if name and last[name] == number and name not in keep]
        run = operator(node.op_type, attributes)
        steps.append(_Step(run, list(node.input), list(node.output), done))
    return steps
