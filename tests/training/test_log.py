from pathlib import Path

import pytest

from models.networks.pose import HEADS
from training.errors import DataError
from training.log import COLUMNS, begin_log, read_log, training_seconds

HEADER = ",".join((*COLUMNS, *HEADS))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Of a run that was cut off in step 5, whose last checkpoint is of step 3."""
    path = tmp_path / "log.csv"
    rows = [f"{step},{10.0 * step},3,2,1" for step in range(1, 5)]
    path.write_text("\n".join([HEADER, *rows, "5,50"]))
    return path


def test_steps_after_the_last_checkpoint_are_taken_again(log: Path) -> None:
    begin_log(log, 3)
    assert read_log(log)["step"].tolist() == [1, 2, 3]
    with log.open("a") as file:
        file.write("4,8.0,3,2,1\n")
    assert read_log(log)["step"].tolist() == [1, 2, 3, 4]
    assert training_seconds(read_log(log)) == 38


def test_columns_that_are_no_longer_taken_stay_and_new_ones_follow(log: Path) -> None:
    assert begin_log(log, 3, ["simcc", "ap_simcc"]) == (*HEADS, "ap_simcc")
    assert begin_log(log, 2, HEADS[:1]) == (*HEADS, "ap_simcc")
    lines = log.read_text().splitlines()
    assert lines == [f"{HEADER},ap_simcc", "1,10.0,3,2,1,", "2,20.0,3,2,1,"]


@pytest.mark.parametrize("there", [True, False])
def test_a_run_that_begins_has_an_empty_log(log: Path, there: bool) -> None:
    if not there:
        log.unlink()
    begin_log(log, 0)
    assert log.read_text() == f"{HEADER}\n"
    with pytest.raises(DataError, match="no whole line"):
        read_log(log)


def test_a_step_that_was_cut_off_does_not_count(log: Path) -> None:
    assert read_log(log)["step"].tolist() == [1, 2, 3, 4]
