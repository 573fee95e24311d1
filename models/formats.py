"""People in other tools' formats: COCO results and OpenPose JSON. Pure: people in, plain data out.

Coordinates have two decimals and scores four, as in the service's own JSON.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

from models import wholebody
from models.keypoints import KeypointSet
from models.predictor import Person, Pose

Joint = tuple[float, float, float]
"""x, y, score"""

BODY_25 = (
    "nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder",
    "left_elbow", "left_wrist", "mid_hip", "right_hip", "right_knee", "right_ankle",
    "left_hip", "left_knee", "left_ankle", "right_eye", "left_eye", "right_ear", "left_ear",
    "left_big_toe", "left_small_toe", "left_heel", "right_big_toe", "right_small_toe", "right_heel",
)  # fmt: skip
FACE_70 = (*wholebody.FACE, "right_pupil", "left_pupil")
MIDPOINTS = {"neck": ("left_shoulder", "right_shoulder"), "mid_hip": ("left_hip", "right_hip")}
"""What BODY_25 was itself trained on: joints that are the middle of two others."""
MISSING: Joint = (0.0, 0.0, 0.0)
NOT_FOUND_BELOW = 0.1
"""What scores lower is written as missing, as OpenPose does with peaks below 0.05: of joints with
such a peak one in ten is right."""


class CocoRow(TypedDict):
    """One person of one image, as `COCO.loadRes` of pycocotools takes it."""

    image_id: int
    category_id: int
    keypoints: list[float]
    bbox: list[float]
    score: float


class OpenPosePerson(TypedDict):
    """One person of an OpenPose file; parts that no joint was sought of are empty, as there."""

    person_id: list[int]
    pose_keypoints_2d: list[float]
    face_keypoints_2d: list[float]
    hand_left_keypoints_2d: list[float]
    hand_right_keypoints_2d: list[float]
    pose_keypoints_3d: list[float]
    face_keypoints_3d: list[float]
    hand_left_keypoints_3d: list[float]
    hand_right_keypoints_3d: list[float]


class OpenPose(TypedDict):
    """One image's file of OpenPose 1.3."""

    version: float
    people: list[OpenPosePerson]


def coco(people: Sequence[Person], *, image_id: int) -> list[CocoRow]:
    """People as rows of a COCO results file.

    The third number of each keypoint is its score, as most pose tools write it; COCO's evaluation
    does not read it. The pose is that of each person's first head.
    """
    return [
        CocoRow(
            image_id=image_id,
            category_id=1,
            keypoints=[number for joint in _joints(person.pose) for number in joint],
            bbox=[
                round(number, 2)
                for number in (person.box.x, person.box.y, person.box.width, person.box.height)
            ],
            score=round(person.score, 4),
        )
        for person in people
    ]


def openpose(people: Sequence[Person], keypoints: KeypointSet) -> OpenPose:
    """People as one image's file of OpenPose 1.3, in the order of its default model, BODY_25.

    BODY_25 rather than the older COCO-18, because it is what OpenPose writes unless told otherwise
    and so what most readers expect. Joints go over by name. Neck and middle of the hips are the
    middle of their two joints, with the lower of the two scores. Joints that the keypoint set does
    not have (of coco17 the six of the feet) are 0, 0, 0: the format's own word for a joint not
    found. Faces and hands are written where the set has them, without a face's two pupils.
    """
    return OpenPose(version=1.3, people=[_openpose(person, keypoints) for person in people])


def _openpose(person: Person, keypoints: KeypointSet) -> OpenPosePerson:
    found = dict(zip(keypoints.names, _joints(person.pose), strict=True))
    for name, (left, right) in MIDPOINTS.items():
        if name not in found and left in found and right in found:
            found[name] = _middle(found[left], found[right])
    return OpenPosePerson(
        person_id=[-1],  # OpenPose's "not tracked"
        pose_keypoints_2d=_part(found, BODY_25),
        face_keypoints_2d=_part(found, FACE_70),
        hand_left_keypoints_2d=_part(found, wholebody.hand("left")),
        hand_right_keypoints_2d=_part(found, wholebody.hand("right")),
        pose_keypoints_3d=[],
        face_keypoints_3d=[],
        hand_left_keypoints_3d=[],
        hand_right_keypoints_3d=[],
    )


def _part(found: Mapping[str, Joint], names: Sequence[str]) -> list[float]:
    """A part's numbers; none at all where the keypoint set has nothing of it."""
    if not any(name in found for name in names):
        return []
    joints = (found.get(name, MISSING) for name in names)
    return [
        number for joint in joints for number in (joint if joint[2] >= NOT_FOUND_BELOW else MISSING)
    ]


def _joints(pose: Pose) -> list[Joint]:
    return [
        (round(float(x), 2), round(float(y), 2), round(float(score), 4))
        for (x, y), score in zip(pose.points, pose.scores, strict=True)
    ]


def _middle(a: Joint, b: Joint) -> Joint:
    return round((a[0] + b[0]) / 2, 2), round((a[1] + b[1]) / 2, 2), min(a[2], b[2])
