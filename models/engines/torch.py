"""torch: the bundle's own graphs on a GPU, answers staying there for the codecs to decode."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.arrays import Array
from models.bundle import Bundle
from models.cores import available_cores
from models.engines import EngineError, Precision
from models.engines.graphs import GraphEngine, Run
from models.engines.torch_crops import cut_crops
from models.engines.torch_graph import TorchGraph
from models.geometry import CropGeometry

HALVES = {"bf16": torch.bfloat16, "f16": torch.float16}

Graph = Callable[..., tuple[Tensor, ...]]


class TorchEngine(GraphEngine):
    """The graphs of a pose bundle in torch; its arrays are tensors on its device."""

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: str = "cpu",
        threads: int | None = None,
        precision: Precision = "f32",
    ) -> None:
        """Load.

        Args:
            bundle: a verified pose bundle.
            device: `cpu` or `cuda`.
            threads: of the CPU's arithmetic; None for one a core that is this process's.
            precision: of convolutions and matrix products; all else is float32.

        Raises:
            EngineError: the device is not there, or a graph is not one that runs.
        """
        where = open_device(device, threads)
        encoder = bundle.file(bundle.pose.encoder)

        def open_graph(path: Path) -> Run:
            graph: Graph = partial(_run, TorchGraph(path, where), where, HALVES.get(precision))
            if where.type == "cuda" and path == encoder:
                graph = Captured(graph)
            return partial(_answer, graph, where)

        name = "torch" if precision == "f32" else f"torch-{precision}"
        super().__init__(bundle, open_graph, name=name, device=str(where))
        self._place = partial(upload, device=where)
        self._aside = torch.cuda.Stream(where) if where.type == "cuda" else None  # type: ignore[no-untyped-call]

    def cut(self, photo: NDArray[np.uint8], geometries: Sequence[CropGeometry]) -> Sequence[Array]:
        """See `Engine`: on a GPU they are cut there, beside the batch that it is busy with."""
        if self._aside is None:
            return super().cut(photo, geometries)
        with torch.inference_mode(), torch.cuda.stream(self._aside):
            crops = cut_crops(photo, geometries, self._place)
        for crop in crops:
            # Their memory is this stream's, which may not have it back before the batch is done.
            crop.record_stream(torch.cuda.current_stream())
        self._aside.synchronize()
        return crops


def open_device(device: str, threads: int | None) -> torch.device:
    """The device, with arithmetic as precise as its type says.

    Raises:
        EngineError: it is not there.
    """
    if device not in ("cpu", "cuda"):
        raise EngineError(f"device {device!r} is not one of cpu, cuda")
    if device == "cpu":
        torch.set_num_threads(threads or available_cores())
        return torch.device("cpu")
    if not torch.cuda.is_available():
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without it"
        raise EngineError(
            f"device 'cuda' is not there for torch {torch.__version__}, {built}; "
            "see that a GPU and its driver are (nvidia-smi), and that the two fit"
        )
    # torch's own choice for convolutions would be TF32, with a mantissa of 10 bits.
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
    torch.backends.cuda.matmul.fp32_precision = "ieee"
    return torch.device("cuda", torch.cuda.current_device())


def load_graph(path: Path, device: str, threads: int | None = None) -> Run:
    """A graph of any bundle, from arrays to numpy arrays in float32.

    Raises:
        EngineError: the device is not there, or the file is no graph that runs.
    """
    where = open_device(device, threads)
    graph = partial(_run, TorchGraph(path, where), where, None)

    def run(*inputs: Array) -> tuple[Array, ...]:
        return tuple(x.cpu().numpy() for x in _answer(graph, where, *inputs))

    return run


def upload(array: Array, device: torch.device) -> Tensor:
    """To the device, from pinned memory: the copy runs beside what the device is doing."""
    if isinstance(array, Tensor):
        return array.to(device)
    if device.type != "cuda":
        return torch.from_numpy(np.require(array, requirements=["C", "W"]))
    kind = torch.from_numpy(np.empty(0, array.dtype)).dtype
    pinned = torch.empty(array.shape, dtype=kind, pin_memory=True)
    # One copy, of a part of a photo too.
    np.copyto(pinned.numpy(), array)
    return pinned.to(device, non_blocking=True)


def _answer(graph: Graph, device: torch.device, *inputs: Array) -> tuple[Tensor, ...]:
    with torch.inference_mode():
        return graph(*(upload(x, device) for x in inputs))


def _run(
    graph: TorchGraph, device: torch.device, half: torch.dtype | None, *inputs: Tensor
) -> tuple[Tensor, ...]:
    # Without its cache of cast weights, which a captured graph could not see change.
    with torch.autocast(device.type, half, enabled=half is not None, cache_enabled=False):
        return tuple(x.float() for x in graph(*inputs))


class Captured:
    """A graph of one input as CUDA graphs, one for each batch size that is a power of 2.

    Those are the sizes that the service fills its batches up to. The encoder is some 800 small
    kernels: launched one by one, they take longer than they run.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._captures: dict[
            torch.Size, tuple[torch.cuda.CUDAGraph, Tensor, tuple[Tensor, ...]]
        ] = {}
        # A capture has one place for its input and one for its answer.
        self._lock = Lock()

    def __call__(self, batch: Tensor) -> tuple[Tensor, ...]:
        """The graph's outputs."""
        if len(batch).bit_count() != 1:
            return self._graph(batch)
        with self._lock:
            if batch.shape not in self._captures:
                self._captures[batch.shape] = self._capture(batch)
            replay, given, answer = self._captures[batch.shape]
            given.copy_(batch)
            replay.replay()
            return tuple(x.clone() for x in answer)

    def _capture(self, batch: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor, tuple[Tensor, ...]]:
        given = batch.clone()
        # Aside, as CUDA asks for: the first runs choose algorithms and take memory.
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(2):
                self._graph(given)
        torch.cuda.current_stream().wait_stream(aside)
        replay = torch.cuda.CUDAGraph()
        with torch.cuda.graph(replay, capture_error_mode="thread_local"):
            outputs = self._graph(given)
        return replay, given, outputs
