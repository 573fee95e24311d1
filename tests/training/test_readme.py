from pathlib import Path

import pytest

from models.bundle import BUNDLES, load_bundle
from training.errors import DataError
from training.evaluation import Evaluation
from training.readme import BEGIN, END, heads_table, write_readme

README = Path(__file__).parents[2] / "README.md"


@pytest.mark.parametrize("folder", sorted(BUNDLES.glob("pose-*")), ids=lambda folder: folder.name)
def test_the_readme_says_what_was_measured(folder: Path, tmp_path: Path) -> None:
    evaluation = Evaluation.model_validate_json((folder / "evaluation.json").read_bytes())
    bundle = load_bundle(folder)
    assert evaluation.weights == bundle.digest
    assert heads_table(evaluation, bundle.pose) in README.read_text()
    copy = tmp_path / "README.md"
    copy.write_text(f"before\n{BEGIN.format(folder.name)}\nold\n{END}\nafter\n")
    write_readme(copy, folder)
    written = copy.read_text()
    assert "old" not in written
    assert heads_table(evaluation, bundle.pose) in written
    assert written.startswith("before\n")
    assert written.endswith("\nafter\n")


def test_a_readme_without_a_place_for_the_bundle_is_refused(tmp_path: Path) -> None:
    copy = tmp_path / "README.md"
    copy.write_text("nothing")
    with pytest.raises(DataError, match="figures of pose-s"):
        write_readme(copy, BUNDLES / "pose-s")
