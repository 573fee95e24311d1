from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.bundle import BundleError
from models.detectors import load_detector


def test_weights_that_are_no_file_are_refused_before_anything_is_imported_or_fetched() -> None:
    with pytest.raises(BundleError, match=r"no such file"):
        load_detector("ultralytics:yolo11n.pt")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Untrained models of the package's own yaml: one that knows people, one that does not."""
    package: Any = pytest.importorskip("ultralytics")
    folder = tmp_path_factory.mktemp("weights")
    model = package.YOLO("yolo11n.yaml")
    model.save(folder / "numbers.pt")
    model.model.names = {index: "person" if index == 0 else str(index) for index in range(80)}
    model.save(folder / "people.pt")
    return folder / "people.pt", folder / "numbers.pt"


@pytest.mark.ultralytics
@pytest.mark.filterwarnings("default")  # the package's own
def test_a_yolo_answers_boxes_of_people_inside_the_image_best_first(
    saved: tuple[Path, Path],
) -> None:
    detector = load_detector(f"ultralytics:{saved[0]}")
    images = [
        np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
        for seed, (width, height) in enumerate([(320, 240), (100, 333)])
    ]
    # Untrained, it scores everything alike and low.
    found = detector.detect(images, min_box_score=1e-6)
    assert len(found) == 2
    assert found[0]
    assert found[1]
    for image, boxes in zip(images, found, strict=True):
        scores = [box.score for box in boxes]
        assert scores == sorted(scores, reverse=True)
        for box in boxes:
            assert box.area > 0
            assert min(box.x, box.y) >= 0
            assert box.x + box.width <= image.shape[1] + 1e-3
            assert box.y + box.height <= image.shape[0] + 1e-3
    assert detector.detect(images, min_box_score=1.0) == [[], []]
    assert detector.detect([]) == []
    assert detector.name == f"ultralytics:{saved[0]}"


@pytest.mark.ultralytics
@pytest.mark.filterwarnings("default")
def test_weights_without_people_are_refused(saved: tuple[Path, Path]) -> None:
    with pytest.raises(BundleError, match="no class 'person'"):
        load_detector(f"ultralytics:{saved[1]}")
