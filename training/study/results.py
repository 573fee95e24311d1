"""What a study has found so far: a file for each system, so that it can end at any moment."""

from __future__ import annotations

from pathlib import Path

from models.files import write_whole
from models.strict import Strict
from training.study.config import Study, System


class Row(Strict):
    """How a system read one way did.

    Attributes:
        decode: of its head.
        resolution: of NerPE's lattice.
        ap: COCO's, boxes of the labels, no flip; likewise `ap50`.
        ap50: at a similarity of 0.5.
        pck05: the share of labelled joints within 0.05 of their person's size, the square root of
            the box's area; likewise `pck10`.
        pck10: within 0.1.
        error: the median joint's distance over that size.
    """

    decode: str
    resolution: int | None
    ap: float
    ap50: float
    pck05: float
    pck10: float
    error: float


class Cost(Strict):
    """What reading one way costs, on the swept photos.

    Attributes:
        decode: of the head.
        resolution: of NerPE's lattice.
        relative: seconds a crop from features to joints, over those from pixels to features.
        pck05: as in `Row`, on the same photos.
        error: likewise.
    """

    decode: str
    resolution: int | None
    relative: float
    pck05: float
    error: float


class Result(Strict):
    """Of one system.

    Attributes:
        system: which.
        parameters: of the network.
        crops: it was trained on, the same person as often as there were epochs.
        people: measured on.
        rows: one for each way to read it.
        costs: likewise, of the first seed alone.
    """

    system: System
    parameters: int
    crops: int
    people: int
    rows: tuple[Row, ...]
    costs: tuple[Cost, ...] = ()


def result_file(study: Study, system: System) -> Path:
    """Where a system's result lies once it is whole."""
    return study.folder / system.name / "result.json"


def write_result(study: Study, result: Result) -> None:
    """Whole or not at all."""
    write_whole(result_file(study, result.system), result.model_dump_json(indent=1) + "\n")


def read_result(study: Study, system: System) -> Result | None:
    """A system's; None where it is not done, or was not read in every way that the study asks."""
    file = result_file(study, system)
    if not file.exists():
        return None
    result = Result.model_validate_json(file.read_text())
    read = {(row.decode, row.resolution) for row in result.rows}
    asked = {(choice.decode, choice.resolution) for choice in study.readings(system.head)}
    return result if asked <= read else None


def read_results(study: Study) -> list[Result]:
    """Of the systems that are done, in the study's order."""
    found = [read_result(study, system) for system in study.systems]
    return [result for result in found if result]
