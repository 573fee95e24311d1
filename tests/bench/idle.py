"""What engines and the server cost while nobody asks them: `python -m tests.bench.idle`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from time import perf_counter, process_time, sleep

from models.bundle import BUNDLES, load_bundle
from models.engines.auto import installed, sample_crops
from service.bench.process import own_server
from tests.bench.serve import Client, photo, pose


def busy(worked_s: Callable[[], float], seconds: float) -> float:
    """Cores that are kept busy for so long, told of all the seconds they have worked."""
    began, before = perf_counter(), worked_s()
    sleep(seconds)
    return (worked_s() - before) / (perf_counter() - began)


def main() -> None:
    """Print the cores that each engine, and the whole server, keeps busy after it has worked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10)
    args = parser.parse_args()
    bundle = load_bundle(BUNDLES / "pose-s")
    for name, load in installed(bundle, None).items():
        engine = load()
        for _ in range(5):
            engine.encode(sample_crops(bundle))
        print(f"{name}: {busy(process_time, args.seconds):.4f} of a core while idle")
    with own_server() as server:
        client = Client(server.url)
        for _ in range(5):
            client.ask("POST", pose(), photo())
        # A process' time is told in hundredths of a second.
        cores = busy(lambda: server.cpu_s, max(5.0, args.seconds))
        print(f"the server: {cores:.4f} of a core while idle")


if __name__ == "__main__":
    main()
