import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.formats import CocoRow
from models.keypoints import COCO17, CROWDPOSE14, LSP14, MPII16
from training.data.annotations import read_people
from training.metrics import oks
from training.protocols import (
    LIMBS,
    MPII_BUG,
    crowdpose_figures,
    crowdpose_matches,
    head_sizes,
    pckh,
    pcp,
)


def test_mpii_s_mirror_pairs_are_the_published_ones() -> None:
    swapped = {0: 5, 1: 4, 2: 3, 10: 15, 11: 14, 12: 13}
    both = swapped | {b: a for a, b in swapped.items()} | {i: i for i in (6, 7, 8, 9)}
    assert dict(enumerate(MPII16.mirror)) == both


# PCKh


def _one_joint_off(*distances: float) -> tuple[Any, Any, Any, Any]:
    """A person for each distance, whose right wrist is that far off and alone visible."""
    people = len(distances)
    truth = np.random.default_rng(0).uniform(0, 300, (people, 16, 2))
    points = truth.copy()
    points[:, 10, 0] += distances
    visible = np.zeros((people, 16), bool)
    visible[:, 10] = True
    heads = head_sizes(np.tile([100.0, 50.0, 130.0, 90.0], (people, 1)))
    return points, truth, visible, heads


def test_pckh_counts_joints_within_a_share_of_the_head() -> None:
    case = _one_joint_off(2.9, 3.1, 3.2, 14.9, 15.1)
    assert case[3].tolist() == [30] * 5
    assert pckh(*case)[0] == pytest.approx(0.8)
    assert pckh(*case, 0.1)[0] == pytest.approx(0.2)
    # Three of HRNet's and NerPE's tables read the next bin.
    assert pckh(*case, MPII_BUG)[0] == pytest.approx(0.6)


def test_pckh_leaves_out_pelvis_and_thorax_and_weighs_joints_by_their_count() -> None:
    points, truth, visible, heads = _one_joint_off(0, 0, 100)
    visible[:, 6:8] = True
    points[:, 6:8] += 1000
    visible[0, 15] = True
    points[0, 15] += 1000
    mean, each = pckh(points, truth, visible, heads)
    assert mean == pytest.approx(2 / 4)
    assert each[10] == pytest.approx(2 / 3)
    assert each[15] == 0
    assert np.isnan(np.delete(each, [10, 15])).all()


# PCP


def test_pcp_is_strict_of_both_ends_or_loose_of_their_mean() -> None:
    truth = np.zeros((1, 14, 2))
    first, second = LIMBS[0]
    truth[0, second] = 40, 0
    points = truth.copy()
    points[0, first, 1], points[0, second, 1] = 12, 22
    labelled = np.zeros((1, 14), bool)
    labelled[0, [first, second]] = True
    assert pcp(points, truth, labelled) == 0
    assert pcp(points, truth, labelled, form="loose") == 1


@pytest.mark.data
def test_pcp_of_real_people_falls_with_noise(data: Path) -> None:
    people = read_people(data / "lspet/annotations/val.json", data / "lspet/images", LSP14).people
    truth = np.array([person.points for person in people])
    labelled = np.array([person.visibility > 0 for person in people])
    random = np.random.default_rng(0)
    strict, loose = (
        [
            pcp(truth + random.normal(0, noise, truth.shape), truth, labelled, form=form)
            for noise in (0, 5, 20)
        ]
        for form in ("strict", "loose")
    )
    assert len(people) == 400
    assert strict[0] == loose[0] == 1
    assert strict[0] > strict[1] > strict[2] > 0
    assert all(a <= b for a, b in zip(strict, loose, strict=True))


# CrowdPose


def _crowd(path: Path) -> dict[str, Any]:
    """A file in CrowdPose's format: an easy, a medium and a hard image, one person in each."""
    random = np.random.default_rng(1)
    annotations = []
    for number in (1, 2, 3):
        joints = np.column_stack([random.uniform(20, 90, (14, 2)), np.full(14, 2)])
        annotations.append(
            {
                "id": number, "image_id": number, "category_id": 1, "iscrowd": 0,
                "bbox": [10.0, 10.0, 80.0, 200.0], "num_keypoints": 14,
                "keypoints": joints.ravel().tolist(),
            }
        )  # fmt: skip
    content = {
        "images": [
            {"id": n, "file_name": f"{n}.jpg", "width": 100, "height": 220, "crowdIndex": index}
            for n, index in ((1, 0.1), (2, 0.2), (3, 0.8))
        ],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "person", "keypoints": list(CROWDPOSE14.names)}],
    }
    path.write_text(json.dumps(content))
    return content


def _answers(content: dict[str, Any], off: dict[int, float]) -> list[CocoRow]:
    rows: list[CocoRow] = []
    for row in content["annotations"]:
        joints = np.array(row["keypoints"]).reshape(14, 3)
        joints[:, 0] += off.get(row["image_id"], 0)
        rows.append(
            {
                "image_id": row["image_id"], "category_id": 1, "score": 0.9,
                "keypoints": joints.ravel().tolist(), "bbox": row["bbox"],
            }
        )  # fmt: skip
    return rows


def _figures(content: dict[str, Any], off: dict[int, float]) -> dict[str, float]:
    return crowdpose_figures(content, crowdpose_matches(content, _answers(content, off)))


def test_crowdpose_s_people_are_read_by_its_joints(tmp_path: Path) -> None:
    content = _crowd(tmp_path / "crowdpose_test.json")
    for number in (1, 2, 3):
        (tmp_path / f"{number}.jpg").touch()
    found = read_people(tmp_path / "crowdpose_test.json", tmp_path, CROWDPOSE14)
    assert [person.image_id for person in found.people] == [1, 2, 3]
    wanted = np.array(content["annotations"][0]["keypoints"]).reshape(14, 3)[:, :2]
    np.testing.assert_allclose(found.people[0].points, wanted)
    shared = read_people(tmp_path / "crowdpose_test.json", tmp_path, COCO17).people[0]
    assert (shared.visibility > 0).sum() == 12


def test_crowdpose_s_ap_is_told_by_crowdedness(tmp_path: Path) -> None:
    content = _crowd(tmp_path / "c.json")
    perfect = _figures(content, {})
    assert perfect == pytest.approx(dict.fromkeys(perfect, 1.0))
    # Bounds belong to the harder side.
    lost = {name: _figures(content, {n: 1e4})
            for n, name in ((1, "APE"), (2, "APM"), (3, "APH"))}  # fmt: skip
    for name, figures in lost.items():
        assert [figures[each] == 0 for each in ("APE", "APM", "APH")] == [
            each == name for each in ("APE", "APM", "APH")
        ]


def test_crowdpose_s_area_is_a_share_of_the_box(tmp_path: Path) -> None:
    content = _crowd(tmp_path / "c.json")
    # 5 px aside, 80 x 200 px: the similarity that its own area gives decides the thresholds.
    points = np.array(content["annotations"][0]["keypoints"]).reshape(14, 3)[:, :2]
    similarity = oks(points + np.array([5, 0]), points, np.ones(14, bool), 8480, CROWDPOSE14.sigmas)
    passed = (np.linspace(0.5, 0.95, 10) <= similarity).mean()
    assert 0 < passed < 1
    figures = _figures(content, dict.fromkeys((1, 2, 3), 5.0))
    assert figures["AP"] == pytest.approx(passed)
