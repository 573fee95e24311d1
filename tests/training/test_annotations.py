import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.geometry import Box
from models.keypoints import COCO17, LSP14
from tests.training.sets import BOX, HEIGHT, JOINTS, WIDTH, row, write_set
from training.data.annotations import LabelledSet, read_people
from training.data.split import is_dev


def _read(folder: Path, rows: list[Any], **how: Any) -> LabelledSet:  # noqa: ANN401
    return read_people(*write_set(folder, rows, photos=2), COCO17, **how)


def _joint(number: int, *values: float) -> list[float]:
    """The labels with one joint's x, y, visibility replaced."""
    labels: list[float] = row(1)["keypoints"]
    labels[3 * number : 3 * number + 3] = values
    return labels


def test_a_person_is_read_as_it_is_labelled(tmp_path: Path) -> None:
    (person,) = _read(tmp_path, [row(1, id=7, image_id=2, keypoints=_joint(3, 5, 6, 1))]).people
    assert person.image == tmp_path / "images" / "2.png"
    assert (person.image_id, person.annotation_id) == (2, 7)
    # Clipped as COCO does, one pixel narrower.
    assert person.box == Box(BOX[0], BOX[1], BOX[2] - 1, BOX[3] - 1)
    expected = JOINTS.copy()
    expected[3] = 5, 6
    np.testing.assert_array_equal(person.points, expected)
    assert person.visibility.tolist() == [2, 2, 2, 1] + [2] * 13


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"iscrowd": 1}, "crowd region"),
        ({"image_id": 3}, "unknown image"),
        ({"image_id": None}, "unknown image"),
        ({"image_id": [1]}, "unknown image"),
        ({"id": None}, "no id"),
        ({"id": "1"}, "no id"),
        ({"id": 1}, "duplicate id"),
        ({"bbox": None}, "numbers missing or not finite"),
        ({"bbox": [1, 2, 3]}, "numbers missing or not finite"),
        ({"bbox": [1, 2, 3, "4"]}, "numbers missing or not finite"),
        ({"bbox": [1, 2, 3, float("nan")]}, "numbers missing or not finite"),
        ({"bbox": [1, 2, float("inf"), 4]}, "numbers missing or not finite"),
        ({"bbox": [1, 2, 10**400, 4]}, "numbers missing or not finite"),
        ({"bbox": [WIDTH, 0, 50, 50]}, "box outside the image"),
        ({"bbox": [0, HEIGHT + 5, 50, 50]}, "box outside the image"),
        ({"bbox": [10, 10, 0, 0]}, "box outside the image"),
        ({"bbox": [10, 10, -5, 30]}, "box outside the image"),
        ({"bbox": [10, 10, 20, 30]}, "too small"),
        ({"keypoints": "left"}, "numbers missing or not finite"),
        ({"keypoints": [1, 2, 2] * 16}, "numbers missing or not finite"),
        ({"keypoints": [1, 2, 2] * 16 + [1, 2]}, "numbers missing or not finite"),
        ({"keypoints": _joint(0, float("nan"), 5, 2)}, "numbers missing or not finite"),
        ({"keypoints": _joint(16, 5, 5, -1)}, "visibility other than 0, 1 and 2"),
        ({"keypoints": _joint(16, 5, 5, 300)}, "visibility other than 0, 1 and 2"),
        ({"keypoints": [0.0] * 51}, "no labelled joint"),
        ({"keypoints": None}, "no labelled joint"),
        ({"keypoints": []}, "no labelled joint"),
    ],
)
def test_a_row_that_cannot_be_used_is_counted_by_its_reason(
    tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    rows = [row(1), row(2, **change)]
    found = _read(tmp_path, rows, smallest=32)
    assert [person.annotation_id for person in found.people] == [1]
    assert found.rejected == {reason: 1}


@pytest.mark.parametrize("bad", [None, 5, "row", [], {}])
def test_a_row_that_is_none_is_counted(tmp_path: Path, bad: object) -> None:
    found = _read(tmp_path, [bad, row(1)])
    assert (len(found.people), found.rejected) == (1, {"no id": 1})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda photo: photo.update(file_name="gone.png"), "missing file"),
        (lambda photo: photo.update(file_name="../people.json"), "missing file"),
        (lambda photo: photo.pop("file_name"), "missing file"),
        (lambda photo: photo.pop("width"), "numbers missing or not finite"),
        (lambda photo: photo.update(height="tall"), "numbers missing or not finite"),
    ],
)
def test_a_photo_that_cannot_be_used_is_counted(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], reason: str
) -> None:
    file, images = write_set(tmp_path, [row(1), row(2)], photos=2)
    content = json.loads(file.read_text())
    change(content["images"][1])
    file.write_text(json.dumps(content))
    found = read_people(file, images, COCO17)
    assert (len(found.people), found.rejected) == (1, {reason: 1})


@pytest.mark.parametrize(
    ("point", "inside"),
    [((-1, 5), True), ((-1.1, 5), False), ((WIDTH, HEIGHT), True), ((5, HEIGHT + 0.1), False)],
)
def test_a_joint_labelled_outside_its_photo_is_not_labelled(
    tmp_path: Path, point: tuple[float, float], inside: bool
) -> None:
    (person,) = _read(tmp_path, [row(1, keypoints=_joint(4, *point, 2))]).people
    assert person.visibility[4] == (2 if inside else 0)
    assert person.visibility.sum() == 2 * 16 + (2 if inside else 0)


def test_people_whom_nobody_labelled_are_read_where_they_are_wanted(tmp_path: Path) -> None:
    rows = [row(1, keypoints=[0] * 51), row(2)]
    assert len(_read(tmp_path, rows).people) == 1
    everyone = _read(tmp_path, rows, unlabelled=True)
    assert len(everyone.people) == 2
    assert not everyone.people[0].visibility.any()


def test_only_wanted_photos_are_read(tmp_path: Path) -> None:
    found = _read(tmp_path, [row(1), row(2)], wanted=lambda image_id: image_id == 2)
    assert [person.image_id for person in found.people] == [2]
    assert found.rejected == {}


def test_joints_are_found_by_name_in_any_order(tmp_path: Path) -> None:
    names = ["left_wrist", "tail", "nose"]
    labels = [11, 12, 2, 21, 22, 2, 31, 32, 1]
    file, images = write_set(tmp_path, [row(1, keypoints=labels)], names=names)
    (person,) = read_people(file, images, COCO17).people
    assert np.flatnonzero(person.visibility).tolist() == [0, 9]
    assert person.points[[0, 9]].tolist() == [[31, 32], [11, 12]]
    with pytest.raises(ValueError, match="has no joint of lsp14"):
        read_people(*write_set(tmp_path, [row(1)], names=["nose"]), LSP14)


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"images": [], "categories": []}'])
def test_a_file_that_is_no_set_is_refused_by_name(tmp_path: Path, text: str) -> None:
    file, images = write_set(tmp_path, [])
    file.write_text(text)
    with pytest.raises(ValueError, match=r"people\.json is not a COCO-style keypoint file"):
        read_people(file, images, COCO17)


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "split", "people", "crowds"),
    [
        ("coco", "person_keypoints_train", 4904, 162),
        ("coco", "person_keypoints_val", 1085, 30),
        ("lspet", "train", 1000, 0),
        ("lspet", "val", 400, 0),
    ],
)
def test_the_sets_hold_the_people_they_are_known_to(
    data: Path, name: str, split: str, people: int, crowds: int
) -> None:
    folder = data / name
    found = read_people(folder / "annotations" / f"{split}.json", folder / "images", COCO17)
    assert len(found.people) == people
    assert found.rejected["crowd region"] == crowds
    assert set(found.rejected) <= {"crowd region", "no labelled joint"}


def test_a_tenth_of_the_images_is_dev_by_their_ids_alone() -> None:
    dev = [image_id for image_id in range(20000) if is_dev(image_id)]
    assert 0.09 < len(dev) / 20000 < 0.11
    # Pinned: another split would compare new weights with old ones on what the old ones learnt.
    assert dev[:5] == [4, 42, 52, 53, 84]
