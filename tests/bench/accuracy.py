"""How well MediaPipe does at the same people: `make bench-accuracy`.

Each labelled person of `coco/val` is cut out of its photo with the same margin, and handed over as
a picture: MediaPipe Pose (its full model, which comes with its wheel) looks for one person in a
picture, so it is given one, and its detector is told to believe almost anything. It runs in an
environment and a process of its own, then subpose on the same boxes; both are compared with the
labels by the same COCO metric.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np

from models.bundle import BUNDLES, load_bundle
from models.engines import load_engine
from models.formats import CocoRow
from models.pose import PoseModel
from models.predictor import Predictor
from training.comparison import match_people
from training.data.images import read_image
from training.metrics import KeypointMatches
from training.truth import read_truth

MARGIN = 1.25
SCRIPT = Path(__file__).parent / "peers" / "mediapipe_joints.py"


def main() -> None:
    """Print AP and AR of both, and the ratio of their times a person."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("python", type=Path, help="of the environment that has MediaPipe")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--bundle", default="pose-s")
    args = parser.parse_args()
    bundle = load_bundle(BUNDLES / args.bundle)
    model = PoseModel(bundle, load_engine(bundle))
    predictor = Predictor(model, None)
    truth = read_truth(args.data, "coco/val").with_people()
    crops, corners, ours, seconds = [], [], [], []
    for photo in truth.photos:
        image = read_image(photo.path)
        for person in photo.people:
            centre = (
                np.array([person.box.x, person.box.y])
                + np.array([person.box.width, person.box.height]) / 2
            )
            half = np.array([person.box.width, person.box.height]) * MARGIN / 2
            left, top = np.maximum(np.floor(centre - half), 0).astype(int)
            right, bottom = np.ceil(centre + half).astype(int)
            crops.append(image[top:bottom, left:right])
            corners.append((photo.image_id, left, top))
        begin = perf_counter()
        encoded = predictor.encode(image, boxes=[person.box for person in photo.people])
        ours.append(predictor.read(encoded))
        seconds.append((perf_counter() - begin) / len(photo.people))
    with tempfile.TemporaryDirectory() as folder:
        given, answered = Path(folder) / "crops.npz", Path(folder) / "joints.npz"
        np.savez(given, *crops)
        subprocess.run([args.python, SCRIPT, given, answered], check=True)
        theirs = np.load(answered)
        rows = [
            CocoRow(
                image_id=image_id,
                category_id=1,
                keypoints=(joints * [crop.shape[1], crop.shape[0], 1] + [left, top, 0])
                .ravel()
                .tolist(),
                bbox=[float(left), float(top), float(crop.shape[1]), float(crop.shape[0])],
                score=float(joints[:, 2].mean()),
            )
            for joints, crop, (image_id, left, top) in zip(
                theirs["joints"], crops, corners, strict=True
            )
            if joints.any()
        ]
        missed = len(crops) - len(rows)
        each = median(theirs["seconds"]) / median(seconds)
    for name, matches in (
        (f"subpose, {bundle.manifest.name}", match_people(truth, ours)),
        ("MediaPipe Pose, full", KeypointMatches(truth.content, rows)),
    ):
        print(f"{name}: {matches.stats['AP']:.3f} AP, {matches.stats['AR']:.3f} AR")
    print(
        f"MediaPipe finds no one in {missed} of {len(crops)} pictures, and takes {each:.1f} times"
    )
    print("as long a person (its detector included, subpose's not)")


if __name__ == "__main__":
    main()
