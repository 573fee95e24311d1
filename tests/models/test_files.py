import shutil
from pathlib import Path

import pytest

from models.files import replacing, write_whole


def test_a_file_is_written_with_its_folder_and_nothing_else(tmp_path: Path) -> None:
    write_whole(tmp_path / "new" / "out.txt", "text")
    write_whole(tmp_path / "new" / "out.txt", b"other")
    assert (tmp_path / "new" / "out.txt").read_bytes() == b"other"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out.txt"]


def test_a_file_that_cannot_be_written_whole_stays_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out.json"
    target.write_text("before")
    whole = Path.write_bytes

    def full_disk(path: Path, data: bytes) -> int:
        whole(path, data[: len(data) // 2])
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_whole(target, b"after")
    assert target.read_text() == "before"
    assert list(tmp_path.iterdir()) == [target]


def test_a_draft_takes_the_files_place_only_when_all_went_well(tmp_path: Path) -> None:
    target = tmp_path / "weights.pt"
    with replacing(target) as draft:
        draft.write_text("one")
        assert not target.exists()
    assert target.read_text() == "one"
    with pytest.raises(FileNotFoundError), replacing(target) as draft:
        shutil.copy(tmp_path / "nowhere", draft)
    assert target.read_text() == "one"
    assert list(tmp_path.iterdir()) == [target]
