"""Readers of the official layouts of sets that are not here, on small files made in them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from models.keypoints import LSP14, MPII16
from training.data.boxes import read_boxes
from training.data.lsp import read_lsp
from training.data.mpii import read_heads, read_mpii
from training.protocols import head_sizes

JOINTS = np.arange(32, dtype=float).reshape(16, 2) + 50


def _mpii(folder: Path, **changes: Any) -> Path:  # noqa: ANN401
    (folder / "a.jpg").touch()
    row = {
        "image": "a.jpg", "center": [60.0, 70.0], "scale": 0.5,
        "joints": JOINTS.tolist(), "joints_vis": [1] * 15 + [0],
    }  # fmt: skip
    file = folder / "valid.json"
    file.write_text(json.dumps([row | changes]))
    return file


def test_mpii_s_people_are_cut_out_as_the_papers_do(tmp_path: Path) -> None:
    (person,) = read_mpii(_mpii(tmp_path), tmp_path).people
    np.testing.assert_allclose(person.points, JOINTS - 1)
    assert person.visibility.tolist() == [2] * 15 + [0]
    assert person.box.center == pytest.approx((59, 70 + 15 * 0.5 - 1))
    assert person.box.width == person.box.height == 100
    assert len(person.points) == len(MPII16)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"image": "b.jpg"}, "missing file"),
        ({"scale": float("nan")}, "numbers missing or not finite"),
        ({"scale": -1.0}, "box outside the image"),
        ({"joints_vis": [0] * 16}, "no labelled joint"),
    ],
)
def test_mpii_s_bad_rows_are_counted(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    found = read_mpii(_mpii(tmp_path, **changes), tmp_path)
    assert not found.people
    assert found.rejected == {reason: 1}


def test_a_file_that_is_not_mpii_s_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not MPII's list of people"):
        read_mpii(_mpii(tmp_path, joints=[[1, 2]]), tmp_path)


def test_mpii_s_heads_come_from_its_matlab_file(tmp_path: Path) -> None:
    file = tmp_path / "gt_valid.mat"
    boxes = np.array([[[100.0], [50.0]], [[130.0], [90.0]]])
    missing = np.zeros((16, 1))
    missing[3] = 1
    savemat(file, {"pos_gt_src": JOINTS[..., None], "jnt_missing": missing, "headboxes_src": boxes})
    truth = read_heads(file)
    np.testing.assert_allclose(truth.points[0], JOINTS - 1)
    assert np.flatnonzero(~truth.visible[0]).tolist() == [3]
    assert head_sizes(truth.boxes).tolist() == [30]
    savemat(file, {"other": boxes})
    with pytest.raises(ValueError, match=r"gt_valid\.mat is not"):
        read_heads(file)


@pytest.mark.parametrize("extended", [False, True])
def test_lsp_s_third_row_means_hidden_and_lspet_s_labelled(tmp_path: Path, extended: bool) -> None:
    points = np.random.default_rng(0).uniform(20, 100, (2, 14, 2))
    flags = np.zeros((2, 14, 1))
    flags[0, 4] = 1
    flags[1] = 1
    people = np.concatenate([points, flags], axis=-1)
    savemat(tmp_path / "joints.mat", {"joints": people.transpose(1, 2, 0) if extended
                                      else people.transpose(2, 1, 0)})  # fmt: skip
    for name in ("im0002.jpg", "im0001.jpg"):
        (tmp_path / name).touch()
    first, second = read_lsp(tmp_path / "joints.mat", tmp_path).people
    assert [p.image.name for p in (first, second)] == ["im0001.jpg", "im0002.jpg"]
    hit, rest = (2, 0) if extended else (1, 2)
    assert first.visibility.tolist() == [hit if i == 4 else rest for i in range(14)]
    assert set(second.visibility.tolist()) == {hit}
    np.testing.assert_allclose(second.points, points[1])
    low, high = points[1].min(0), points[1].max(0)
    assert (second.box.x, second.box.y) < tuple(low)
    assert second.box.x + second.box.width > high[0]
    assert len(second.points) == len(LSP14)


def test_a_matlab_file_of_another_shape_is_refused(tmp_path: Path) -> None:
    savemat(tmp_path / "joints.mat", {"joints": np.zeros((13, 3, 2))})
    with pytest.raises(ValueError, match=r"neither \(3, 14, N\) nor \(14, 3, N\)"):
        read_lsp(tmp_path / "joints.mat", tmp_path)
    savemat(tmp_path / "joints.mat", {"joints": np.zeros((14, 3, 2))})
    with pytest.raises(ValueError, match="0 photos"):
        read_lsp(tmp_path / "joints.mat", tmp_path)


def _rows(file: Path, *rows: Any) -> Path:  # noqa: ANN401
    file.write_text(json.dumps(rows))
    return file


def test_a_detector_s_boxes_are_people_s_best_first(tmp_path: Path) -> None:
    row = {"image_id": 7, "category_id": 1, "bbox": [-3.5, 2, 10, 20], "score": 0.2}
    file = _rows(
        tmp_path / "boxes.json", row, row | {"score": 0.9}, row | {"category_id": 2},
        row | {"image_id": 8, "score": 0.01},
    )  # fmt: skip
    read = read_boxes(file)
    found = read.by_image
    assert read.name == "boxes"
    assert {image: [box.score for box in boxes] for image, boxes in found.items()} == {
        7: [0.9, 0.2], 8: [0.01],
    }  # fmt: skip
    assert found[7][0].x == -3.5
    assert list(read_boxes(file, smallest_score=0.1).by_image) == [7]


@pytest.mark.parametrize("bbox", [[0, 0, 0, 5], [0, 0, float("nan"), 5], [0, 0, 5]])
def test_boxes_of_no_use_are_refused(tmp_path: Path, bbox: list[float]) -> None:
    row = {"image_id": 7, "category_id": 1, "bbox": bbox, "score": 0.2}
    with pytest.raises(ValueError, match=r"boxes\.json"):
        read_boxes(_rows(tmp_path / "boxes.json", row))
