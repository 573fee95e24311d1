"""What training needs before its first step: checked sets, and what the teachers see of them."""

from __future__ import annotations

from rich.table import Table

from models.keypoints import COCO17
from training.config import DataSource, Experiment
from training.data.annotations import LabelledSet, read_people
from training.data.images import is_whole
from training.data.split import is_dev
from training.errors import DataError
from training.progress import console
from training.teacher_maps import find_maps, make_maps


def prepare(experiment: Experiment) -> None:
    """Read every set of an experiment, say what cannot be used and why, and run the teachers.

    Raises:
        DataError: a file is not a COCO-style one, a set has no one left, or what the teachers saw
            is there already and is of other people or other teachers.
    """
    experiment.folder.mkdir(parents=True, exist_ok=True)
    columns = ("set", "split", "people", "labelled", "left out", "mended")
    table = Table(*columns, title=experiment.name)
    sets = [read_source(source) for source in (*experiment.train, experiment.dev)]
    for source, found in zip((*experiment.train, experiment.dev), sets, strict=True):
        if not found.people:
            raise DataError(f"{source.annotations} has no one to learn from: {found.rejected}")
        labelled = sum(bool(person.visibility.any()) for person in found.people)
        table.add_row(
            source.annotations.stem, source.split, str(len(found.people)), str(labelled),
            *(", ".join(f"{count} {reason}" for reason, count in counts.items())
              for counts in (found.rejected, found.mended)),
        )  # fmt: skip
    console.print(table)
    if experiment.teachers is None:
        return
    for number, found in enumerate(sets[:-1]):
        if experiment.teacher_file(number).exists():
            console.print(f"{find_maps(experiment, number, len(found.people))} is there already")
        else:
            make_maps(experiment, number, found.people)


def read_source(source: DataSource) -> LabelledSet:
    """The people of one set and split whose photos can be read."""

    def wanted(image_id: int) -> bool:
        return source.split == "all" or is_dev(image_id) == (source.split == "dev")

    found = read_people(
        source.annotations,
        source.images,
        COCO17,
        wanted=wanted,
        unlabelled=source.unlabelled,
        smallest=source.smallest,
    )
    # Now, for preparation and training alike: a photo that cannot be read would end a run in its
    # middle, and the teachers' rows are the people's.
    whole = {path: is_whole(path) for path in {person.image for person in found.people}}
    kept = [person for person in found.people if whole[person.image]]
    if len(kept) < len(found.people):
        found.rejected["broken picture"] = len(found.people) - len(kept)
    found.people = kept
    return found
