import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.utils.data import ConcatDataset

from models.geometry import CropGeometry, CropMatrix
from models.keypoints import COCO17
from tests.training.sets import COLOURS, JOINTS, row, write_set
from training.data.annotations import LabelledPerson, read_people
from training.data.examples import Augmentation, Examples, set_epoch
from training.teacher import GRID, plain_crop
from training.teacher import SIZE as TEACHER_SIZE

SIZE = (192, 256)
MIRROR = list(COCO17.mirror)
STILL = Augmentation(scale=0, rotation=0, shift=0, flip=False, half_body=0, colour=0, cutout=0)
MOVING = Augmentation(colour=0, cutout=0)


def _people(folder: Path, **changes: Any) -> list[LabelledPerson]:  # noqa: ANN401
    return read_people(*write_set(folder, [row(1, **changes)]), COCO17).people


def _examples(
    people: list[LabelledPerson],
    augmentation: Augmentation | None,
    *,
    matrix: CropMatrix = "udp",
    teacher: Path | None = None,
    seed: int = 0,
    epoch: int = 0,
) -> Examples:
    examples = Examples(
        people, COCO17, SIZE, matrix, augmentation=augmentation, teacher=teacher, seed=seed
    )
    examples.epoch = epoch
    return examples


def _colours_at(example: dict[str, torch.Tensor]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of the joints well inside the crop, and which joint's disc is painted there."""
    points, crop = example["points"].numpy(), example["crop"].numpy().astype(int)
    inner = np.flatnonzero(((points > 4) & (points < np.array(SIZE) - 5)).all(1))
    u, v = np.rint(points[inner]).astype(int).T
    distance = np.abs(crop[v, u][:, None] - COLOURS.astype(int)).sum(-1)
    assert distance.min(1).max() < 30, "a joint lies on no disc"
    return inner, distance.argmin(1)


def test_a_plain_example_is_the_person_s_crop(tmp_path: Path) -> None:
    people = _people(tmp_path, keypoints=[*row(1)["keypoints"][:48], 0, 0, 0])
    for augmentation in (None, STILL):
        example = _examples(people, augmentation)[0]
        geometry = CropGeometry.from_box(people[0].box, SIZE, matrix="udp")
        np.testing.assert_allclose(example["points"][:16], geometry.to_crop(JOINTS[:16]), atol=1e-3)
        assert example["visible"].tolist() == [True] * 16 + [False]
        assert (example["crop"].dtype, example["crop"].shape) == (torch.uint8, (256, 192, 3))
        assert example["points"].dtype == torch.float32
        assert example["index"] == 0
        assert "maps" not in example
        inner, seen = _colours_at(example)
        assert inner[:16].tolist() == seen[:16].tolist() == list(range(16))


@pytest.mark.parametrize("matrix", ["legacy", "udp"])
def test_joints_stay_on_their_pixels_and_a_flip_swaps_the_sides(
    tmp_path: Path, matrix: CropMatrix
) -> None:
    examples = _examples(_people(tmp_path), MOVING, matrix=matrix)
    flips = []
    for epoch in range(40):
        examples.epoch = epoch
        inner, seen = _colours_at(examples[0])
        assert len(inner) >= 4
        # Mirrored, the joint that is now named left is the one that was painted as the right one.
        mirrored = np.array(MIRROR)[inner]
        own = (seen == inner).all()
        assert own != (seen == mirrored).all()
        flips.append(not own)
    assert 8 < sum(flips) < 32


def test_an_example_depends_on_seed_epoch_and_index_alone(tmp_path: Path) -> None:
    people = _people(tmp_path) * 2

    def drawn(index: int = 0, seed: int = 0, epoch: int = 0) -> dict[str, torch.Tensor]:
        return _examples(people, Augmentation(), seed=seed, epoch=epoch)[index]

    first = drawn()
    used = _examples(people, Augmentation())
    for _ in range(3):
        _ = used[1]
    np.random.default_rng(0).random()
    for again in (drawn(), used[0]):
        for name, value in first.items():
            assert torch.equal(value, again[name])
    for other in (drawn(index=1), drawn(seed=1), drawn(epoch=1)):
        assert not torch.equal(first["points"], other["points"])
        assert not torch.equal(first["crop"], other["crop"])


def test_an_epoch_is_set_for_every_set(tmp_path: Path) -> None:
    sets = [_examples(_people(tmp_path), None) for _ in range(2)]
    set_epoch(ConcatDataset(sets), 5)
    assert [part.epoch for part in sets] == [5, 5]


def test_crops_vary_as_widely_as_they_are_told(tmp_path: Path) -> None:
    people = _people(tmp_path)
    examples = _examples(people, Augmentation(half_body=0, flip=False, colour=0, cutout=0))
    plain = CropGeometry.from_box(people[0].box, SIZE, matrix="udp")
    scales, angles = [], []
    for epoch in range(100):
        examples.epoch = epoch
        points = examples[0]["points"].numpy().astype(float)
        # The similarity that takes the plain crop's joints to this one's.
        a = plain.to_crop(JOINTS) @ [1, 1j]
        b = points @ [1, 1j]
        turn = np.vdot(a - a.mean(), b - b.mean()) / np.vdot(a - a.mean(), a - a.mean())
        scales.append(abs(turn))
        angles.append(np.degrees(np.angle(turn)))
    assert 1 / 1.36 < min(scales) < 0.8
    assert 1.2 < max(scales) < 1 / 0.64
    assert 50 < np.abs(angles).max() < 81
    assert 20 < np.isclose(angles, 0, atol=1).sum() < 60


def test_half_a_body_fills_the_crop(tmp_path: Path) -> None:
    people = _people(tmp_path)
    augmentation = Augmentation(
        scale=0, rotation=0, shift=0, flip=False, half_body=1, colour=0, cutout=0
    )
    examples = _examples(people, augmentation)
    lower = np.arange(17) >= 11
    seen = set()
    for epoch in range(30):
        examples.epoch = epoch
        points = examples[0]["points"].numpy()
        inside: NDArray[np.bool_] = np.all((points >= 0) & (points < SIZE), axis=1)
        assert inside[lower].all() or inside[~lower].all()
        spread = np.ptp(points[lower if inside[lower].all() else ~lower], axis=0)
        assert (spread / SIZE).max() > 0.5
        seen.add(bool(inside[~lower].all()))
    assert seen == {True, False}
    # With too few joints to tell the halves apart, the whole person is cut.
    few = _people(tmp_path, keypoints=[*row(1)["keypoints"][:24], *[0] * 27])
    plain, half = _examples(few, STILL)[0], _examples(few, augmentation)[0]
    assert torch.equal(plain["points"], half["points"])


def test_colours_change_and_joints_do_not(tmp_path: Path) -> None:
    people = _people(tmp_path)
    plain = _examples(people, STILL)[0]
    for share in ({"colour": 0.5}, {"cutout": 1.0}):
        augmentation = Augmentation(
            **{**{f: getattr(STILL, f) for f in Augmentation.__slots__}, **share}
        )
        example = _examples(people, augmentation)[0]
        assert torch.equal(example["points"], plain["points"])
        assert example["crop"].dtype == torch.uint8
        changed = (example["crop"] != plain["crop"]).any(-1).numpy()
        assert changed.any()
        if "cutout" in share:
            # One rectangle, of at most an eighth of the crop.
            rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
            area = np.ptp(rows) * np.ptp(columns)
            assert changed.sum() > 0.5 * area
            assert 0.01 < area / changed.size < 0.125


def test_a_photo_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    people = _people(tmp_path)
    people[0].image.write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"1\.png cannot be read"):
        _ = _examples(people, None)[0]


# The teacher's maps


def _bumps(people: Sequence[LabelledPerson], file: Path) -> Path:
    """What a perfect teacher saw of each person's plain crop."""
    columns, rows = np.arange(GRID[0]), np.arange(GRID[1])[:, None]
    maps = np.zeros((len(people), 17, GRID[1], GRID[0]), np.float16)
    for number, person in enumerate(people):
        points = plain_crop(person).to_crop(person.points)
        cells = points * (np.array(GRID) - 1) / (np.array(TEACHER_SIZE) - 1)
        for joint, (x, y) in enumerate(cells):
            maps[number, joint] = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 8)
    np.save(file, maps)
    return file


@pytest.mark.parametrize("matrix", ["legacy", "udp"])
def test_the_teacher_s_maps_move_with_the_crop(tmp_path: Path, matrix: CropMatrix) -> None:
    people = _people(tmp_path)
    teacher = _bumps(people, tmp_path / "teacher.npy")
    # Half a body enlarged shows the teacher's cells, a cell of its own is then not to be had.
    moving = Augmentation(colour=0, cutout=0, half_body=0)
    examples = _examples(people, moving, matrix=matrix, teacher=teacher)
    pitch = (np.array(SIZE) - 1) / (np.array(GRID) - 1)
    columns, rows = np.arange(GRID[0]), np.arange(GRID[1])
    peaks, centers, widths = [], [], []
    for epoch in range(30):
        examples.epoch = epoch
        example = examples[0]
        points, maps = example["points"].numpy(), example["maps"].numpy()
        assert maps.dtype == np.float32
        assert maps.shape == (17, 64, 48)
        cells = points / pitch
        for joint in np.flatnonzero(((cells >= 1) & (cells <= np.array(GRID) - 2)).all(1)):
            map_, (x, y) = maps[joint], cells[joint]
            row_, column = np.unravel_index(map_.argmax(), map_.shape)
            peaks.append(max(abs(x - column), abs(y - row_)))
            assert map_.max() > 0.85
            if min(x, y, GRID[0] - 1 - x, GRID[1] - 1 - y) > 10:
                mean = [map_.sum(0) @ columns, map_.sum(1) @ rows] / map_.sum()
                centers.append(np.abs(mean - cells[joint]).max())
                widths.append(math.sqrt(map_.sum(0) @ (columns - mean[0]) ** 2 / map_.sum()))
    assert len(peaks) > 200
    assert max(peaks) <= 1.3
    assert len(centers) > 100
    # Nothing but the maps' own resampling: no half cell lost between the two grids.
    assert max(centers) < 0.1
    # As wide as a label, however large people are in the crop.
    assert 1.9 < min(widths) <= max(widths) < 2.2


def test_where_the_teacher_saw_nothing_its_maps_are_empty(tmp_path: Path) -> None:
    people = _people(tmp_path)
    file = tmp_path / "teacher.npy"
    np.save(file, np.ones((1, 17, 64, 48), np.float16))
    wide = Augmentation(scale=0, rotation=0, shift=0.6, flip=False, half_body=0, colour=0, cutout=0)
    examples = _examples(people, wide, teacher=file)
    assert _examples(people, STILL, teacher=file)[0]["maps"].min() == pytest.approx(1, abs=1e-3)
    maps = examples[0]["maps"]
    assert maps.min() == 0
    assert maps.max() == pytest.approx(1, abs=1e-3)


def test_a_teacher_of_other_people_is_refused(tmp_path: Path) -> None:
    people = _people(tmp_path)
    teacher = _bumps(people, tmp_path / "teacher.npy")
    with pytest.raises(ValueError, match=r"teacher\.npy holds 1 people, the set 2"):
        _examples(people * 2, None, teacher=teacher)
