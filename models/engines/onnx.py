"""ONNX Runtime, on the CPU or through its CUDA provider."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from models.bundle import Bundle
from models.cores import available_cores
from models.engines import DEVICES, EngineError, Floats, Precision
from models.engines.graphs import GraphEngine, Run
from models.engines.onnx_binding import bound

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}

CUDA_OPTIONS = {
    # The default tries every algorithm at each new shape, a second or so of waiting.
    "cudnn_conv_algo_search": "HEURISTIC",
    # The default would be TF32, with a mantissa of 10 bits.
    "use_tf32": "0",
}

TENSORRT = "TensorrtExecutionProvider"


def tensorrt_options(precision: Precision, notes: Path | None) -> dict[str, str]:
    """What the TensorRT provider is told.

    Args:
        precision: f32 or f16; the gate on joints decides whether f16 is accurate enough.
        notes: a file beside which compiled graphs are kept, which take minutes to make;
            None to keep none.
    """
    options = {"trt_fp16_enable": str(int(precision == "f16"))}
    if notes is not None:
        folder = str(notes.parent / "tensorrt")
        options |= {
            "trt_engine_cache_enable": "1", "trt_engine_cache_path": folder,
            "trt_timing_cache_enable": "1", "trt_timing_cache_path": folder,
        }  # fmt: skip
    return options


def open_session(
    path: Path,
    *,
    device: str = "cpu",
    threads: int | None = None,
    tensorrt: Mapping[str, str] | None = None,
) -> ort.InferenceSession:
    """One graph on one device.

    Args:
        path: of the ONNX file.
        device: `cpu` or `cuda`.
        threads: of the CPU's arithmetic; None for one a core that is this process's.
        tensorrt: options of its provider; None to do without it.

    Raises:
        EngineError: the device is not there, or the file is not a graph that runs.
    """
    provider = PROVIDERS.get(device)
    if provider is None:
        raise EngineError(f"device {device!r} is not one of {', '.join(PROVIDERS)}")
    settings = CUDA_OPTIONS if device == "cuda" else {}
    providers: list[tuple[str, Mapping[str, str]]] = [(provider, settings)]
    if tensorrt is not None:
        providers.insert(0, (TENSORRT, tensorrt))
    for needed, _ in reversed(providers):
        if needed not in ort.get_available_providers():
            raise EngineError(
                f"device {device!r} needs ONNX Runtime's {needed}, which this installation lacks; "
                "install the extra `gpu` in place of `cpu`"
            )
    if device == "cuda":
        # CUDA and cuDNN of the wheels beside this one, which no loader's path names.
        ort.preload_dlls()
    options = ort.SessionOptions()
    options.log_severity_level = 3
    # A thread that spins between runs takes a core from whoever decodes the next photo.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.intra_op_num_threads = threads or available_cores()
    try:
        session = ort.InferenceSession(path, options, providers=providers)
    except Exception as error:  # ONNX Runtime raises types of its own without a common base
        reason = str(error).splitlines()[0]
        raise EngineError(f"{path.name} cannot be loaded on {device}: {reason}") from error
    started = session.get_providers()
    if any(name not in started for name, _ in providers):
        # ONNX Runtime only logs when a provider fails to start, and goes on without it.
        what = "TensorRT" if provider in started else f"device {device!r}"
        raise EngineError(f"{what} was asked for but its driver did not start")
    return session


def handed_on(bundle: Bundle) -> set[Path]:
    """The graphs of a pose bundle whose answers other graphs take."""
    nerpe = bundle.pose.heads.nerpe
    files = [bundle.pose.encoder, *([nerpe.cells] if nerpe else [])]
    return {bundle.file(file) for file in files}


class OnnxEngine(GraphEngine):
    """The graphs of a pose bundle as sessions."""

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: str = "cpu",
        threads: int | None = None,
        tensorrt: Mapping[str, str] | None = None,
    ) -> None:
        """Load, with the arguments of `open_session`.

        Raises:
            EngineError: the device is not there, or a graph does not run on it.
        """
        stay = handed_on(bundle)

        def open_graph(path: Path) -> Run:
            session = open_session(path, device=device, threads=threads, tensorrt=tensorrt)
            if device != "cpu":
                return bound(session, device, stays=path in stay)
            names = [node.name for node in session.get_inputs()]

            def run(*arrays: NDArray[np.generic]) -> tuple[Floats, ...]:
                return tuple(session.run(None, dict(zip(names, arrays, strict=True))))

            return run

        name = "onnxruntime" if tensorrt is None else "onnxruntime-tensorrt"
        super().__init__(bundle, open_graph, name=name, device=DEVICES.get(device, device))
