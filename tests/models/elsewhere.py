"""Small networks as others export them: no weights of ours, no words of ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper

SIZE = (48, 64)
FLOAT = onnx.TensorProto.FLOAT


def heatmap_network(
    path: Path,
    *,
    joints: int = 17,
    batch: str | int = "n",
    features: int = 0,
    height: int | str = SIZE[1],
    kind: int = FLOAT,
) -> Path:
    """(n, 3, 64, 48) to `maps` (n, K, 16, 12), with `features` beside them if told."""
    nodes = [
        onnx.helper.make_node(
            "Conv", ["image", "w"], ["raw"], strides=[4, 4], kernel_shape=[4, 4], name="conv"
        ),
        onnx.helper.make_node("Sigmoid", ["raw"], ["maps"]),
    ]
    weights = {"w": _random(joints, 3, 4, 4) * 0.3}
    outputs: dict[str, Sequence[str | int]] = {"maps": (batch, joints, "h", "w")}
    if features:
        nodes.append(
            onnx.helper.make_node(
                "Conv", ["image", "f"], ["features"], strides=[2, 2], kernel_shape=[2, 2]
            )
        )
        weights["f"] = _random(features, 3, 2, 2)
        outputs["features"] = (batch, features, "fh", "fw")
    return save(path, nodes, weights, {"image": (batch, 3, height, SIZE[0])}, outputs, kind=kind)


def simcc_network(
    path: Path,
    *,
    joints: int = 17,
    batch: str | int = "batch",
    split: int = 2,
    names: tuple[str, str] = ("simcc_x", "simcc_y"),
    sealed: bool = False,
) -> Path:
    """(n, 3, 64, 48) to logits along x and y; `sealed` folds the one crop into the joints' axis."""
    cells = (SIZE[0] // 8) * (SIZE[1] // 8)
    first = [joints, cells] if sealed else [1 if batch == 1 else 0, joints, cells]
    nodes = [
        onnx.helper.make_node("Conv", ["input", "w"], ["c"], strides=[8, 8], kernel_shape=[8, 8]),
        onnx.helper.make_node("Reshape", ["c", "flat"], ["tokens"]),
    ]
    weights: dict[str, Any] = {
        "w": _random(joints, 3, 8, 8) * 0.1, "flat": np.array(first, np.int64),
    }  # fmt: skip
    for name, length in zip(names, SIZE, strict=True):
        bins = split * length
        weights[f"{name}_w"] = _smooth(_random(cells, bins)) * 0.04
        product = f"{name}_p" if sealed else name
        nodes.append(onnx.helper.make_node("MatMul", ["tokens", f"{name}_w"], [product]))
        if sealed:
            weights[f"{name}_s"] = np.array([1, joints, bins], np.int64)
            nodes.append(onnx.helper.make_node("Reshape", [product, f"{name}_s"], [name]))
    # mmdeploy's exports leave most lengths of their outputs without a number.
    outputs = {name: (batch, f"MatMul{name}_dim_1", f"{name}_dim_2") for name in names}
    return save(path, nodes, weights, {"input": (batch, 3, SIZE[1], SIZE[0])}, outputs)


def save(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    weights: dict[str, Any],
    inputs: Mapping[str, Sequence[str | int]],
    outputs: Mapping[str, Sequence[str | int]],
    *,
    kind: int = FLOAT,
) -> Path:
    """Write a graph, in the opset that mmdeploy exports."""
    graph = onnx.helper.make_graph(
        nodes,
        "elsewhere",
        [onnx.helper.make_tensor_value_info(name, kind, dims) for name, dims in inputs.items()],
        [onnx.helper.make_tensor_value_info(name, FLOAT, dims) for name, dims in outputs.items()],
        [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 11)], ir_version=6
    )
    onnx.save(model, path)
    return path


def _smooth(rows: np.ndarray) -> np.ndarray:
    """Bumps rather than noise, as trained networks answer."""
    bump = np.exp(-(np.linspace(-3, 3, 25) ** 2) / 2).astype(np.float32)
    return np.stack([np.convolve(row, bump, "same") for row in rows])


def _random(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)
