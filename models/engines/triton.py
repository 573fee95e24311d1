"""A pose bundle on a Triton server: for those who outgrow one machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import InferenceServerClient, InferInput, service_pb2
from tritonclient.utils import InferenceServerException

from models.bundle import Bundle
from models.engines import EngineAway, EngineError, Floats, Remote
from models.engines.graphs import GraphEngine, Run
from models.engines.triton_repository import WEIGHTS, model_name

DATATYPES = {"uint8": "UINT8", "float32": "FP32"}


class TritonEngine(GraphEngine):
    """The graphs of a pose bundle as models of a server, which batches over all its callers."""

    def __init__(self, bundle: Bundle, server: Remote) -> None:
        """Find the bundle's models, with the bundle's own weights.

        Args:
            bundle: a verified pose bundle; only its manifest is used here.
            server: speaks gRPC.

        Raises:
            EngineError: the server is away, or does not serve these weights.
        """
        client = InferenceServerClient(server.address)
        kinds: set[str] = set()

        def open_graph(path: Path) -> Run:
            name = model_name(bundle, path)
            with _problems(name, server):
                config = client.get_model_config(name, client_timeout=server.timeout_s).config
                metadata = client.get_model_metadata(name, client_timeout=server.timeout_s)
            found = config.parameters[WEIGHTS].string_value
            if found != bundle.digest:
                raise EngineError(
                    f"Triton at {server.address} serves {name} of {found or 'unknown weights'}, "
                    f"not of {bundle.digest}: run `subpose models export-triton` for it again"
                )
            kinds.update(type(group).Kind.Name(group.kind) for group in config.instance_group)
            return _runner(client, server, metadata)

        super().__init__(bundle, open_graph, name="triton", device="remote")
        if len(kinds) == 1:
            self.device = kinds.pop().replace("KIND_", "remote-").lower()


@contextmanager
def _problems(model: str, server: Remote) -> Iterator[None]:
    """What keeps the server from answering, said in one line.

    Raises:
        EngineAway: it cannot be reached, or not in time.
        EngineError: it refuses.
    """
    try:
        yield
    except InferenceServerException as error:
        where = f"Triton at {server.address}"
        if error.status() == "StatusCode.DEADLINE_EXCEEDED":
            late = f"{where} did not answer for {model} in {server.timeout_s:g} s"
            raise EngineAway(late) from error
        if error.status() == "StatusCode.UNAVAILABLE":
            raise EngineAway(f"{where} cannot be reached") from error
        raise EngineError(f"{where} does not answer for {model}: {error.message()}") from error


def _runner(
    client: InferenceServerClient, server: Remote, model: service_pb2.ModelMetadataResponse
) -> Run:
    inputs = [node.name for node in model.inputs]
    outputs = [node.name for node in model.outputs]

    def run(*arrays: NDArray[np.generic]) -> tuple[Floats, ...]:
        sent = []
        for name, array in zip(inputs, arrays, strict=True):
            node = InferInput(name, list(array.shape), DATATYPES[array.dtype.name])
            node.set_data_from_numpy(np.ascontiguousarray(array))
            sent.append(node)
        with _problems(model.name, server):
            # Its own timeout too, so that the server drops what nobody waits for any more.
            answer = client.infer(
                model.name, sent, client_timeout=server.timeout_s,
                timeout=int(server.timeout_s * 1e6),
            )  # fmt: skip
        return tuple(answer.as_numpy(name) for name in outputs)

    return run
