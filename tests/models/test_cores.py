import os
from pathlib import Path

import pytest

from models.cores import available_cores

MINE = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("quota", "cores"),
    [
        ("max 100000", MINE),
        ("100000 100000", 1),
        ("50000 100000", 1),
        (f"{MINE * 100000 - 1} 100000", MINE),
        ("99900000 100000", MINE),
        ("nonsense", MINE),
    ],
)
def test_a_quota_bounds_the_cores(tmp_path: Path, quota: str, cores: int) -> None:
    (tmp_path / "cpu.max").write_text(f"{quota}\n")
    assert available_cores(tmp_path) == cores


def test_without_a_control_group_all_are_there(tmp_path: Path) -> None:
    assert available_cores(tmp_path) == MINE
