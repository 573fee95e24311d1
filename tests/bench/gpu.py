"""What a GPU does with a bundle, beside what it could: `python -m tests.bench.gpu`.

Crops a second by batch size: cut out of a photo, through the encoder alone, and through the encoder
and each head to joints on the host; the share of the matrix and memory ceilings that torch reaches
on the same device; memory. How far an engine's crops, and joints by expectation, are from those of
crops that the host cut. With `--device cpu` it runs anywhere, to see that it does; there every
engine's crops are the host's.
"""

from __future__ import annotations

import argparse
import math
import resource
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from time import perf_counter
from typing import get_args

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from models.arrays import namespace, to_numpy
from models.bundle import BUNDLES, Bundle, load_bundle
from models.engines import EngineError, EngineName, Precision, load_engine
from models.engines.auto import levels_apart, sample_crops, sample_photo
from models.engines.onnx import OnnxEngine
from models.engines.torch_graph import TorchGraph
from models.geometry import Box
from models.pose import PoseModel

TYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


class Traffic(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes that operators read and write; a view moves none."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            tensors = (x for x in tree_leaves((args, kwargs, result)) if isinstance(x, Tensor))
            self.bytes += sum(x.nbytes for x in tensors)
        return result


def rate(run: Callable[[], object], device: str, seconds: float) -> float:
    """Runs a second, everything that was started finished."""

    def finish() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    for _ in range(2):
        run()
    finish()
    began, runs = perf_counter(), 0
    while runs < 3 or perf_counter() - began < seconds:
        run()
        runs += 1
        finish()
    return runs / (perf_counter() - began)


def ceilings(device: str, precision: Precision, seconds: float) -> tuple[float, float, float]:
    """FLOP/s of a large matrix product, bytes/s of a copy on the device, and of an upload."""
    side = 8192 if device == "cuda" else 512
    a = torch.rand(side, side, device=device, dtype=TYPES[precision])
    flops = 2 * side**3 * rate(lambda: a @ a, device, seconds)
    block = torch.zeros((1 << 30) if device == "cuda" else (1 << 24), dtype=torch.uint8)
    there, other = block.to(device), torch.empty_like(block, device=device)
    copied = 2 * len(block) * rate(lambda: other.copy_(there), device, seconds)
    pinned = block.pin_memory() if device == "cuda" else block
    sent = len(block) * rate(lambda: other.copy_(pinned, non_blocking=True), device, seconds)
    return flops, copied, sent


def work(bundle: Bundle) -> tuple[float, float]:
    """FLOPs and bytes of the encoder for a crop, in float32, no operator fused with another."""
    graph = TorchGraph(bundle.file(bundle.pose.encoder), torch.device("cpu"))
    crop = torch.from_numpy(sample_crops(bundle)[:1])
    with torch.no_grad(), FlopCounterMode(display=False) as flops, Traffic() as traffic:
        graph(crop)
    return flops.get_total_flops(), traffic.bytes


def photo_of(count: int) -> tuple[NDArray[np.uint8], list[Box]]:
    """3 megapixels, and boxes of people in them: some small, some larger than a crop."""
    strip, _ = sample_photo()
    photo = np.asarray(cv2.resize(strip, None, fx=4, fy=4), np.uint8)
    height, width = photo.shape[:2]
    random = np.random.default_rng(0)
    sides = random.uniform(0.1, 0.8, count) * height
    corners = zip(random.uniform(0, width - sides), random.uniform(0, height - sides), strict=True)
    return photo, [Box(x, y, s * 0.75, s) for (x, y), s in zip(corners, sides, strict=True)]


def rates(model: PoseModel, bucket: int, device: str, seconds: float) -> Mapping[str, float]:
    """Crops a second: `cut`, `encode`, and from a batch of crops to joints by head."""
    photo, boxes = photo_of(bucket)
    cuts = model.cut(photo, boxes)[1]
    crops = namespace(*cuts).stack(list(cuts))
    runs: dict[str, Callable[[], object]] = {
        "cut": lambda: model.cut(photo, boxes),
        "encode": lambda: model.encode(crops),
    }
    for head in model.heads:
        runs[head] = lambda head=head: model.decode(model.encode(crops), head)  # type: ignore[misc]
    return {name: bucket * rate(run, device, seconds) for name, run in runs.items()}


def moved(model: PoseModel, people: int) -> str:
    """What comes of it that the engine cuts crops itself."""
    photo, boxes = photo_of(people)
    host = PoseModel(model.bundle, OnnxEngine(model.bundle))
    points = []
    for one in (model, host):
        cuts = one.cut(photo, boxes)[1]
        crops = np.stack([to_numpy(crop) for crop in cuts])
        batches = np.split(crops, range(4, len(crops), 4))
        decoded = [host.decode(host.encode(x), "simcc", "expectation") for x in batches]
        points.append(np.concatenate([one.points for one in decoded]))
    px = np.linalg.norm(points[0] - points[1], axis=-1)
    return (
        f"its crops are at most {levels_apart(model, host, photo, boxes)} grey levels from the "
        f"host's, joints in them {np.median(px):.3f} px in the median, {np.quantile(px, 0.99):.3f} "
        "px at p99"
    )


def table(bundle: Bundle, args: argparse.Namespace) -> Iterator[str]:
    """The lines of the answer."""
    gpu = torch.cuda.get_device_name() if args.device == "cuda" else "the CPU"
    yield f"{bundle.manifest.name} on {gpu}, torch {torch.__version__}, {args.precision}"
    flops, copied, sent = ceilings(args.device, args.precision, args.seconds)
    yield (
        f"ceilings: {flops / 1e12:.2f} TFLOP/s, {copied / 1e9:.1f} GB/s on the device, "
        f"{sent / 1e9:.1f} GB/s to it"
    )
    each_flops, each_bytes = work(bundle)
    yield f"encoder: {each_flops / 1e6:.0f} MFLOP and {each_bytes / 1e6:.1f} MB a crop"
    width, height = bundle.pose.input.width, bundle.pose.input.height
    features = 4 * math.prod(bundle.pose.feature_shape)
    yield f"a crop is {width * height * 3 / 1e3:.0f} kB, its features {features / 1e3:.0f} kB"
    largest = min(args.largest or bundle.pose.input.largest_batch, bundle.pose.input.largest_batch)
    buckets = list(takewhile(lambda n: n <= largest, (1 << power for power in range(10))))
    for name in args.engines:
        try:
            engine = load_engine(
                bundle, engine=name, device=args.device, threads=args.threads,
                precision=args.precision,
            )  # fmt: skip
        except EngineError as error:
            yield f"{name}: left out: {error}"
            continue
        model = PoseModel(bundle, engine)
        yield f"\n{engine.name} on {engine.device}, crops a second"
        columns = ("cut", "encode", *model.heads)
        yield "  batch" + "".join(f"{name:>9}" for name in columns) + "  FLOPs  bytes"
        for bucket in buckets:
            found = rates(model, bucket, args.device, args.seconds)
            shares = found["encode"] * each_flops / flops, found["encode"] * each_bytes / copied
            yield (
                f"{bucket:>7}"
                + "".join(f"{found[name]:>9.1f}" for name in columns)
                + "".join(f"{share:>7.1%}" for share in shares)
            )
        if "simcc" in model.heads:
            yield f"  {moved(model, 3 * largest)}"
        yield f"  {memory(args.device)}"


def memory(device: str) -> str:
    """The most that was taken."""
    if device == "cuda":
        free, total = torch.cuda.mem_get_info()
        most = torch.cuda.max_memory_reserved()
        return f"memory: torch at most {most / 1e6:.0f} MB; {(total - free) / 1e6:.0f} MB in use"
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return f"memory: {most / 1e3:.0f} MB of the process at most"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", type=Path, default=BUNDLES / "pose-s")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument(
        "--engines", nargs="+", choices=get_args(EngineName), default=["torch", "onnxruntime"]
    )
    parser.add_argument("--precision", choices=get_args(Precision), default="f32")
    parser.add_argument("--largest", type=int, help="batch; the bundle's own where not given")
    parser.add_argument(
        "--threads", type=int, help="of the CPU's arithmetic; one a core by default"
    )
    parser.add_argument("--seconds", type=float, default=2.0, help="for each figure")
    args = parser.parse_args(arguments)
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch finds no GPU here; --device cpu shows that this command runs")
    if args.threads:
        torch.set_num_threads(args.threads)
    for line in table(load_bundle(args.bundle), args):
        print(line, flush=True)


if __name__ == "__main__":
    main()
