"""What a crop costs under each pose bundle: `python -m tests.bench.bundles`.

The bundles take turns in one process, so that what else the machine does slows them alike.
"""

from __future__ import annotations

import argparse
from statistics import median
from time import perf_counter

import numpy as np

from models.bundle import find_bundles, load_bundle
from models.engines import load_engine
from models.manifest import PoseManifest
from models.pose import PoseModel


def main() -> None:
    """Print ratios to the first bundle's, encoder and default head, for each batch."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=10, help="for each batch")
    args = parser.parse_args()
    bundles = [load_bundle(path) for path in find_bundles().values()]
    models = {
        bundle.manifest.name: PoseModel(bundle, load_engine(bundle, threads=args.threads))
        for bundle in bundles
        if isinstance(bundle.manifest, PoseManifest)
    }
    random = np.random.default_rng(0)
    for batch in args.batches:
        crops = {
            name: random.integers(
                0,
                256,
                (batch, model.manifest.input.height, model.manifest.input.width, 3),
                np.uint8,
            )
            for name, model in models.items()
        }
        times: dict[str, list[float]] = {name: [] for name in models}
        until = perf_counter() + args.seconds
        while perf_counter() < until:
            for name, model in models.items():
                begin = perf_counter()
                model.decode(model.encode(crops[name]), model.default_head)
                times[name].append(perf_counter() - begin)
        costs = {name: median(seconds) / batch for name, seconds in times.items()}
        first = next(iter(costs.values()))
        for name, cost in costs.items():
            print(f"{batch:3} crops: {name} {cost * 1e3:.1f} ms a crop, {cost / first:.2f}")


if __name__ == "__main__":
    main()
