"""Which engine is fastest here, and by how much: `python -m tests.bench.engines`."""

from __future__ import annotations

import argparse
from pathlib import Path

from models.bundle import BUNDLES, load_bundle
from models.engines import EngineError
from models.engines.auto import accurate, installed, measure, sample_crops


def main() -> None:
    """Print what `auto` would measure, as ratios to ONNX Runtime."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, default=BUNDLES / "pose-s")
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    bundle = load_bundle(args.bundle)
    engines = {name: load() for name, load in installed(bundle, args.threads).items()}
    for name, engine in engines.items():
        try:
            accurate(engine, bundle, engines["onnxruntime"])
        except EngineError as error:
            print(f"{name} would be left out: {error}")
    costs = measure(engines, sample_crops(bundle))
    for name, cost in costs.items():
        ratio = costs["onnxruntime"] / cost
        print(f"{name}: {cost * 1e3:.1f} ms a crop, {ratio:.2f} times ONNX Runtime's speed")


if __name__ == "__main__":
    main()
