from pathlib import Path

import pytest

from models.bundle import BUNDLES, BundleError
from models.detectors import load_detector
from service import catalog
from service.catalog import Catalog, load_catalog
from service.problems import UnknownDetector, UnknownModel
from service.settings import Settings
from tests.fakes import FakeDetector


@pytest.fixture(scope="module")
def committed() -> Catalog:
    return load_catalog(Settings())


def test_the_committed_bundles_are_the_defaults(committed: Catalog) -> None:
    assert committed.model(None).name == "pose-s"
    assert committed.detector(None).name == "person-n"
    assert committed.detector("whole").bundle is None
    assert committed.model(None).engine.device == "cpu"


def test_names_that_are_not_served_are_unknown(committed: Catalog) -> None:
    with pytest.raises(UnknownModel, match="pose-s"):
        committed.model("person-n")
    with pytest.raises(UnknownDetector, match="whole"):
        committed.detector("pose-s")


def test_a_default_that_is_not_there_is_refused_by_its_setting() -> None:
    with pytest.raises(BundleError, match=r"SUBPOSE_DETECTOR.*'nobody'"):
        load_catalog(Settings(detector="nobody"))


@pytest.mark.parametrize("wrong", [{"model": "none"}, {"detector": "none"}])
def test_defaults_are_judged_before_engines_are_loaded(
    monkeypatch: pytest.MonkeyPatch, wrong: dict[str, str]
) -> None:
    monkeypatch.setattr(catalog, "load_engine", lambda *_, **__: pytest.fail("it may take long"))
    with pytest.raises(BundleError, match="SUBPOSE_"):
        load_catalog(Settings.model_validate(wrong))


def test_a_folder_without_bundles_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="none at all"):
        load_catalog(Settings(bundles=(tmp_path,)))


def test_a_folder_that_is_not_there_is_named_where_a_bundle_is_missing(tmp_path: Path) -> None:
    bundles = (tmp_path / "nowhere",)
    with pytest.raises(BundleError, match=rf"--bundles .*there is no folder {bundles[0]}$"):
        load_catalog(Settings(bundles=bundles))
    with pytest.raises(BundleError, match=rf"there is no folder {bundles[0]}$"):
        load_catalog(Settings(bundles=(BUNDLES, *bundles), detector="nobody"))
    with pytest.raises(BundleError, match=r"only [\w, -]+$"):  # the user's own need not be there
        load_catalog(Settings(model="nobody"))


def test_two_bundles_of_one_name_are_refused() -> None:
    with pytest.raises(BundleError, match="two bundles are named"):
        load_catalog(Settings(bundles=(BUNDLES, BUNDLES)))


def test_weights_that_only_a_setting_may_name_are_served_without_their_path(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loaded = []

    def load(which: object, **options: object) -> object:
        if str(which).startswith("ultralytics:"):
            loaded.append(which)
            return FakeDetector()
        return load_detector(which, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(catalog, "load_detector", load)
    served = load_catalog(Settings(detector="ultralytics:/secret/yolo.pt"))
    assert loaded == ["ultralytics:/secret/yolo.pt"]
    assert served.default_detector == "ultralytics"
    assert not any("secret" in name for name in served.detectors)
