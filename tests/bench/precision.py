"""What int8 would be worth on this processor: `python -m tests.bench.precision`.

The encoder is quantised by ONNX Runtime's own tool, statically and by channel, on people of the
training split. Both then take turns, and the bundle is evaluated with each on `coco/dev`.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from models.bundle import BUNDLES, file_digest, load_bundle
from models.engines import load_engine
from models.engines.onnx import open_session
from models.pose import PoseModel
from models.predictor import HeadChoice
from training.config import load_experiment
from training.data.images import read_image
from training.evaluate import evaluate
from training.prepare import read_source
from training.truth import read_truth

SEEN, AT_ONCE = 192, 8
"""Crops whose ranges are looked at, and how many in one pass."""


class _Crops(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, crops: NDArray[np.uint8]) -> None:
        self.batches: Iterator[NDArray[np.uint8]] = iter(
            np.split(crops, range(AT_ONCE, len(crops), AT_ONCE))
        )

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        batch = next(self.batches, None)
        return None if batch is None else {"crops": batch}


def main() -> None:
    """Print the ratio of times for each batch, and AP with each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", default="pose-s")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--rounds", type=int, default=20)
    args = parser.parse_args()
    bundle = load_bundle(BUNDLES / args.bundle)
    model = PoseModel(bundle, load_engine(bundle))
    experiment = load_experiment(Path(f"training/experiments/{args.bundle}.toml"))
    people = read_source(experiment.train[0]).people
    chosen = np.random.default_rng(0).choice(len(people), SEEN, replace=False)
    crops = np.stack([model.cut(read_image(people[i].image), people[i].box)[1] for i in chosen])
    with tempfile.TemporaryDirectory() as folder:
        other = Path(shutil.copytree(bundle.path, Path(folder) / args.bundle))
        encoder = other / bundle.pose.encoder
        quant_pre_process(encoder, encoder, skip_symbolic_shape=True)
        quantize_static(
            encoder, encoder, _Crops(crops), per_channel=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        )  # fmt: skip
        sessions = [open_session(path, threads=1) for path in (bundle.file(encoder.name), encoder)]
        for batch in args.batches:
            times: list[list[float]] = [[], []]
            for _ in range(args.rounds):
                for session, seconds in zip(sessions, times, strict=True):
                    begin = perf_counter()
                    session.run(None, {"crops": crops[:batch]})
                    seconds.append(perf_counter() - begin)
            print(f"{batch:3} crops: int8 takes {median(times[1]) / median(times[0]):.2f} of fp32")
        manifest = bundle.pose.model_copy(
            update={"files": bundle.pose.files | {encoder.name: file_digest(encoder)}}
        )
        (other / "manifest.json").write_text(manifest.model_dump_json())
        int8 = load_bundle(other)
        truth = read_truth(args.data, "coco/dev")
        readings = [HeadChoice(bundle.pose.default_head, "dark")]
        for name, judged in (("fp32", model), ("int8", PoseModel(int8, load_engine(int8)))):
            (row,) = evaluate(judged, None, truth, readings=readings, draws=1)
            print(f"{name}: {row.figures.main:.3f} AP on coco/dev, {readings[0].head}")


if __name__ == "__main__":
    main()
