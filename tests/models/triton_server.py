"""A server of KServe's v2 protocol over gRPC, as Triton is one, that runs a model repository.

It reads what `export_repository` wrote as Triton does, takes the newest version, holds inputs to
the configuration, and answers with ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any, TypeAlias

import grpc
import numpy as np
import onnxruntime as ort
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

# Generated code without types.
Message: TypeAlias = Any
Context: TypeAlias = Any

DTYPES = {"UINT8": np.uint8, "FP32": np.float32}
DATATYPES = {model_config_pb2.TYPE_UINT8: "UINT8", model_config_pb2.TYPE_FP32: "FP32"}


@dataclass
class Stub(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """The service.

    Attributes:
        repository: as written by the exporter.
        asked: (model, rows) of each inference, in order.
        awake: cleared, an inference waits until it is set.
        broken: an inference fails with this.
    """

    repository: Path
    asked: list[tuple[str, int]] = field(default_factory=list)
    awake: Event = field(default_factory=Event)
    broken: str | None = None
    address: str = ""

    def __post_init__(self) -> None:
        self.awake.set()
        self.configs, self.sessions = {}, {}
        for path in self.repository.glob("*/config.pbtxt"):
            config = text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())
            assert config.name == path.parent.name
            newest = max(int(version.name) for version in path.parent.glob("[0-9]*"))
            self.configs[config.name] = config
            self.sessions[config.name] = ort.InferenceSession(
                path.parent / str(newest) / "model.onnx"
            )

    def _known(self, name: str, context: Context) -> Message:
        if name not in self.configs:
            context.abort(grpc.StatusCode.NOT_FOUND, f"unknown model: {name}")
        return self.configs[name]

    def ModelConfig(self, request: Message, context: Context) -> Message:  # noqa: N802
        return service_pb2.ModelConfigResponse(config=self._known(request.name, context))

    def ModelMetadata(self, request: Message, context: Context) -> Message:  # noqa: N802
        config = self._known(request.name, context)
        tensor = service_pb2.ModelMetadataResponse.TensorMetadata
        return service_pb2.ModelMetadataResponse(
            name=config.name,
            inputs=[
                tensor(name=node.name, datatype=DATATYPES[node.data_type], shape=[-1, *node.dims])
                for node in config.input
            ],
            outputs=[
                tensor(name=node.name, datatype=DATATYPES[node.data_type], shape=[-1, *node.dims])
                for node in config.output
            ],
        )

    def ModelInfer(self, request: Message, context: Context) -> Message:  # noqa: N802
        config = self._known(request.model_name, context)
        if self.broken:
            context.abort(grpc.StatusCode.INTERNAL, self.broken)
        self.awake.wait()
        feeds = {}
        for node, given, raw in zip(
            config.input, request.inputs, request.raw_input_contents, strict=True
        ):
            assert (given.name, given.datatype) == (node.name, DATATYPES[node.data_type])
            rows, *rest = given.shape
            fits = len(rest) == len(node.dims)
            fits &= all(size in (-1, own) for size, own in zip(node.dims, rest, strict=False))
            if not fits or rows > config.max_batch_size:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"shape {list(given.shape)}")
            feeds[node.name] = np.frombuffer(raw, DTYPES[given.datatype]).reshape(given.shape)
        self.asked.append((config.name, rows))
        names = [node.name for node in config.output]
        answers = self.sessions[config.name].run(names, feeds)
        response = service_pb2.ModelInferResponse(model_name=config.name, model_version="1")
        for name, answer in zip(names, answers, strict=True):
            response.outputs.add(name=name, datatype="FP32", shape=answer.shape)
            response.raw_output_contents.append(answer.tobytes())
        return response


@contextmanager
def serving(repository: Path) -> Iterator[Stub]:
    """Run it on a free port."""
    stub = Stub(repository)
    # As long as they come, like Triton; gRPC's own limit is 4 MB.
    unlimited = ("grpc.max_receive_message_length", -1)
    server = grpc.server(ThreadPoolExecutor(4), options=[unlimited])
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(stub, server)
    stub.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield stub
    finally:
        stub.awake.set()
        server.stop(None).wait()
