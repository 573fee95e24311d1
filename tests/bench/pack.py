"""What learning from a pack costs beside learning from photos: `python -m tests.bench.pack CONFIG`.

The first people of a set are packed, and examples are drawn from the photos and from the pack in
turns, in one process, so that what else the machine does slows both alike. Nothing is read for the
first time while it counts.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

from models.keypoints import COCO17
from training.config import load_experiment
from training.data.examples import Examples
from training.looks import Looks
from training.pack import Pack, write_pack
from training.prepare import read_source


def main() -> None:
    """Print crops a second of both, their ratio, and what each takes on the disk."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("--people", type=int, default=300)
    parser.add_argument("--turns", type=int, default=5)
    args = parser.parse_args()
    experiment = load_experiment(args.config)
    shape, source = experiment.shape, experiment.train[0]
    people = read_source(source).people[: args.people]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "pack"
        manifest = write_pack(folder, source, people, None, Looks.of(experiment))
        pack = Pack(folder)
        sets = {
            name: Examples(
                labelled, COCO17, shape.size, shape.matrix,
                augmentation=experiment.augmentation, pictures=pictures,
            )
            for name, labelled, pictures in (
                ("photos", people, None), ("pack", pack.people, pack.pictures),
            )
        }  # fmt: skip
        times: dict[str, list[float]] = {name: [] for name in sets}
        for turn in range(args.turns + 1):
            for name, examples in sets.items():
                examples.epoch = turn
                began = perf_counter()
                for index in range(len(people)):
                    _ = examples[index]
                times[name].append(perf_counter() - began)
    photos, packed = (median(values[1:]) for values in times.values())
    files = {person.image for person in people}
    print(
        f"{len(people)} people: photos {len(people) / photos:.0f} crops/s, "
        f"pack {len(people) / packed:.0f}, ratio {photos / packed:.2f}; "
        f"{len(files)} photos of {sum(path.stat().st_size for path in files) / 1e6:.1f} MB, "
        f"pack of {sum(shard.bytes for shard in manifest.shards) / 1e6:.1f} MB"
    )


if __name__ == "__main__":
    main()
