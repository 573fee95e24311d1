"""A trained network becomes a bundle: ONNX graphs that answer as torch does, or nothing."""

from __future__ import annotations

import copy
import shutil
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from torch import Tensor, nn

from models.bundle import file_digest
from models.keypoints import COCO17
from models.manifest import (
    CropSpec,
    Heads,
    HeatmapSpec,
    InputSpec,
    NerpeSpec,
    PoseManifest,
    Provenance,
    SimccSpec,
)
from models.networks.batch_norm import fold_batch_norm
from models.networks.folded import FoldedEncoder, FoldedTrunk
from models.networks.pose import PoseNetwork
from models.networks.tinypose import TinyPoseTrunk
from training.config import Serving, SimccLoss
from training.describable import indescribable, simcc_beta
from training.errors import ExportError
from training.graphs import export_graph
from training.losses import OURS

TOLERANCE = 1e-4
"""Of what a graph answers against the trained network, relative to the largest value."""


def export_bundle(
    network: PoseNetwork,
    folder: Path,
    *,
    name: str,
    recipe: str,
    serving: Serving,
    accuracy: dict[str, float],
    simcc_loss: SimccLoss = OURS,
) -> PoseManifest:
    """Write a pose bundle.

    Args:
        network: trained.
        folder: of the bundle; its graphs and manifest are replaced, what else lies there is kept.
        name: of the bundle.
        recipe: the experiment file that made it.
        serving: what the bundle says of itself, and the measured choices.
        accuracy: measured.
        simcc_loss: that SimCC's head has learnt by.

    Raises:
        ExportError: a graph answers otherwise than torch, or the network is one that no manifest
            can describe; nothing is written then.
    """
    network = copy.deepcopy(network).cpu().eval()
    fold_batch_norm(network)
    network.requires_grad_(False)
    shape = network.shape
    if reason := indescribable(shape, simcc_loss):
        raise ExportError(reason)
    if serving.default_head not in shape.heads:
        raise ExportError(
            f"the default head {serving.default_head} is not one of {', '.join(shape.heads)}"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".export-") as temporary:
        draft = Path(temporary)
        features = _export_graphs(network, draft)
        files = {path.name: file_digest(path) for path in sorted(draft.glob("*.onnx"))}
        manifest = PoseManifest(
            schema_version=1,
            name=name,
            kind="pose",
            keypoint_set=COCO17.name,
            input=InputSpec(
                width=shape.size[0], height=shape.size[1], largest_batch=serving.largest_batch
            ),
            crop=CropSpec(matrix=shape.matrix, padding=1.25),
            encoder="encoder.onnx",
            feature_shape=(features[0], features[1], features[2]),
            heads=_head_specs(network, serving, simcc_beta(simcc_loss)),
            default_head=serving.default_head,
            files=files,
            licence="Apache-2.0",
            provenance=Provenance(
                data=serving.data,
                start=serving.start,
                recipe=recipe,
                date=datetime.now(UTC).date(),
            ),
            accuracy=accuracy,
        )
        (draft / "manifest.json").write_text(manifest.model_dump_json(indent=2) + "\n")
        folder.mkdir(exist_ok=True)
        for old in folder.glob("*.onnx"):
            if old.name not in files:
                old.unlink()
        # The manifest comes last: until then the old one refuses the new files by their digests.
        for path in sorted(draft.iterdir(), key=lambda path: path.name == "manifest.json"):
            shutil.move(path, folder / path.name)
    return manifest


def _head_specs(network: PoseNetwork, serving: Serving, beta: float | None) -> Heads:
    shape, codec = network.shape, network.heatmap_codec
    simcc, heatmap, nerpe = None, None, None
    if "simcc" in shape.heads:
        simcc = SimccSpec(
            graph="simcc.onnx",
            split=shape.simcc_split,
            sigma=shape.simcc_sigma,
            beta=beta,
            window=serving.window,
            decode=serving.simcc,
        )
    if "heatmap" in shape.heads:
        heatmap = HeatmapSpec(
            graph="heatmap.onnx",
            width=codec.grid[0],
            height=codec.grid[1],
            grid=codec.mapping,
            sigma=codec.sigma,
            blur=serving.blur,
            decode=serving.heatmap,
        )
    if "nerpe" in shape.heads:
        nerpe = NerpeSpec(
            cells="nerpe-cells.onnx",
            graph="nerpe-field.onnx",
            width=shape.cells[0],
            height=shape.cells[1],
            sigma=shape.nerpe_sigma,
            decode=serving.nerpe,
            resolution=serving.resolution,
        )
    return Heads(simcc=simcc, heatmap=heatmap, nerpe=nerpe)


def _export_graphs(network: PoseNetwork, folder: Path) -> tuple[int, ...]:
    """Write the encoder's graph and its heads'; returns the features' shape without the batch."""
    random = torch.Generator().manual_seed(0)
    width, height = network.shape.size
    crops = torch.randint(0, 256, (3, height, width, 3), generator=random, dtype=torch.uint8)
    features = network.encode(crops)
    batch = torch.export.Dim("batch", min=1, max=4096)
    queries = torch.export.Dim("queries", min=1, max=1 << 22)
    one: tuple[dict[int, object], ...] = ({0: batch},)

    def graph(
        name: str,
        function: Callable[..., Tensor],
        inputs: dict[str, Tensor],
        outputs: Sequence[str],
        shapes: tuple[dict[int, object], ...] = one,
        served: nn.Module | None = None,
    ) -> None:
        """A function of the network, or of what is served in its place and answers the same."""
        path = folder / f"{name}.onnx"
        if served is None:
            export_graph(network, function, path, inputs, outputs, shapes)
        else:
            export_graph(served, served.forward, path, inputs, outputs, shapes)
        _check_parity(function, path, inputs)

    # What runs fastest is another network that answers the same, where there is one.
    served = None
    if isinstance(network.encoder, TinyPoseTrunk | FoldedTrunk):
        served = FoldedEncoder(network.normalise, network.encoder).eval()
    graph("encoder", network.encode, {"crops": crops}, ["features"], served=served)
    if "simcc" in network.shape.heads:
        graph("simcc", network.simcc, {"features": features}, ["x", "y"])
    if "heatmap" in network.shape.heads:
        graph("heatmap", network.heatmap, {"features": features}, ["maps"])
    if "nerpe" not in network.shape.heads:
        return tuple(features.shape[1:])
    cells = network.nerpe.cells(features)
    points = torch.rand((3, 40, 2), generator=random) * 2 - 1
    # The centres of the first and of the last cell, where the ensemble's weights are at an edge.
    columns, rows = network.nerpe.columns, network.nerpe.rows
    last = torch.tensor([columns - 1, rows - 1]) / max(columns, rows)
    points[:, 0], points[:, 1] = -last, last
    graph("nerpe-cells", network.nerpe.cells, {"features": features}, ["cells"])
    graph(
        "nerpe-field",
        network.nerpe.field,
        {"cells": cells, "points": points},
        ["values"],
        ({0: batch}, {0: batch, 1: queries}),
    )
    return tuple(features.shape[1:])


def _check_parity(
    function: Callable[..., Tensor | tuple[Tensor, ...]], path: Path, inputs: dict[str, Tensor]
) -> None:
    """On the whole batch and on one of it.

    Raises:
        ExportError: they differ.
    """
    session = ort.InferenceSession(path)
    for rows in (slice(None), slice(1)):
        part = [value[rows] for value in inputs.values()]
        with torch.no_grad():
            answer = function(*part)
        expected = answer if isinstance(answer, tuple) else (answer,)
        fed = {name: value.numpy() for name, value in zip(inputs, part, strict=True)}
        for found, wanted in zip(session.run(None, fed), expected, strict=True):
            reference = wanted.numpy()
            error = float(np.abs(found - reference).max() / np.abs(reference).max())
            if not error <= TOLERANCE:
                raise ExportError(f"{path.name} differs from torch by {error:.2g}; not written")
