import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from models.formats import BODY_25, coco, openpose
from models.geometry import Box
from models.keypoints import COCO17, HALPE26, LSP14, WHOLEBODY133, KeypointSet
from models.predictor import Person, Pose


def person(keypoints: KeypointSet = COCO17, score: float = 0.9) -> Person:
    """Joint k lies at (10 k + 0.25, 5 k + 0.5)."""
    k = np.arange(len(keypoints))
    points = np.stack([10 * k + 0.25, 5 * k + 0.5], axis=1)
    pose = Pose(points=points, scores=np.full(len(keypoints), score), resolution=None)
    return Person(box=Box(1.0, 2.0, 170.0, 90.0, 0.8), poses={"simcc": pose})


def body_25(someone: Person, keypoints: KeypointSet = COCO17) -> dict[str, list[float]]:
    flat = openpose([someone], keypoints)["people"][0]["pose_keypoints_2d"]
    return dict(zip(BODY_25, np.reshape(flat, (25, 3)).tolist(), strict=True))


def test_a_coco_row_holds_flat_joints_box_and_score() -> None:
    (row,) = coco([person()], image_id=7)
    assert (row["image_id"], row["category_id"]) == (7, 1)
    assert row["keypoints"][:6] == [0.25, 0.5, 0.9, 10.25, 5.5, 0.9]
    assert len(row["keypoints"]) == 51
    assert row["bbox"] == [1.0, 2.0, 170.0, 90.0]
    assert row["score"] == pytest.approx(0.8 * 0.9)


def test_coco_rows_of_the_truth_score_an_ap_of_1_in_pycocotools(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = json.loads(json.dumps(coco([person()], image_id=7)))
    truth = {
        "info": {},
        "images": [{"id": 7, "width": 200, "height": 100}],
        "categories": [{"id": 1, "name": "person"}],
        "annotations": [
            {
                "id": 1, "image_id": 7, "category_id": 1, "iscrowd": 0, "num_keypoints": 17,
                "area": 170 * 90, "bbox": rows[0]["bbox"],
                "keypoints": [2 if i % 3 == 2 else v for i, v in enumerate(rows[0]["keypoints"])],
            }
        ],
    }  # fmt: skip
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    ground = COCO(str(tmp_path / "truth.json"))
    evaluation = COCOeval(ground, ground.loadRes(rows), "keypoints")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1.0)
    capsys.readouterr()  # pycocotools prints


def test_openpose_takes_joints_over_by_name() -> None:
    body = body_25(person())
    for name in COCO17.names:
        k = COCO17.index(name)
        assert body[name] == [10 * k + 0.25, 5 * k + 0.5, 0.9], name


def test_openpose_neck_is_the_middle_of_the_shoulders_with_the_lower_score() -> None:
    someone = person()
    pose = someone.poses["simcc"]
    pose.scores[COCO17.index("right_shoulder")] = 0.4
    left, right = COCO17.index("left_shoulder"), COCO17.index("right_shoulder")
    x, y = (pose.points[left] + pose.points[right]) / 2
    assert body_25(someone)["neck"] == [x, y, 0.4]
    assert body_25(someone)["mid_hip"][2] == 0.9


def test_openpose_feet_and_joints_it_would_not_have_found_are_zero() -> None:
    someone = person()
    someone.poses["simcc"].scores[COCO17.index("left_wrist")] = 0.09
    someone.poses["simcc"].scores[COCO17.index("left_hip")] = 0.09
    body = body_25(someone)
    missing = {name for name, joint in body.items() if joint == [0, 0, 0]}
    feet = {name for name in BODY_25 if "toe" in name or "heel" in name}
    assert missing == feet | {"left_wrist", "left_hip", "mid_hip"}


def test_openpose_takes_a_neck_that_the_set_has_itself() -> None:
    k = LSP14.index("neck")
    assert body_25(person(LSP14), LSP14)["neck"] == [10 * k + 0.25, 5 * k + 0.5, 0.9]


def test_openpose_has_faces_hands_and_feet_of_a_set_that_has_them() -> None:
    (someone,) = openpose([person(WHOLEBODY133)], WHOLEBODY133)["people"]
    face = np.reshape(someone["face_keypoints_2d"], (70, 3))
    # COCO-WholeBody's order is iBUG's and so OpenPose's; it has no pupils.
    np.testing.assert_allclose(face[:68, 0], 10 * np.arange(23, 91) + 0.25)
    assert not face[68:].any()
    left, right = someone["hand_left_keypoints_2d"], someone["hand_right_keypoints_2d"]
    for part, start in ((left, 91), (right, 112)):
        np.testing.assert_allclose(part[::3], 10 * np.arange(start, start + 21) + 0.25)
    body = body_25(person(WHOLEBODY133), WHOLEBODY133)
    # The two sets order their feet differently; they go over by name.
    assert body["right_big_toe"] == [10 * 20 + 0.25, 5 * 20 + 0.5, 0.9]
    assert body_25(person(HALPE26), HALPE26)["right_big_toe"][0] == 10 * 21 + 0.25
    (without,) = openpose([person()], COCO17)["people"]
    assert without["face_keypoints_2d"] == without["hand_left_keypoints_2d"] == []


def test_openpose_is_json_with_every_part_of_version_1_3() -> None:
    document = json.loads(json.dumps(openpose([person(), person()], COCO17)))
    assert document["version"] == 1.3
    assert len(document["people"]) == 2
    assert document["people"][0]["person_id"] == [-1]
    assert sum(key.endswith("_2d") for key in document["people"][0]) == 4
    assert sum(key.endswith("_3d") for key in document["people"][0]) == 4


def test_nobody_is_an_empty_list() -> None:
    assert coco([], image_id=0) == []
    assert openpose([], COCO17)["people"] == []
