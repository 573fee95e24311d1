"""A bundle takes its place whole, or what was there stays."""

import shutil
from pathlib import Path

import pytest

from models.bundle import BUNDLES, BundleError, load_bundle
from models.install import drafting, free_place, install


def put(folder: Path, *, replace: bool = False) -> Path:
    with drafting(folder, "theirs.zip") as draft:
        shutil.copytree(BUNDLES / "person-n", draft, dirs_exist_ok=True)
        return install(draft, folder, replace=replace).path


def test_what_is_replaced_comes_back_where_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = put(tmp_path)
    (place / "CARD.md").write_text("the first")
    rename = Path.rename

    def interrupted(self: Path, target: Path) -> Path:
        if target == place and self.name == "theirs.zip":
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        put(tmp_path, replace=True)
    assert (place / "CARD.md").read_text() == "the first"
    assert list(tmp_path.iterdir()) == [place]
    monkeypatch.undo()
    put(tmp_path, replace=True)
    assert (place / "CARD.md").read_text() != "the first"
    assert list(tmp_path.iterdir()) == [place]
    load_bundle(place)


def test_a_folder_among_the_served_is_itself_however_it_is_spelt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = put(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert free_place(place.name, Path(), among=[tmp_path], replace=True) == Path(place.name)
    with pytest.raises(BundleError, match="has that name already"):
        free_place(place.name, Path("other"), among=[Path("other"), tmp_path])
