"""What folding the trunk is worth: `python -m tests.bench.fold`.

Both encoders, as trained and as served, are exported and run in turns in one process, so that what
else the machine does slows both alike. Their time depends on no weight, so these are random.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import torch
from torch import Tensor, nn

from models.engines.onnx import open_session
from models.networks.batch_norm import fold_batch_norm
from models.networks.folded import FoldedEncoder
from models.networks.normalise import Normalise
from models.networks.tinypose import TinyPoseTrunk
from training.graphs import export_graph


class _Trained(nn.Module):
    def __init__(self, normalise: Normalise, trunk: TinyPoseTrunk) -> None:
        super().__init__()
        self.normalise, self.trunk = normalise, trunk

    def forward(self, crops: Tensor) -> Tensor:
        features: Tensor = self.trunk(self.normalise(crops))
        return features


def main() -> None:
    """Print the ratio of medians for each batch."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=10, help="for each batch")
    args = parser.parse_args()
    normalise, trunk = Normalise(), TinyPoseTrunk()
    fold_batch_norm(trunk)
    trunk.requires_grad_(False)
    encoders = {"trained": _Trained(normalise, trunk), "served": FoldedEncoder(normalise, trunk)}
    crops = torch.zeros((2, 256, 192, 3), dtype=torch.uint8)
    with tempfile.TemporaryDirectory() as folder:
        sessions = {}
        for name, module in encoders.items():
            path = Path(folder) / f"{name}.onnx"
            batches: dict[int, object] = {0: torch.export.Dim("batch", min=1, max=1024)}
            module.eval()
            export_graph(module, module.forward, path, {"crops": crops}, ["features"], (batches,))
            sessions[name] = open_session(path, threads=args.threads)
        for batch in args.batches:
            pixels = np.random.default_rng(0).integers(0, 256, (batch, 256, 192, 3), dtype=np.uint8)
            times: dict[str, list[float]] = {name: [] for name in sessions}
            answers = {name: s.run(None, {"crops": pixels})[0] for name, s in sessions.items()}
            until = perf_counter() + args.seconds
            while perf_counter() < until:
                for name, session in sessions.items():
                    began = perf_counter()
                    session.run(None, {"crops": pixels})
                    times[name].append(perf_counter() - began)
            trained, served = (median(values) for values in times.values())
            difference = np.abs(answers["trained"] - answers["served"]).max()
            print(
                f"batch {batch:3}: trained {trained / batch * 1e3:7.2f} ms a crop, "
                f"served {served / batch * 1e3:7.2f}, ratio {trained / served:.2f} "
                f"({len(times['served'])} runs each; features differ by {difference:.1g})"
            )


if __name__ == "__main__":
    main()
