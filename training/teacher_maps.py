"""The file of what the teachers saw of a training set, and whether it is of this set and them."""

from __future__ import annotations

from pathlib import Path

from models.files import write_whole
from models.strict import Strict
from training.config import Experiment
from training.data.annotations import LabelledPerson
from training.errors import DataError
from training.pack_manifest import differs, digest_of, others
from training.progress import console
from training.teacher import observe


class Origin(Strict):
    """What the maps are made of: `teacher-N.json`, beside `teacher-N.npy`.

    Attributes:
        people: how many.
        annotations_sha256: of the file that they were read from.
        teachers_sha256: of the teachers' files, in their order.
    """

    people: int
    annotations_sha256: str | None
    teachers_sha256: tuple[str | None, ...]


def make_maps(experiment: Experiment, number: int, people: list[LabelledPerson]) -> None:
    """Run the teachers over a training set, from where an interrupted call of the same stopped."""
    assert experiment.teachers
    file = experiment.teacher_file(number)
    origin = Origin(
        people=len(people),
        annotations_sha256=digest_of(experiment.train[number].annotations),
        teachers_sha256=tuple(map(digest_of, experiment.teachers.files)),
    )
    if _origin(file) != origin:
        # Rows of other people or teachers are not gone on with.
        file.with_suffix(".done").unlink(missing_ok=True)
        write_whole(file.with_suffix(".json"), origin.model_dump_json(indent=2) + "\n")
    observe(people, experiment.teachers.files, file)


def find_maps(experiment: Experiment, number: int, people: int) -> Path:
    """The file of a training set's maps.

    Raises:
        DataError: it was made of other people or by other teachers, as far as their files are here
            to compare.
    """
    assert experiment.teachers
    file, annotations = experiment.teacher_file(number), experiment.train[number].annotations
    origin = _origin(file)
    if origin is None:
        console.print(f"{file} has no note of what it was made of: it is taken as it is")
        return file
    if origin.people != people or differs(annotations, origin.annotations_sha256):
        reason = f"the people of {annotations} as they are chosen now"
    elif others(experiment.teachers.files, origin.teachers_sha256):
        reason = "what these teachers see"
    else:
        return file
    raise DataError(f"{file} does not hold {reason}: remove it and `prepare` again")


def _origin(file: Path) -> Origin | None:
    note = file.with_suffix(".json")
    return Origin.model_validate_json(note.read_bytes()) if note.exists() else None
