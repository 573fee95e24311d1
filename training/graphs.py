"""A network's functions as ONNX graphs."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn


class _Function(nn.Module):
    """A function of a module as a module of its own."""

    def __init__(self, owner: nn.Module, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.owner = owner
        self.function = function

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        return self.function(*inputs)


def export_graph(
    owner: nn.Module,
    function: Callable[..., Tensor],
    path: Path,
    inputs: dict[str, Tensor],
    outputs: Sequence[str],
    shapes: tuple[dict[int, object], ...],
) -> None:
    """Write one graph.

    Args:
        owner: of the weights.
        function: of the owner; called with all inputs.
        path: of the ONNX file.
        inputs: an example of each, by name.
        outputs: their names.
        shapes: of each input which axes are of any length.
    """
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter's notes about itself
        program = torch.onnx.export(
            _Function(owner, function),
            tuple(inputs.values()),
            dynamo=True,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes={"inputs": shapes},
            opset_version=18,
            verbose=False,
        )
    assert program is not None
    onnx.save(stripped(program.model_proto), path)


def stripped(model: onnx.ModelProto) -> onnx.ModelProto:
    """Without the exporter's notes on where each node comes from.

    They hold paths, and may be larger than the weights.
    """
    graph = model.graph
    tensors = (*graph.value_info, *graph.input, *graph.output, *graph.initializer)
    for part in (model, graph, *graph.node, *tensors):
        del part.metadata_props[:]
        part.doc_string = ""
    return model
