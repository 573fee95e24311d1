"""What a loaded engine costs while nobody asks it: `python -m tests.bench.idle`."""

from __future__ import annotations

import argparse
from time import perf_counter, process_time, sleep

from models.bundle import BUNDLES, load_bundle
from models.engines.auto import installed, sample_crops


def main() -> None:
    """Print the cores that each engine keeps busy after it has worked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10)
    args = parser.parse_args()
    bundle = load_bundle(BUNDLES / "pose-s")
    for name, load in installed(bundle, None).items():
        engine = load()
        for _ in range(5):
            engine.encode(sample_crops(bundle))
        began, worked = perf_counter(), process_time()
        sleep(args.seconds)
        cores = (process_time() - worked) / (perf_counter() - began)
        print(f"{name}: {cores:.4f} of a core while idle")


if __name__ == "__main__":
    main()
