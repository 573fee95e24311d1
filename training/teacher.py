"""What the teachers see of each person, computed once: the mean of their heatmaps with flip.

The maps are those of the person's plain crop. An augmented crop's maps are warped from them
(`training.data.examples`), so training pays nothing for its teachers. They stay on the
teachers' own grid, whatever the size of the network's crops.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from rich.progress import track

from models.bundle import load_bundle
from models.codecs import HeatmapCodec
from models.engines import Floats, load_engine
from models.geometry import CropGeometry, Size
from models.keypoints import COCO17
from models.pixels import IMAGENET
from training.data.annotations import LabelledPerson
from training.data.images import read_image
from training.errors import DataError

SIZE: Size = (192, 256)
GRID: Size = (48, 64)
SIGMA = 2.0
"""Cells; of the labels that they learnt from."""
BATCH = 8


def plain_crop(person: LabelledPerson) -> CropGeometry:
    """The crop that the teachers look at."""
    return CropGeometry.from_box(person.box, SIZE, matrix="udp")


def teacher_codec(size: Size, grid: Size = GRID) -> HeatmapCodec:
    """How the teachers' maps lie in crops of any size (width, height)."""
    return HeatmapCodec(size, grid, SIGMA, "udp")


Look = Callable[[NDArray[np.uint8]], Floats]
"""(B, 256, 192, 3) RGB crops to (B, 17, 64, 48) heatmaps."""


def observe(people: list[LabelledPerson], teachers: Iterable[Path], output: Path) -> None:
    """Write (N, 17, 64, 48) float16 to `output`, one map a joint, in the order of `people`.

    Resumes: rows that an earlier, interrupted call has written are kept.

    Args:
        people: to look at.
        teachers: ONNX files of PP-TinyPose's contract, and folders of our own bundles.
        output: a `.npy` file.

    Raises:
        BundleError: a folder is not a bundle.
        DataError: its heatmaps lie on another grid, or in other crops.
    """
    looks = [_bundle(path) if path.is_dir() else _pp_tinypose(path) for path in teachers]
    shape = (len(people), len(COCO17), GRID[1], GRID[0])
    partial, done_file = output.with_suffix(".partial"), output.with_suffix(".done")
    resuming = partial.exists() and done_file.exists()
    maps = np.lib.format.open_memmap(
        partial, mode="r+" if resuming else "w+", dtype=np.float16, shape=shape
    )
    done = int(done_file.read_text()) if resuming else 0
    starts = range(done, len(people), BATCH)
    with ThreadPoolExecutor(len(looks)) as pool:
        for number, start in enumerate(track(starts, "teachers")):
            chunk = people[start : start + BATCH]
            crops = np.stack([plain_crop(p).cut(read_image(p.image)) for p in chunk])
            seen = pool.map(lambda look, crops=crops: _both_ways(look, crops), looks)
            maps[start : start + len(chunk)] = np.mean(list(seen), axis=0)
            if number % 64 == 63:  # a flush walks the whole file
                maps.flush()
                done_file.write_text(str(start + len(chunk)))
    partial.rename(output)
    done_file.unlink(missing_ok=True)


def _pp_tinypose(path: Path) -> Look:
    # A thread a teacher: cores that wait for each other inside a pass would do half as much.
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(path, options)

    def look(crops: NDArray[np.uint8]) -> Floats:
        return np.asarray(session.run(["heatmap"], {"image": IMAGENET(crops)})[0], np.float32)

    return look


def _bundle(path: Path) -> Look:
    bundle = load_bundle(path)
    manifest = bundle.pose
    size, spec = (manifest.input.width, manifest.input.height), manifest.heads.heatmap
    codec = teacher_codec(SIZE)
    if (
        spec is None
        or (size, manifest.crop.matrix) != (SIZE, "udp")
        or ((spec.width, spec.height), spec.grid) != (codec.grid, codec.mapping)
    ):
        raise DataError(
            f"{path} cannot teach: it would need heatmaps of {GRID[0]} x {GRID[1]} cells in "
            f"crops of {SIZE[0]} x {SIZE[1]} pixels, cut by the matrix udp"
        )
    engine = load_engine(bundle, threads=1)

    def look(crops: NDArray[np.uint8]) -> Floats:
        return np.asarray(engine.head("heatmap", engine.encode(crops))[0], np.float32)

    return look


def _both_ways(look: Look, crops: NDArray[np.uint8]) -> Floats:
    """(B, 17, 64, 48), the mean of the crops' maps and of their mirror images'."""
    mirrored = look(np.ascontiguousarray(crops[:, :, ::-1]))
    return np.asarray((look(crops) + mirrored[:, list(COCO17.mirror), :, ::-1]) / 2, np.float32)
