"""The trained network -> a bundle, or nothing if the graph does not do what the network does."""

from __future__ import annotations

import copy
import datetime
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from models.bundle import Bundle, file_digest, load_bundle
from models.files import replacing, write_whole
from models.manifest import DetectorManifest
from training.detector.config import Experiment
from training.detector.network import STRIDES, Conv, RtmdetNano
from training.errors import ExportError
from training.graphs import stripped

MEAN = (103.53, 116.28, 123.675)
STD = (57.375, 57.12, 58.395)
"""What the network expects, BGR on 0 to 255."""

_SHAPES = ((1, 320, 320), (3, 256, 384), (2, 448, 224))
"""(batch, height, width) that the exported graph is tried at."""
_TOLERANCE = 1e-3


class Served(nn.Module):
    """The network behind uint8 RGB pixels, channels last.

    Channel order and division by std are folded into the first convolution. Subtracting the mean
    is not: the convolution pads with zeros, which stand for the mean.
    """

    def __init__(self, network: RtmdetNano) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).eval()
        first = cast(Conv, self.network.trunk.stem[0]).conv
        with torch.no_grad():
            first.weight.copy_((first.weight / torch.tensor(STD).view(1, 3, 1, 1)).flip(1))
        self.mean: Tensor
        self.register_buffer("mean", torch.tensor(MEAN[::-1]).view(3, 1, 1))

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, H, W, 3) uint8 RGB, sides multiples of 32 -> per stride (B, h, w, 5)."""
        outputs: list[Tensor] = self.network(images.permute(0, 3, 1, 2).float() - self.mean)
        return outputs


def export_graph(network: RtmdetNano, path: Path) -> None:
    """Write the graph that is served: any batch, any sides that are multiples of 32.

    Raises:
        ExportError: its outputs differ from the network's.
    """
    served = Served(network).eval()
    batch, height, width = (torch.export.Dim(name, min=1, max=256) for name in ("n", "h", "w"))
    program = torch.onnx.export(
        served,
        (torch.zeros(2, 320, 256, 3, dtype=torch.uint8),),
        dynamo=True,
        dynamic_shapes=({0: batch, 1: 32 * height, 2: 32 * width},),
        input_names=["images"],
        output_names=[f"stride_{stride}" for stride in STRIDES],
        verbose=False,
    )
    if program is None:
        raise ExportError("torch wrote no graph")
    with replacing(path) as draft:
        onnx.save_model(stripped(program.model_proto), str(draft))
        _compare(draft, served)


def write_bundle(folder: Path, graph: Path, description: Mapping[str, Any]) -> Bundle:
    """Make a detector's bundle around a graph, and load it as a user would.

    Args:
        folder: of the bundle, named as it is; made if missing, other files in it stay.
        graph: copied into it.
        description: the manifest without name, kind, graph and digests.

    Raises:
        pydantic.ValidationError: the description does not fit.
    """
    manifest = DetectorManifest(
        schema_version=1,
        kind="detector",
        name=folder.name,
        graph=graph.name,
        files={graph.name: file_digest(graph)},
        **description,
    )
    folder.mkdir(parents=True, exist_ok=True)
    if graph.parent.resolve() != folder.resolve():
        shutil.copyfile(graph, folder / graph.name)
    write_whole(folder / "manifest.json", manifest.model_dump_json(indent=2) + "\n")
    return load_bundle(folder)


def describe(
    experiment: Experiment, *, threshold: float, accuracy: Mapping[str, float]
) -> dict[str, Any]:
    """What a manifest says of an experiment's result, but for its graph."""
    (width, height), *further = experiment.sizes
    return {
        "input": {"width": width, "height": height, "largest_batch": 16},
        "further_sizes": further,
        "decoder": "rtmdet",
        "score_threshold": threshold,
        "nms_threshold": experiment.nms_threshold,
        "licence": "Apache-2.0",
        "provenance": {
            "data": "COCO 2017 photos in which every person is boxed; crowds ignored",
            "start": "OpenMMLab rtmdet_nano_8xb32-100e_coco-obj365-person, Apache-2.0",
            "recipe": f"training/experiments/{experiment.name}.toml",
            "date": datetime.date.today(),
        },
        "accuracy": accuracy,
    }


def _compare(path: Path, served: Served) -> None:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    for batch, height, width in _SHAPES:
        images = rng.integers(0, 256, (batch, height, width, 3), dtype=np.uint8)
        with torch.no_grad():
            wanted = [level.numpy() for level in served(torch.from_numpy(images))]
        found = session.run(None, {"images": images})
        for stride, left, right in zip(STRIDES, wanted, found, strict=True):
            # Logits, and distances in strides: what the last convolutions emit.
            worst = float((np.abs(left - right) / [1, stride, stride, stride, stride]).max())
            if not worst <= _TOLERANCE:
                raise ExportError(
                    f"graph and network differ by {worst:.2g} at stride {stride}, "
                    f"input {width}x{height}, batch {batch}"
                )
