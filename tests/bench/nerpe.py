"""`python -m tests.bench.nerpe`: how fast NerPE is on real crops, and what that costs in exactness.

The crops are of labelled people of coco/val, drawn with a fixed seed. Times are of one crop at a
time with the engine's own threads; where a ratio is printed both sides were timed in turns.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlencode

import numpy as np
from numpy.typing import NDArray

from models.bundle import BUNDLES, load_bundle
from models.engines import Floats, load_engine
from models.features import Features
from models.pose import PoseModel
from service.bench.process import own_server
from tests.bench.serve import Client, p50, photo, pose
from training.data.images import read_image
from training.truth import read_truth

RESOLUTIONS = (256, 512, 1024)
CONFIDENT = 0.5
TOUCHED = 0.05
"""Samples of which the exact value is over this are a joint's own."""


def people(model: PoseModel, data: Path, count: int) -> Features:
    """Labelled people of coco/val after the encoder."""
    photos = read_truth(data, "coco/val").with_people().photos
    every = [(photo.path, person.box) for photo in photos for person in photo.people]
    drawn = np.random.default_rng(0).permutation(len(every))[:count]
    crops = (np.stack(model.cut(read_image(every[i][0]), [every[i][1]])[1]) for i in drawn)
    return Features.stack([model.encode(crop) for crop in crops])


class Counted:
    """How many positions an engine evaluates."""

    def __init__(self, model: PoseModel) -> None:
        self.positions = 0
        self._field = model.engine.field
        model.engine.field = self.field  # type: ignore[method-assign]

    def field(self, cells: Floats, points: Floats) -> Floats:
        """As `Engine.field`."""
        self.positions += points.shape[0] * points.shape[1]
        return np.asarray(self._field(cells, points))

    def of(self, work: Callable[[], Any]) -> tuple[Any, float, int]:
        """A result, its milliseconds, its positions."""
        before, began = self.positions, time.perf_counter()
        result = work()
        return result, (time.perf_counter() - began) * 1000, self.positions - before


def decodes(model: PoseModel, counted: Counted, features: Features, slow: int) -> None:
    """`progressive` against `standard`: time, positions, distance."""
    times: dict[object, list[float]] = {"standard": []} | {r: [] for r in RESOLUTIONS}
    asked: dict[object, list[int]] = {key: [] for key in times}
    apart: dict[int, list[NDArray[np.floating]]] = {r: [] for r in RESOLUTIONS}
    for number in range(len(features)):
        one = features[number : number + 1]
        exact, took, positions = counted.of(partial(model.decode, one, "nerpe", "standard", 256))
        times["standard"].append(took)
        asked["standard"].append(positions)
        for resolution in RESOLUTIONS:
            found, took, positions = counted.of(
                partial(model.decode, one, "nerpe", "progressive", resolution)
            )
            times[resolution].append(took)
            asked[resolution].append(positions)
            if resolution > 256:
                if number >= slow:
                    continue
                exact = model.decode(one, "nerpe", "standard", resolution)
            distance = np.linalg.norm(found.points - exact.points, axis=-1)
            apart[resolution].append(distance[exact.scores > CONFIDENT])
    whole, most = median(times["standard"]), median(asked["standard"])
    print(
        f"\nprogressive, {len(features)} crops; "
        f"standard at 256: {whole:.1f} ms, {most:.0f} positions"
    )
    print("resolution      ms   standard@256/   positions   within 0.1 px of standard   (joints)")
    for resolution in RESOLUTIONS:
        took = median(times[resolution])
        distances = np.concatenate(apart[resolution])
        print(
            f"{resolution:>10}{took:>8.2f}{whole / took:>16.1f}{median(asked[resolution]):>12.0f}"
            f"{np.mean(distances <= 0.1):>28.2%}{len(distances):>11}"
        )


def fields(model: PoseModel, counted: Counted, features: Features) -> None:
    """A refined heatmap of one joint against an exact one: time, positions, error."""
    xs, ys = (np.arange(side, dtype=np.float64) for side in model.size)
    times: dict[bool, list[float]] = {False: [], True: []}
    asked: list[int] = []
    errors: list[Floats] = []
    touched: list[Floats] = []
    same: list[bool] = []
    for number in range(len(features)):
        one, joint = features[number : number + 1], number % len(model.keypoints)
        values: dict[bool, Floats] = {}
        for exact in (False, True):
            values[exact], took, positions = counted.of(
                partial(model.field, one, "nerpe", xs, ys, keypoints=[joint], exact=exact)
            )
            times[exact].append(took)
            if not exact:
                asked.append(positions)
        error = np.abs(values[False] - values[True]).ravel()
        errors.append(error)
        touched.append(error[values[True].ravel() > TOUCHED])
        if values[True].max() > CONFIDENT:
            same.append(values[False].argmax() == values[True].argmax())
    refined, exactly = median(times[False]), median(times[True])
    print(f"\nheatmap of one joint at 256, {len(features)} crops")
    print(
        f"refined {refined:.1f} ms, exact {exactly:.1f} ms: {exactly / refined:.1f} times; "
        f"{median(asked):.0f} positions of {len(xs) * len(ys)}"
    )
    for name, parts in (("all samples", errors), (f"those over {TOUCHED}", touched)):
        every = np.concatenate(parts)
        print(f"error, {name}: p99.9 {np.quantile(every, 0.999):.4f}, largest {every.max():.4f}")
    print(f"the same peak: {np.mean(same):.2%} of {len(same)} confident joints")


def over_http(repeats: int) -> None:
    """GET /heatmap of one joint against POST /heatmap of the photo."""
    data = photo()
    with own_server() as server:
        client = Client(server.url)
        print("\none joint's heatmap at 256 as png, over HTTP: p50, ms")
        print(f"{'head':<14}{'first':>8}{'GET':>8}{'POST':>8}{'POST/GET':>10}{'with box':>10}")
        answer = json.loads(client.ask("POST", pose(), data)[1])
        box = [answer["people"][0]["box"][side] for side in ("x", "y", "width", "height")]
        for head, exact in (("simcc", {}), ("heatmap", {}), ("nerpe", {}), ("nerpe", {"exact": 1})):
            wish = {"head": head, "resolution": 256, "keypoint": "nose", **exact}
            kept = f"/heatmap?{urlencode({'id': answer['id'], **wish})}"
            _, _, first = client.ask("GET", kept)
            get = p50(client, "GET", kept, None, repeats)
            post = p50(client, "POST", f"/heatmap?{urlencode(wish)}", data, repeats)
            path = f"/heatmap?{urlencode({**wish, 'boxes': json.dumps([box])})}"
            given = p50(client, "POST", path, data, repeats)
            name = f"{head}{' exact' if exact else ''}"
            print(
                f"{name:<14}{first:>8.1f}{get:>8.1f}{post:>8.1f}{post / get:>10.1f}{given:>10.1f}"
            )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.nerpe", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--crops", type=int, default=200)
    parser.add_argument(
        "--slow", type=int, default=12, help="of them for `standard` at 512 and 1024"
    )
    parser.add_argument("--repeats", type=int, default=50, help="calls behind each median")
    parser.add_argument("--threads", type=int, help="of the engine, but for HTTP")
    options = parser.parse_args()
    bundle = load_bundle(BUNDLES / "pose-s")
    model = PoseModel(bundle, load_engine(bundle, threads=options.threads))
    features = people(model, options.data, options.crops)
    counted = Counted(model)
    decodes(model, counted, features, options.slow)
    fields(model, counted, features)
    over_http(options.repeats)


if __name__ == "__main__":
    main()
