"""Which engine a bundle runs on best here: tried for accuracy, then timed, and remembered."""

from __future__ import annotations

import json
import logging
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from time import perf_counter

import cv2
import numpy as np
from numpy.typing import NDArray

from models.arrays import to_numpy
from models.bundle import Bundle
from models.cores import available_cores
from models.engines import Engine, EngineError, Precision
from models.engines.onnx import OnnxEngine, tensorrt_options
from models.files import write_whole
from models.geometry import Box
from models.pose import PoseModel

logger = logging.getLogger(__name__)

SAMPLE = Path(__file__).with_name("sample.jpg")
"""Four people's crops side by side."""

TOLERANCE_PX = 0.1
"""Of the crop: how far from ONNX Runtime's an engine may put a joint that scores over SCORED."""

TOLERANCE_LEVELS = 1
"""How far the grey of a crop that an engine cuts may be from that of the host's."""

SCORED = 0.3

BATCHES = (1, 4)
ROUNDS = 7

Engines = Mapping[str, Callable[[], Engine]]


def choose_engine(
    bundle: Bundle, notes: Path | None = None, *, threads: int | None = None
) -> Engine:
    """The fastest engine that is installed and accurate.

    Args:
        bundle: a verified pose bundle.
        notes: where choices are kept, by weights, versions and machine; need not exist.
            None to keep nothing.
        threads: of the arithmetic; None for one a core.

    Raises:
        EngineError: ONNX Runtime, which is the measure, does not load the bundle.
    """
    engines = installed(bundle, threads)
    if len(engines) == 1:
        return engines["onnxruntime"]()
    known = _read(notes) if notes else {}
    key = _key(bundle, threads)
    kept = known.get(key)
    if kept is not None and kept in engines:
        return engines[kept]()
    loaded = {"onnxruntime": engines["onnxruntime"]()}
    for name, load in engines.items():
        if name not in loaded:
            try:
                loaded[name] = accurate(load(), bundle, loaded["onnxruntime"])
            except EngineError as error:
                logger.warning("%s is left out: %s", name, error)
    costs = measure(loaded, sample_crops(bundle))
    chosen = min(costs, key=costs.__getitem__)
    figures = ", ".join(f"{name} {cost * 1e3:.1f} ms" for name, cost in costs.items())
    logger.info("%s runs on %s: a crop takes %s", bundle.manifest.name, chosen, figures)
    try:
        if notes:
            write_whole(notes, json.dumps({**known, key: chosen}, indent=2) + "\n")
    except OSError as error:
        logger.warning("the choice of engine cannot be kept: %s", error)
    return loaded[chosen]


def load_openvino(bundle: Bundle, *, device: str, threads: int | None = None) -> Engine:
    """OpenVINO, where it is accurate.

    Raises:
        EngineError: it is not installed, or not accurate here; another device than the CPU.
    """
    if device != "cpu":
        raise EngineError(f"engine 'openvino' runs on the cpu only, not on {device!r}")
    try:
        from models.engines.openvino import OpenvinoEngine
    except ImportError as error:
        raise EngineError("engine 'openvino' needs the extra `openvino`") from error
    reference = OnnxEngine(bundle, threads=threads)
    return accurate(OpenvinoEngine(bundle, threads=threads), bundle, reference)


def load_torch(
    bundle: Bundle, *, device: str, threads: int | None = None, precision: Precision = "f32"
) -> Engine:
    """torch, where it is accurate.

    Raises:
        EngineError: it or the device is not there, or the precision is not accurate.
    """
    try:
        from models.engines.torch import TorchEngine
    except ImportError as error:
        raise EngineError("engine 'torch' needs the extra `torch`") from error
    engine = TorchEngine(bundle, device=device, threads=threads, precision=precision)
    return accurate(engine, bundle, OnnxEngine(bundle, threads=threads))


def load_tensorrt(
    bundle: Bundle, *, device: str, precision: Precision = "f32", notes: Path | None = None
) -> Engine:
    """ONNX Runtime's TensorRT provider, where it is accurate.

    Raises:
        EngineError: it or the device is not there, or the precision is not accurate.
    """
    if device != "cuda":
        raise EngineError(f"engine 'tensorrt' runs on cuda only, not on {device!r}")
    engine = OnnxEngine(bundle, device=device, tensorrt=tensorrt_options(precision, notes))
    return accurate(engine, bundle, OnnxEngine(bundle))


def installed(bundle: Bundle, threads: int | None) -> Engines:
    """By name, what could load a bundle on this CPU; ONNX Runtime first."""
    engines: dict[str, Callable[[], Engine]] = {
        "onnxruntime": lambda: OnnxEngine(bundle, threads=threads)
    }
    if find_spec("openvino"):
        from models.engines.openvino import OpenvinoEngine, fast_bf16

        engines["openvino"] = lambda: OpenvinoEngine(bundle, threads=threads)
        if fast_bf16():
            engines["openvino-bf16"] = lambda: OpenvinoEngine(
                bundle, threads=threads, precision="bf16"
            )
    return engines


def accurate(engine: Engine, bundle: Bundle, reference: Engine) -> Engine:
    """The engine, if it sees real people as the reference does and finds their joints there.

    Raises:
        EngineError: it does not, by any head, or cuts other crops; the reference itself finds no
            joints to compare.
    """
    crops = sample_crops(bundle)
    ours, theirs = PoseModel(bundle, engine), PoseModel(bundle, reference)
    levels = levels_apart(ours, theirs, *sample_photo())
    if levels > TOLERANCE_LEVELS:
        raise EngineError(
            f"{engine.name} cuts crops up to {levels} grey levels from {reference.name}'s, "
            f"over the {TOLERANCE_LEVELS} that are let pass"
        )
    found, expected = ours.encode(crops), theirs.encode(crops)
    for head in ours.heads:
        a, b = ours.decode(found, head), theirs.decode(expected, head)
        points = np.asarray(a.points, np.float64) - np.asarray(b.points, np.float64)
        moved = np.hypot(*np.moveaxis(points, -1, 0))[np.asarray(b.scores) > SCORED]
        if not moved.size:
            raise EngineError(
                f"{reference.name} finds no joint by head {head} in photos of people, "
                f"so whether {engine.name} is accurate cannot be told"
            )
        # Written so that a joint that is nowhere fails too.
        if not moved.max() <= TOLERANCE_PX:
            raise EngineError(
                f"{engine.name} puts joints of head {head} up to {moved.max():.2g} px from where "
                f"{reference.name} does, over the {TOLERANCE_PX} px that are let pass"
            )
    return engine


def levels_apart(
    one: PoseModel, other: PoseModel, photo: NDArray[np.uint8], boxes: Sequence[Box]
) -> int:
    """By how many grey levels two engines' crops of a photo differ at most."""
    a, b = (
        np.stack([to_numpy(crop) for crop in model.cut(photo, boxes)[1]]).astype(np.int16)
        for model in (one, other)
    )
    return int(np.abs(a - b).max())


def measure(engines: Mapping[str, Engine], crops: NDArray[np.uint8]) -> dict[str, float]:
    """Seconds a crop in the encoder, by name; in turns, so that what disturbs one disturbs all."""
    times: dict[str, list[list[float]]] = {name: [[] for _ in BATCHES] for name in engines}
    for round_ in range(ROUNDS + 1):
        for name, engine in engines.items():
            for i, batch in enumerate(BATCHES):
                pixels = np.resize(crops, (batch, *crops.shape[1:]))
                began = perf_counter()
                engine.encode(pixels)
                if round_:  # the first makes each batch's plan
                    times[name][i].append((perf_counter() - began) / batch)
    return {name: sum(map(median, parts)) / len(parts) for name, parts in times.items()}


def sample_photo() -> tuple[NDArray[np.uint8], list[Box]]:
    """(H, W, 3) RGB with four people; their boxes, and one of all, which is read more coarsely."""
    strip = cv2.imread(str(SAMPLE))
    assert strip is not None
    height, width = strip.shape[:2]
    boxes = [Box(i * width / 4, 0, width / 4, height) for i in range(4)]
    rgb = np.ascontiguousarray(strip[..., ::-1], np.uint8)
    return rgb, [*boxes, Box(0, 0, width, height)]


def sample_crops(bundle: Bundle) -> NDArray[np.uint8]:
    """(4, H, W, 3) RGB: people, in the bundle's input size."""
    strip, _ = sample_photo()
    size = bundle.pose.input.width, bundle.pose.input.height
    crops = [cv2.resize(crop, size) for crop in np.split(strip, 4, axis=1)]
    return np.asarray(np.stack(crops), np.uint8)


def _read(notes: Path) -> dict[str, str]:
    """What was kept; nothing where that cannot be read."""
    try:
        known = json.loads(notes.read_text())
    except (OSError, ValueError):
        return {}
    if not isinstance(known, dict):
        return {}
    return {key: name for key, name in known.items() if isinstance(name, str)}


def _key(bundle: Bundle, threads: int | None) -> str:
    """Everything that the choice depends on."""
    versions = [f"{package} {_version(package)}" for package in ("onnxruntime", "openvino")]
    cores = f"{threads or available_cores()} threads of {os.cpu_count()}"
    return "; ".join([bundle.digest, *versions, _processor(), cores])


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "of another distribution"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((x.partition(":")[2].strip() for x in lines if x.startswith("model name")), "")
