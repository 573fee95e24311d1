"""OpenVINO on the CPU, in a precision that is stated and not the runtime's own choice."""

from __future__ import annotations

from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from models.bundle import Bundle
from models.cores import available_cores
from models.engines import EngineError, Floats, Precision
from models.engines.graphs import GraphEngine, Run


def fast_bf16() -> bool:
    """Whether this processor multiplies bf16 in tiles (AMX). Elsewhere bf16 gains nothing."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    capabilities = ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return "amx_bf16" in flags and "BF16" in capabilities


class OpenvinoEngine(GraphEngine):
    """The graphs of a pose bundle, compiled."""

    def __init__(
        self, bundle: Bundle, *, threads: int | None = None, precision: Precision = "f32"
    ) -> None:
        """Compile.

        Args:
            bundle: a verified pose bundle.
            threads: of one run's arithmetic; None for one a core that is this process's.
            precision: of the arithmetic. Weights stored as f32 alone would leave it open.

        Raises:
            EngineError: a file is not a graph that runs.
        """
        core = ov.Core()
        config = {
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": threads or available_cores(),
            # One run at a time has all threads: the batch is what is parallel.
            "NUM_STREAMS": 1,
        }

        def open_graph(path: Path) -> Run:
            try:
                compiled = core.compile_model(path, "CPU", config)
            except Exception as error:  # OpenVINO raises types of its own without a common base
                reason = str(error).splitlines()[0]
                raise EngineError(f"{path.name} cannot be loaded by OpenVINO: {reason}") from error
            return _runner(compiled)

        name = "openvino" if precision == "f32" else f"openvino-{precision}"
        super().__init__(bundle, open_graph, name=name, device="cpu")


def _runner(compiled: ov.CompiledModel) -> Run:
    """Runs from several threads: a request serves one caller, so there are as many as callers."""
    idle: SimpleQueue[Any] = SimpleQueue()

    def run(*arrays: NDArray[np.generic]) -> tuple[Floats, ...]:
        try:
            request = idle.get_nowait()
        except Empty:
            request = compiled.create_infer_request()
        try:
            answers = request.infer(arrays, share_inputs=True)
            # Copies: the request's own memory is the next caller's.
            return tuple(np.array(answers[port], np.float32) for port in compiled.outputs)
        finally:
            idle.put(request)

    return run
