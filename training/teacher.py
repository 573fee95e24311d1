"""What the teachers see of each person, computed once: the mean of their heatmaps with flip.

The maps are those of the person's plain crop. An augmented crop's maps are warped from them
(`training.data.examples`), so training pays nothing for its teachers. They stay on the
teachers' own grid, whatever the size of the network's crops.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from rich.progress import track

from models.codecs import HeatmapCodec
from models.geometry import CropGeometry, Size
from models.keypoints import COCO17
from training.data.annotations import LabelledPerson
from training.data.images import read_image

SIZE: Size = (192, 256)
GRID: Size = (48, 64)
SIGMA = 2.0
"""Cells; of the labels that they learnt from."""
BATCH = 8
_MEAN = np.array([0.485, 0.456, 0.406], np.float32) * 255
_STD = np.array([0.229, 0.224, 0.225], np.float32) * 255


def plain_crop(person: LabelledPerson) -> CropGeometry:
    """The crop that the teachers look at."""
    return CropGeometry.from_box(person.box, SIZE, matrix="udp")


def teacher_codec(size: Size, grid: Size = GRID) -> HeatmapCodec:
    """How the teachers' maps lie in crops of any size (width, height)."""
    return HeatmapCodec(size, grid, SIGMA, "udp")


def observe(people: list[LabelledPerson], teachers: Iterable[Path], output: Path) -> None:
    """Write (N, 17, 64, 48) float16 to `output`, one map a joint, in the order of `people`.

    Resumes: rows that an earlier, interrupted call has written are kept.
    """
    # A thread a teacher: cores that wait for each other inside a pass would do half as much.
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    sessions = [ort.InferenceSession(path, options) for path in teachers]
    shape = (len(people), len(COCO17), GRID[1], GRID[0])
    partial, done_file = output.with_suffix(".partial"), output.with_suffix(".done")
    resuming = partial.exists() and done_file.exists()
    maps = np.lib.format.open_memmap(
        partial, mode="r+" if resuming else "w+", dtype=np.float16, shape=shape
    )
    done = int(done_file.read_text()) if resuming else 0
    starts = range(done, len(people), BATCH)
    with ThreadPoolExecutor(len(sessions)) as pool:
        for number, start in enumerate(track(starts, "teachers")):
            chunk = people[start : start + BATCH]
            crops = np.stack([_pixels(person) for person in chunk])
            looks = pool.map(_look, sessions, repeat(crops))
            maps[start : start + len(chunk)] = np.mean(list(looks), axis=0)
            if number % 64 == 63:  # a flush walks the whole file
                maps.flush()
                done_file.write_text(str(start + len(chunk)))
    partial.rename(output)
    done_file.unlink(missing_ok=True)


def _pixels(person: LabelledPerson) -> NDArray[np.float32]:
    crop = plain_crop(person).cut(read_image(person.image))
    return ((crop - _MEAN) / _STD).transpose(2, 0, 1).astype(np.float32)


def _look(session: ort.InferenceSession, crops: NDArray[np.float32]) -> NDArray[np.float32]:
    """(B, 17, 64, 48), the mean of the crop's maps and of its mirror image's."""
    own = session.run(["heatmap"], {"image": crops})[0]
    mirrored = session.run(["heatmap"], {"image": np.ascontiguousarray(crops[..., ::-1])})[0]
    return np.asarray((own + mirrored[:, list(COCO17.mirror), :, ::-1]) / 2, np.float32)
