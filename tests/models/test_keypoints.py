import json
from pathlib import Path

import pytest

from models import wholebody
from models.keypoints import (
    COCO17,
    HALPE26,
    KEYPOINT_SETS,
    LEFT,
    LSP14,
    MIDDLE,
    RIGHT,
    WHOLEBODY133,
    KeypointSet,
)

sets = pytest.mark.parametrize("keypoints", KEYPOINT_SETS.values(), ids=KEYPOINT_SETS.keys())


@sets
def test_a_set_is_whole(keypoints: KeypointSet) -> None:
    assert len(set(keypoints.names)) == len(keypoints) == len(keypoints.sigmas)
    assert all(0 < sigma < 0.2 for sigma in keypoints.sigmas)
    joined = {name for edge in keypoints.skeleton for name in edge}
    assert joined == set(keypoints.names)
    assert len({frozenset(edge) for edge in keypoints.skeleton}) == len(keypoints.skeleton)


@sets
def test_mirroring_swaps_the_sides_and_undoes_itself(keypoints: KeypointSet) -> None:
    mirrored = [keypoints.names[index] for index in keypoints.mirror]
    for name, other in zip(keypoints.names, mirrored, strict=True):
        if "_" in name and name.split("_")[0] in ("left", "right"):
            assert {name.split("_")[0], other.split("_")[0]} == {"left", "right"}
            assert name.split("_", 1)[1] == other.split("_", 1)[1]
        else:
            assert name == other
    assert [keypoints.mirror[index] for index in keypoints.mirror] == list(range(len(keypoints)))
    # A limb's mirror image is a limb, and both sides are as hard to place.
    edges = {frozenset(edge) for edge in keypoints.edges}
    assert {frozenset(keypoints.mirror[i] for i in edge) for edge in edges} == edges
    uneven = {*wholebody.FEET, *wholebody.FACE}  # as published
    for name, index, sigma in zip(keypoints.names, keypoints.mirror, keypoints.sigmas, strict=True):
        assert keypoints.sigmas[index] == sigma or (keypoints is WHOLEBODY133 and name in uneven)


def test_larger_sets_begin_with_coco_s_and_have_the_published_mirror_pairs() -> None:
    assert (len(HALPE26), len(WHOLEBODY133)) == (26, 133)
    for keypoints in (HALPE26, WHOLEBODY133):
        assert keypoints.names[:17] == COCO17.names
        assert keypoints.sigmas[:17] == COCO17.sigmas
        assert keypoints.mirror[:17] == COCO17.mirror
    assert HALPE26.mirror[17:] == (17, 18, 19, 21, 20, 23, 22, 25, 24)
    assert WHOLEBODY133.mirror[17:23] == (20, 21, 22, 17, 18, 19)
    # mmpose's `swap` of iBUG's 68 landmarks: outlines reversed, pairs elsewhere.
    face = [
        *range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, *range(35, 30, -1),
        45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40,
        54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65,
    ]  # fmt: skip
    assert [index - 23 for index in WHOLEBODY133.mirror[23:91]] == face
    assert WHOLEBODY133.mirror[91:] == (*range(112, 133), *range(91, 112))


def test_sigmas_are_coco_s_constants() -> None:
    by_joint = {
        "nose": 0.026, "eye": 0.025, "ear": 0.035, "shoulder": 0.079, "elbow": 0.072,
        "wrist": 0.062, "hip": 0.107, "knee": 0.087, "ankle": 0.089,
    }  # fmt: skip
    for keypoints in (COCO17, LSP14):
        for name, sigma in zip(keypoints.names, keypoints.sigmas, strict=True):
            assert sigma == by_joint.get(name.split("_")[-1], 0.079)


def test_a_name_is_found_or_named_in_the_error() -> None:
    assert COCO17.index("left_wrist") == 9
    with pytest.raises(KeyError, match="tail"):
        COCO17.index("tail")


def test_colours_tell_the_sides_apart() -> None:
    assert COCO17.colour("left_knee") == LEFT
    assert COCO17.colour("right_knee", "right_hip") == RIGHT
    assert COCO17.colour("left_hip", "right_hip") == COCO17.colour("nose") == MIDDLE
    assert COCO17.colour("nose", "left_eye") == MIDDLE


def test_lsp_s_limbs_are_coco_s_of_the_same_name() -> None:
    published = {0: 16, 1: 14, 2: 12, 3: 11, 4: 13, 5: 15, 6: 10, 7: 8, 8: 6, 9: 5, 10: 7, 11: 9}
    shared = {i: COCO17.index(name) for i, name in enumerate(LSP14.names[:12])}
    assert shared == published


@pytest.mark.data
@pytest.mark.parametrize(
    ("file", "keypoints"),
    [("coco/annotations/person_keypoints_val.json", COCO17), ("lspet/annotations/val.json", LSP14)],
)
def test_the_names_are_the_annotations_own(data: Path, file: str, keypoints: KeypointSet) -> None:
    category = json.loads((data / file).read_text())["categories"][0]
    assert tuple(category["keypoints"]) == keypoints.names
    if keypoints is COCO17:
        published = {frozenset(i - 1 for i in edge) for edge in category["skeleton"]}
        assert {frozenset(edge) for edge in keypoints.edges} == published
