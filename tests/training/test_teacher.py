from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from models.bundle import BUNDLES
from models.keypoints import COCO17
from models.pixels import IMAGENET
from tests.training.sets import row, write_set
from training import teacher
from training.config import DataSource, Experiment, HeadPhase, Schedule, Serving, Teachers
from training.data.annotations import LabelledPerson, read_people
from training.data.images import read_image
from training.errors import DataError
from training.pack import write_packs
from training.prepare import prepare
from training.progress import console
from training.teacher import GRID, observe, plain_crop
from training.train import training_data

MIRROR = list(COCO17.mirror)


class Session:
    """A teacher that sees joint k at a cell of its own, on whichever crop: it cannot tell."""

    crops = 0
    fails_after: float = float("inf")

    def __init__(self, path: Path, options: object = None) -> None:
        self.value = float(path.name)

    def run(self, outputs: list[str], inputs: dict[str, NDArray[np.float32]]) -> list[Any]:
        assert outputs == ["heatmap"]
        crops = inputs["image"]
        assert crops.dtype == np.float32
        assert crops.shape[1:] == (3, 256, 192)
        Session.crops += len(crops)
        if Session.crops > Session.fails_after:
            raise RuntimeError("the power went")
        maps = np.zeros((len(crops), 17, GRID[1], GRID[0]), np.float32)
        for joint in range(17):
            maps[:, joint, joint, joint] = self.value
        # And something of the pixels, so that every row differs.
        maps[:, :, -1, :] = crops.mean((1, 2, 3))[:, None, None]
        return [maps]


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> type[Session]:
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    monkeypatch.setattr(Session, "crops", 0)
    monkeypatch.setattr(Session, "fails_after", float("inf"))
    return Session


def _people(folder: Path, count: int) -> list[LabelledPerson]:
    rows = [row(n, bbox=[60, 40, 30 + n % 19 * 8, 60 + n % 19 * 10]) for n in range(count)]
    for annotation in rows:
        annotation["image_id"] = 1
    return read_people(*write_set(folder, rows), COCO17).people


@pytest.mark.usefixtures("session")
def test_what_is_kept_is_the_mean_of_the_teachers_and_of_the_mirror_image(tmp_path: Path) -> None:
    output = tmp_path / "seen.npy"
    observe(_people(tmp_path, 3), [Path("0.2"), Path("0.6")], output)
    maps = np.load(output)
    assert maps.shape == (3, 17, 64, 48)
    assert maps.dtype == np.float16
    expected = np.zeros((17, 63, 48))
    for joint in range(17):
        expected[joint, joint, joint] += 0.4 / 2
        # In the mirrored crop it was taken for its mirror joint, from the other side.
        expected[joint, MIRROR[joint], 47 - MIRROR[joint]] += 0.4 / 2
    for seen in maps:
        np.testing.assert_allclose(seen[:, :-1], expected, atol=1e-3)


def test_rows_are_in_the_order_of_the_people(tmp_path: Path, session: type[Session]) -> None:
    people = _people(tmp_path, 19)
    observe(people, [Path("1")], tmp_path / "seen.npy")
    maps = np.load(tmp_path / "seen.npy")
    assert session.crops == 2 * 19
    means = [IMAGENET(plain_crop(p).cut(read_image(p.image))[None]).mean() for p in people]
    np.testing.assert_allclose(maps[:, 0, -1, 0], means, atol=2e-3)
    assert len(set(maps[:, 0, -1, 0].tolist())) > 10


def test_an_interrupted_look_goes_on_where_it_stopped(
    tmp_path: Path, session: type[Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teacher, "BATCH", 1)
    people = _people(tmp_path, 70)
    whole = tmp_path / "whole.npy"
    observe(people, [Path("1")], whole)
    session.crops, session.fails_after = 0, 2 * 66
    output = tmp_path / "seen.npy"
    with pytest.raises(RuntimeError, match="the power went"):
        observe(people, [Path("1")], output)
    assert not output.exists()
    session.crops, session.fails_after = 0, float("inf")
    observe(people, [Path("1")], output)
    # What was on the disk is not looked at again.
    assert session.crops == 2 * (70 - 64)
    np.testing.assert_array_equal(np.load(output), np.load(whole))
    assert sorted(path.suffix for path in tmp_path.iterdir() if path.is_file()) == [
        ".json", ".npy", ".npy",
    ]  # fmt: skip


def test_a_bundle_teaches_where_its_maps_lie_alike(tmp_path: Path) -> None:
    people = _people(tmp_path, 2)
    with pytest.raises(DataError, match="48 x 64 cells in crops of 192 x 256"):
        observe(people, [BUNDLES / "pose-t"], tmp_path / "seen.npy")


Configure = Callable[..., Experiment]


@pytest.fixture
def configure(tmp_path: Path) -> Configure:
    """An experiment with so many people and this one teacher, of the same name each time."""

    def build(people: int = 3, teacher: str = "weights", width: int = 80) -> Experiment:
        rows = [row(n, image_id=1, bbox=[60, 40, width, 120]) for n in range(people)]
        file, images = write_set(tmp_path, rows)
        (tmp_path / "1").write_text(teacher)
        source = DataSource(annotations=file, images=images, split="all")
        return Experiment(
            name="tiny", runs=tmp_path, train=[source], dev=source,
            teachers=Teachers(files=[tmp_path / "1"]),
            schedule=Schedule(steps=1, batch=2), warm_up=HeadPhase(passes=0),
            serving=Serving(data="painted", start="nothing"),
        )  # fmt: skip

    return build


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"people": 4}, "the people of .*people.json as they are chosen now"),
        ({"width": 90}, "the people of .*people.json as they are chosen now"),
        ({"teacher": "other weights"}, "what these teachers see"),
    ],
)
@pytest.mark.usefixtures("session")
def test_maps_of_something_else_are_refused(
    configure: Configure, changes: dict[str, Any], reason: str
) -> None:
    prepare(configure())
    prepare(configure())
    assert len(training_data(configure())) == 3
    changed = configure(**changes)
    for use in (prepare, training_data, lambda experiment: list(write_packs(experiment))):
        with pytest.raises(DataError, match=f"does not hold {reason}: remove it and `prepare` aga"):
            use(changed)
    changed.teacher_file(0).unlink()
    prepare(changed)
    assert len(training_data(changed)) == changes.get("people", 3)


@pytest.mark.usefixtures("session")
def test_maps_are_looked_at_as_far_as_what_they_were_made_of_is_here(configure: Configure) -> None:
    experiment = configure()
    prepare(experiment)
    (weights,) = experiment.teachers.files if experiment.teachers else []
    weights.unlink()
    training_data(experiment)
    # As they were before they had a note.
    experiment.teacher_file(0).with_suffix(".json").unlink()
    with console.capture() as said:
        training_data(configure(teacher="other weights"))
    assert "has no note of what it was made of" in " ".join(said.get().split())
    with pytest.raises(DataError, match="holds 3 people, the set 4"):
        training_data(configure(people=4))


@pytest.mark.parametrize("changes", [{"people": 69}, {"width": 90}, {"teacher": "other"}])
def test_an_interrupted_look_at_something_else_is_begun_anew(
    configure: Configure,
    session: type[Session],
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
) -> None:
    monkeypatch.setattr(teacher, "BATCH", 1)
    session.fails_after = 2 * 66
    with pytest.raises(RuntimeError, match="the power went"):
        prepare(configure(people=70))
    session.crops, session.fails_after = 0, float("inf")
    changed = configure(**{"people": 70, **changes})
    prepare(changed)
    people = changes.get("people", 70)
    assert session.crops == 2 * people
    assert np.load(changed.teacher_file(0)).shape[0] == people


@pytest.mark.data
def test_the_teachers_see_most_joints_where_they_are_labelled(data: Path, tmp_path: Path) -> None:
    folder = data / "coco"
    found = read_people(
        folder / "annotations" / "person_keypoints_val.json",
        folder / "images",
        COCO17,
        smallest=200,
    )
    people = [person for person in found.people if (person.visibility == 2).sum() > 10][:4]
    observe(people, [data / "models" / "teacher" / "tinypose_256x192.onnx"], tmp_path / "seen.npy")
    near = []
    for person, maps in zip(people, np.load(tmp_path / "seen.npy"), strict=True):
        row_, column = np.unravel_index(maps.reshape(17, -1).argmax(1), (GRID[1], GRID[0]))
        cells = np.stack([column, row_], axis=-1) * [191 / 47, 255 / 63]
        distance = np.linalg.norm(cells - plain_crop(person).to_crop(person.points), axis=-1)
        near += (distance < 20)[person.visibility == 2].tolist()
    assert np.mean(near) > 0.8
