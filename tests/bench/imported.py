"""`python -m tests.bench.imported`: does a network from elsewhere keep its accuracy when served?

PP-TinyPose's ONNX file is imported as a user would, served by a process of its own, and asked over
HTTP for everyone in `coco/val` by their labelled boxes. Published for this file with this recipe:
0.586 AP, 0.615 with flip (data/models/README.md).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlencode

from rich.console import Console
from rich.progress import track

from models.formats import CocoRow
from service.bench.process import own_server
from tests.bench.serve import Client
from training.metrics import KeypointMatches
from training.truth import Truth, read_truth

PUBLISHED = {False: 0.586, True: 0.615}
WITHIN = 0.005
OPTIONS = (
    "--name", "tinypose", "--licence", "Apache-2.0", "--source", "PP-TinyPose, PaddleDetection",
    "--matrix", "udp", "--blur", "3",
)  # fmt: skip


def ask(client: Client, truth: Truth, *, flip: bool) -> list[CocoRow]:
    """Everyone in a split, over HTTP."""
    rows: list[CocoRow] = []
    console = Console(stderr=True)
    for photo in track(truth.photos, "with flip" if flip else "without", console=console):
        boxes = [[p.box.x, p.box.y, p.box.width, p.box.height] for p in photo.people]
        query = {
            "boxes": json.dumps(boxes), "flip": str(flip).lower(), "format": "coco",
            "image_id": photo.image_id, "keep": "false",
        }  # fmt: skip
        status, body, _ = client.ask("POST", f"/pose?{urlencode(query)}", photo.path.read_bytes())
        if status != 200:
            raise SystemExit(f"{photo.path.name}: {status} {body.decode()}")
        rows += json.loads(body)
    return rows


def main() -> None:
    """Import, serve, ask, compare; exit code 1 where a figure is further off than it may be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    data: Path = parser.parse_args().data
    truth = read_truth(data, "coco/val").with_people()
    file = data / "models" / "teacher" / "tinypose_256x192.onnx"
    failed = False
    with tempfile.TemporaryDirectory() as home:
        env = {"XDG_DATA_HOME": home}
        command = [sys.executable, "-m", "service", "models", "import", str(file), *OPTIONS]
        subprocess.run(command, env={**os.environ, **env}, check=True)
        with own_server({**env, "SUBPOSE_MODEL": "tinypose"}) as server:
            for flip, published in PUBLISHED.items():
                stats = KeypointMatches(truth.content, ask(Client(server.url), truth, flip=flip))
                ap = stats.stats["AP"]
                failed |= abs(ap - published) > WITHIN
                print(f"flip={str(flip).lower():5}  AP {ap:.4f}  published {published:.3f}")
    raise SystemExit(int(failed))


if __name__ == "__main__":
    main()
