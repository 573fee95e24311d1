"""A pose bundle as a Triton model repository: a folder that `tritonserver` is started on."""

from __future__ import annotations

import shutil
from pathlib import Path

import onnxruntime as ort
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from models.bundle import Bundle, file_digest
from models.files import replacing, write_whole

WEIGHTS = "weights"
"""The parameter of a model's configuration that holds the bundle's digest."""

TYPES = {"tensor(uint8)": pb.TYPE_UINT8, "tensor(float)": pb.TYPE_FP32}


def model_name(bundle: Bundle, graph: Path) -> str:
    """What the server calls one of a bundle's graphs."""
    return f"{bundle.manifest.name}-{graph.stem}"


def export_repository(bundle: Bundle, folder: Path) -> list[str]:
    """Write or update a bundle's models; those of other bundles in the folder stay.

    New weights become a new version beside the old ones, and the server takes the newest. The
    graph comes before its configuration, so that a running server never reads half of it.

    Args:
        bundle: a verified pose bundle.
        folder: of the repository; made where it is not there.

    Returns:
        The names of its models.
    """
    names = []
    for file in sorted(bundle.pose.files):
        graph = bundle.file(file)
        name = model_name(bundle, graph)
        _add_version(graph, folder / name)
        config = text_format.MessageToString(_config(bundle, graph))
        write_whole(folder / name / "config.pbtxt", config)
        names.append(name)
    return names


def _add_version(graph: Path, model: Path) -> None:
    """Copy a graph to the next number, unless the newest one is the same."""
    versions = sorted(int(path.name) for path in model.glob("[0-9]*") if path.name.isdigit())
    newest = versions[-1] if versions else 0
    kept = model / str(newest) / "model.onnx"
    if kept.is_file() and file_digest(kept) == file_digest(graph):
        return
    path = model / str(newest + 1) / "model.onnx"
    path.parent.mkdir(parents=True)
    with replacing(path) as draft:
        shutil.copyfile(graph, draft)


def _config(bundle: Bundle, graph: Path) -> pb.ModelConfig:
    """Eager batching over requests, as the service itself does it: no delay while idle."""
    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    largest = bundle.pose.input.largest_batch
    config = pb.ModelConfig(
        name=model_name(bundle, graph),
        backend="onnxruntime",
        max_batch_size=largest,
        dynamic_batching=pb.ModelDynamicBatching(),
        version_policy=pb.ModelVersionPolicy(latest=pb.ModelVersionPolicy.Latest(num_versions=1)),
        parameters={WEIGHTS: pb.ModelParameter(string_value=bundle.digest)},
    )
    for nodes, add in (
        (session.get_inputs(), config.input.add),
        (session.get_outputs(), config.output.add),
    ):
        for node in nodes:
            # Without the batch; an axis of any length has a name in ONNX and -1 here.
            dims = [size if isinstance(size, int) else -1 for size in node.shape[1:]]
            add(name=node.name, data_type=TYPES[node.type], dims=dims)
    return config
