from pathlib import Path

import pytest

from tests.training.sets import JOINTS, row, write_set
from training.config import DataSource, Experiment, Schedule, Serving
from training.data.images import is_whole, read_image
from training.errors import DataError
from training.prepare import prepare, read_source
from training.progress import console


def _bad(folder: Path) -> DataSource:
    """One of each mistake, and one person without."""
    joints = [value for x, y in JOINTS.tolist() for value in (x, y, 2)]
    astray = [-50.0, 10.0, 2, 10.0, 5000.0, 1, *joints[6:]]
    rows = [
        row(1),
        row(2),
        row(3, keypoints=[float("nan"), *joints[1:]]),
        row(4, bbox=[900.0, 10.0, 20.0, 20.0]),
        row(1),
        row(5, keypoints=astray),
        row(6),
        row(7),
        row(99),
    ]
    file, images = write_set(folder, rows, photos=7)
    whole = (images / "2.png").read_bytes()
    (images / "2.png").write_bytes(whole[: len(whole) // 2])
    (images / "6.png").unlink()
    (images / "7.png").write_bytes(b"")
    return DataSource(annotations=file, images=images, split="all")


def test_every_kind_of_bad_data_is_counted_and_left_out(tmp_path: Path) -> None:
    found = read_source(_bad(tmp_path))
    assert [person.annotation_id for person in found.people] == [1, 5]
    assert found.rejected == {
        "broken picture": 2, "numbers missing or not finite": 1, "box outside the image": 1,
        "duplicate id": 1, "missing file": 1, "unknown image": 1,
    }  # fmt: skip
    assert found.mended == {"joint outside the image": 2}
    assert found.people[1].visibility.tolist() == [0, 0] + [2] * 15
    for person in found.people:
        read_image(person.image)


def _experiment(tmp_path: Path, source: DataSource) -> Experiment:
    return Experiment(
        name="tiny", runs=tmp_path, train=[source], dev=source, schedule=Schedule(steps=1),
        serving=Serving(data="painted", start="nothing"),
    )  # fmt: skip


def test_preparation_says_what_was_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(console, "width", 300)
        with console.capture() as capture:
            prepare(_experiment(tmp_path, _bad(tmp_path / "bad")))
        said.append(capture.get())
    for reason in ("2 broken picture", "1 duplicate id", "2 joint outside the image"):
        assert reason in said[0]


def test_a_set_of_which_nothing_is_left_is_refused(tmp_path: Path) -> None:
    file, images = write_set(tmp_path / "none", [row(1, bbox=[900.0, 10.0, 20.0, 20.0])])
    source = DataSource(annotations=file, images=images, split="all")
    with pytest.raises(DataError, match="no one to learn from"):
        prepare(_experiment(tmp_path, source))


@pytest.mark.data
def test_every_photo_of_the_set_is_whole_and_none_is_when_cut(data: Path, tmp_path: Path) -> None:
    photos = sorted((data / "coco" / "images").iterdir())[:50]
    assert all(map(is_whole, photos))
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(photos[0].read_bytes()[:-2000])
    assert not is_whole(cut)
