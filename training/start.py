"""What a network is before its first step, and what a checkpoint of it holds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import numpy_helper
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from models.bundle import load_bundle
from models.geometry import Size
from models.networks.batch_norm import fold_batch_norm
from models.networks.encoders import TimmEncoder
from models.networks.folded import FoldedTrunk
from models.networks.heads import SimccHead
from models.networks.pose import PoseNetwork
from models.networks.tinypose import TinyPoseTrunk, load_pp_tinypose
from training.config import Experiment
from training.errors import DataError
from training.progress import console

Weights = dict[str, Tensor]


def shaped_network(experiment: Experiment) -> PoseNetwork:
    """A network whose tensors are those of the experiment's checkpoints."""
    network = PoseNetwork(experiment.shape)
    if experiment.fold:
        fold_batch_norm(network.encoder)
    return network


def read_checkpoint(path: Path, experiment: Experiment) -> dict[str, Any]:
    """A checkpoint of an experiment's run, wherever it was trained.

    Raises:
        DataError: its network is of another shape, which tensors of the same sizes would not show.
    """
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    own = json.loads(json.dumps(asdict(experiment.shape)))
    # Older ones have no shape, or one without the fields that came later.
    for field, value in json.loads(state.get("shape", "{}")).items():
        if own.get(field) != value:
            raise DataError(
                f"{path} is of a network with {field} = {value}, "
                f"the experiment's has {field} = {own.get(field)}"
            )
    return state


def averaged_network(experiment: Experiment, checkpoints: Sequence[Path]) -> PoseNetwork:
    """The averaged weights of a checkpoint; of several of one run, their mean (a model soup).

    Raises:
        DataError: as `read_checkpoint` does.
    """
    network = shaped_network(experiment)
    states = [read_checkpoint(path, experiment)["ema"] for path in checkpoints]
    mean = {
        name: torch.stack([state[name].double() for state in states]).mean(0).to(tensor.dtype)
        for name, tensor in states[0].items()
    }
    network.load_state_dict(mean)
    return network.eval()


def start_network(experiment: Experiment) -> PoseNetwork:
    """The network before its first step.

    Raises:
        BundleError: the start is a folder, and not of a bundle.
        DataError: the start is of another encoder.
    """
    start = experiment.start
    if start is not None and (start.is_dir() or start.suffix == ".pt"):
        network = shaped_network(experiment)
        if start.is_dir():
            given = _of_bundle(network, start)
        else:
            given = torch.load(start, map_location="cpu", weights_only=True)["ema"]
        given = _of_this_size(network, given)
        _put(network, given, start, fresh_heads=experiment.fresh_heads)
        return network
    network = PoseNetwork(experiment.shape)
    if start is not None and isinstance(network.encoder, TinyPoseTrunk):
        own_head = load_pp_tinypose(network.encoder, start)
        if "heatmap" in experiment.shape.heads and not experiment.fresh_heads:
            network.heatmap.get_submodule("joints").load_state_dict(own_head)
    elif start is not None and isinstance(network.encoder, TimmEncoder):
        network.encoder.load_classifier(load_file(start))
    elif start is not None:
        raise DataError(f"{experiment.shape.encoder} starts from a checkpoint or a bundle")
    if experiment.fold:
        fold_batch_norm(network.encoder)
    return network


def _put(network: PoseNetwork, given: Weights, start: Path, *, fresh_heads: bool) -> None:
    """Put in what fits; the warm-up trains what is new."""
    own = network.state_dict()
    fit = {
        name: tensor
        for name, tensor in given.items()
        if name in own and own[name].shape == tensor.shape
        if name.startswith("encoder.") or not fresh_heads
    }
    anew = [name for name in own if name not in fit]
    lacking = [name for name in anew if name.startswith("encoder.")]
    if lacking:
        raise DataError(f"{start} is of another encoder: it has no fitting {lacking[0]}")
    if anew:
        parts = dict.fromkeys(name.rpartition(".")[0] for name in anew)
        console.print(f"not taken from {start}, so begun anew: {', '.join(parts)}")
    network.load_state_dict(own | fit)


def _of_bundle(network: PoseNetwork, folder: Path) -> Weights:
    """The trunk, the heatmap head and the SimCC head of a bundle, for crops of any size.

    The graphs of `tinypose` and `tinypose-dense` are those of the dense trunk. NerPE's head begins
    anew: its batch norms are gone from its graph.

    Raises:
        DataError: the network is not of that trunk, or the bundle was not written here.
    """
    if not isinstance(network.encoder, FoldedTrunk):
        raise DataError("a bundle starts only the encoder `tinypose-dense`, which is served")
    bundle = load_bundle(folder)
    manifest = bundle.pose
    own = network.state_dict()
    found = _initializers(bundle.file(manifest.encoder))
    trunk = _renamed(found, "owner.encoder.", "encoder.")
    if not trunk:
        # Normalisation's scale is in the stem's weights there.
        trunk = _renamed(found, "owner.trunk.", "encoder.")
        for side in ("left", "right"):
            if (name := f"encoder.stem.{side}.0.weight") in trunk:
                trunk[name] = trunk[name] / network.normalise.scale[:, None, None]
    # What units let pass is one and the same there, so that a graph need not have it again.
    given = {name: own[name] for name in own if name.endswith(".keep.weight")} | trunk
    heads = manifest.heads
    if heads.heatmap is not None:
        maps = _initializers(bundle.file(heads.heatmap.graph))
        given |= _renamed(maps, "function.", "heatmap.")
    if heads.simcc is not None:
        given |= _simcc(bundle.file(heads.simcc.graph))
    return given


def _simcc(path: Path) -> Weights:
    """The SimCC head of a bundle's graph."""
    found = _initializers(path)
    given = _renamed(found, "function.", "simcc.")
    # A linear layer is a product with a matrix that has lost its name, and a sum with its bias.
    nodes = onnx.load(path).graph.node
    products = {node.output[0]: node.input[1] for node in nodes if node.op_type == "MatMul"}
    for node in nodes:
        if node.op_type == "Add" and set(node.input) & set(products):
            product, bias = sorted(node.input, key=lambda name: name not in products)
            name = bias.removeprefix("function.").removesuffix(".bias")
            given[f"simcc.{name}.weight"] = found[products[product]].T
    return given


def _of_this_size(network: PoseNetwork, given: Weights) -> Weights:
    """Weights with SimCC's linear layers resampled to the network's own grid and bins."""
    head, names = getattr(network, "simcc", None), ("simcc.x.weight", "simcc.y.weight")
    if not isinstance(head, SimccHead) or not given.keys() >= set(names):
        return given
    shape, stride = network.shape, network.encoder.stride
    columns, rows = (round(len(given[name]) / shape.simcc_split) // stride for name in names)
    if head.deconvs or any(given[name].shape[1] != columns * rows for name in names):
        return given  # made otherwise: what does not fit begins anew
    grids = (columns, rows), shape.grid(stride)
    fitted = dict(given)
    for name, bins in zip(names, shape.simcc.bins, strict=True):
        bias = name.replace("weight", "bias")
        fitted[name] = _resampled(given[name], grids, bins)
        fitted[bias] = functional.interpolate(
            given[bias][None, None], bins, mode="linear", align_corners=True
        )[0, 0]
    return fitted


def _resampled(weight: Tensor, grids: tuple[Size, Size], bins: int) -> Tensor:
    """(N, rows * columns) weights as those of another number of bins, on another grid.

    A weight is a smooth function of where its bin and its cell lie in the crop.
    """
    (columns, rows), (own_columns, own_rows) = grids
    block = weight.reshape(1, 1, -1, rows, columns)
    size = (bins, own_rows, own_columns)
    return functional.interpolate(block, size, mode="trilinear", align_corners=True)[0, 0].flatten(
        1
    )


def _renamed(weights: Weights, old: str, new: str) -> Weights:
    return {
        new + name.removeprefix(old): tensor
        for name, tensor in weights.items()
        if name.startswith(old)
    }


def _initializers(path: Path) -> Weights:
    return {
        tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy())
        for tensor in onnx.load(path).graph.initializer
    }
