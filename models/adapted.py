"""The graphs that a bundle makes of a network from elsewhere.

The whole network becomes the encoder and its output the features: of a heatmap network its
(K, rows, columns), of a SimCC one both axes side by side, (K, 1, Nx + Ny). The head hands back what
it is given. So nothing of the graph has to be understood, what is kept of a photo is as small as
the answer, and flip, GET /heatmap and the engines find what they find in every other bundle. Pixels
come in as bytes; normalising them becomes part of the graph.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
import onnx.compose
import onnx.numpy_helper
import onnx.parser

from models.bundle import BundleError
from models.engines.onnx import open_session
from models.foreign import ForeignNetwork
from models.pixels import Pixels

ENCODER, HEAD = "encoder.onnx", "head.onnx"

TOLERANCE = 1e-4
"""Of what the graphs answer against the network, relative to the largest value."""


def write_graphs(network: ForeignNetwork, folder: Path, pixels: Pixels) -> bool:
    """Write encoder and head, and hold them to what the network itself answers.

    A network of one crop a batch is opened to any number where the graph allows it: where batches
    are answered as its crops are one by one.

    Returns:
        Whether they take batches of any size.

    Raises:
        BundleError: they do not answer alike.
    """
    onnx.save(_head(network), folder / HEAD)
    tries = [(True, network.model if network.open_batch else _opened(network.model))]
    if not network.open_batch:
        tries.append((False, network.model))
    for is_open, model in tries:
        encoder = _encoder(network, model, pixels, batch="batch" if is_open else "1")
        onnx.save(encoder, folder / ENCODER)
        if _alike(network, folder, pixels, crops=3 if is_open else 1):
            return is_open
    raise BundleError(
        f"{network.file.name}: with its normalisation inside, the graph does not answer as before"
    )


def _encoder(
    network: ForeignNetwork, model: onnx.ModelProto, pixels: Pixels, *, batch: str
) -> onnx.ModelProto:
    """A graph of the network between bytes and features, its own names behind a prefix."""
    opset = next(each.version for each in model.opset_import if each.domain in ("", "ai.onnx"))
    header = f'<ir_version: {model.ir_version}, opset_import: ["" : {opset}]>'
    width, height = network.size
    order = "0, 1, 2" if pixels.channels == "RGB" else "2, 1, 0"
    before = f"""before (uint8[{batch}, {height}, {width}, 3] crops)
        => (float[{batch}, 3, {height}, {width}] normalised)
        <float[1, 3, 1, 1] mean = {{{_listed(pixels.mean)}}},
         float[1, 3, 1, 1] factor = {{{_listed(1 / std for std in pixels.std)}}},
         int64[3] order = {{{order}}}> {{
            ordered = Gather <axis = 3> (crops, order)
            planes = Transpose <perm = [0, 3, 1, 2]> (ordered)
            values = Cast <to = 1> (planes)
            centred = Sub (values, mean)
            normalised = Mul (centred, factor)
        }}"""
    names = [f"answer{number}" for number in range(len(network.outputs))]
    taken = ", ".join(
        f"float[{batch}, {_listed(shape)}] {name}"
        for name, shape in zip(names, network.shapes, strict=True)
    )
    features = _listed(network.feature_shape)
    joined = f"joined = Concat <axis = 2> ({', '.join(names)})" if len(names) > 1 else ""
    after = f"""after ({taken}) => (float[{batch}, {features}] features)
        <int64[4] shape = {{0, {features}}}> {{
            {joined}
            features = Reshape ({"joined" if joined else names[0]}, shape)
        }}"""
    own = [f"network/{name}" for name in network.outputs]
    fed = onnx.compose.merge_models(
        onnx.parser.parse_model(header + before),
        onnx.compose.add_prefix(model, "network/"),
        io_map=[("normalised", f"network/{network.input}")],
        outputs=own,
    )
    return onnx.compose.merge_models(
        fed,
        onnx.parser.parse_model(header + after),
        io_map=list(zip(own, names, strict=True)),
    )


def _head(network: ForeignNetwork) -> onnx.ModelProto:
    features = f"float[batch, {_listed(network.feature_shape)}]"
    if network.kind == "heatmap":
        text = (
            f"heatmap ({features} features) => ({features} maps) {{ maps = Identity (features) }}"
        )
    else:
        x, y = (f"float[batch, {_listed(shape)}]" for shape in network.shapes)
        lengths = _listed(shape[1] for shape in network.shapes)
        text = f"""simcc ({features} features) => ({x} x, {y} y)
            <int64[1] axis = {{2}}, int64[2] lengths = {{{lengths}}}> {{
                joined = Squeeze (features, axis)
                x, y = Split <axis = 2> (joined, lengths)
            }}"""
    return onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {text}')


def _listed(numbers: Iterable[float]) -> str:
    return ", ".join(map(str, numbers))


def _alike(network: ForeignNetwork, folder: Path, pixels: Pixels, *, crops: int) -> bool:
    """Whether the two graphs answer on noise what the network does, crop by crop."""
    width, height = network.size
    noise = np.random.default_rng(1).integers(0, 256, (crops, height, width, 3), np.uint8)
    alone = network(pixels(noise))
    try:
        encoder, head = open_session(folder / ENCODER), open_session(folder / HEAD)
        (features,) = encoder.run(None, {"crops": noise})
        answers = head.run(None, {"features": features})
    except Exception:  # ONNX Runtime's own types, without a common base
        return False
    return all(
        answer.shape == expected.shape
        and bool(np.abs(answer - expected).max() <= TOLERANCE * np.abs(expected).max())
        for answer, expected in zip(answers, alone, strict=True)
    )


def _opened(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with an open batch, as far as a fixed one is written into it in plain sight."""
    opened = onnx.ModelProto()
    opened.CopyFrom(model)
    graph = opened.graph
    del graph.value_info[:]
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.shape.dim:
            value.type.tensor_type.shape.dim[0].dim_param = "batch"
    constants = {weight.name: weight for weight in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = node.attribute[0].t
    for node in graph.node:
        shape = constants.get(node.input[1]) if node.op_type == "Reshape" else None
        if shape is None or any(attribute.name == "allowzero" for attribute in node.attribute):
            continue
        lengths = onnx.numpy_helper.to_array(shape)
        if len(lengths) > 1 and lengths[0] == 1:
            copied = np.concatenate([[0], lengths[1:]]).astype(np.int64)  # 0: as it comes in
            weight = onnx.numpy_helper.from_array(copied, f"{node.output[0]}/opened")
            graph.initializer.append(weight)
            node.input[1] = weight.name
    return opened
