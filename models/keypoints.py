"""Keypoint sets: names, mirror pairs, skeleton, OKS constants, colours."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from models import wholebody

RGB = tuple[int, int, int]

# Told apart by colour-blind eyes too (Okabe and Ito's palette).
LEFT: RGB = (0x56, 0xB4, 0xE9)
RIGHT: RGB = (0xE6, 0x9F, 0x00)
MIDDLE: RGB = (0xF0, 0xF0, 0xF0)


@dataclass(frozen=True)
class KeypointSet:
    """What the joints of a pose are.

    Attributes:
        name: as in a manifest.
        names: snake_case, in the set's order; `left` is the person's left.
        skeleton: pairs of names that a limb joins.
        sigmas: OKS constants, one a keypoint, relative to the person's size (MODELS 4).
    """

    name: str
    names: tuple[str, ...]
    skeleton: tuple[tuple[str, str], ...]
    sigmas: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.names)

    def index(self, name: str) -> int:
        """Where a keypoint stands in the set.

        Raises:
            KeyError: no such keypoint.
        """
        try:
            return self.names.index(name)
        except ValueError:
            raise KeyError(name) from None

    @cached_property
    def mirror(self) -> tuple[int, ...]:
        """For each keypoint the index of its mirror image: left and right change places."""
        swap = {"left_": "right_", "right_": "left_"}
        mirrored = []
        for name in self.names:
            side = next((side for side in swap if name.startswith(side)), "")
            mirrored.append(self.names.index(swap.get(side, "") + name.removeprefix(side)))
        return tuple(mirrored)

    @cached_property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """The skeleton as pairs of indices."""
        return tuple((self.index(a), self.index(b)) for a, b in self.skeleton)

    def colour(self, *names: str) -> RGB:
        """Of a joint (one name) or a limb (two): its side's, or the middle's if they differ."""
        sides = {name.split("_")[0] for name in names}
        return {"left": LEFT, "right": RIGHT}.get("-".join(sides), MIDDLE)


COCO17 = KeypointSet(
    name="coco17",
    names=(
        "nose", "left_eye", "right_eye", "left_ear", "right_ear",
        "left_shoulder", "right_shoulder", "left_elbow", "right_elbow",
        "left_wrist", "right_wrist", "left_hip", "right_hip",
        "left_knee", "right_knee", "left_ankle", "right_ankle",
    ),
    skeleton=(
        ("left_ankle", "left_knee"), ("left_knee", "left_hip"),
        ("right_ankle", "right_knee"), ("right_knee", "right_hip"),
        ("left_hip", "right_hip"), ("left_shoulder", "left_hip"),
        ("right_shoulder", "right_hip"), ("left_shoulder", "right_shoulder"),
        ("left_shoulder", "left_elbow"), ("right_shoulder", "right_elbow"),
        ("left_elbow", "left_wrist"), ("right_elbow", "right_wrist"),
        ("left_eye", "right_eye"), ("nose", "left_eye"), ("nose", "right_eye"),
        ("left_eye", "left_ear"), ("right_eye", "right_ear"),
        ("left_ear", "left_shoulder"), ("right_ear", "right_shoulder"),
    ),
    sigmas=(
        0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072,
        0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089,
    ),
)  # fmt: skip

LSP14 = KeypointSet(
    name="lsp14",
    names=(
        "right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle",
        "right_wrist", "right_elbow", "right_shoulder", "left_shoulder", "left_elbow",
        "left_wrist", "neck", "head_top",
    ),
    skeleton=(
        ("right_ankle", "right_knee"), ("right_knee", "right_hip"), ("right_hip", "left_hip"),
        ("left_hip", "left_knee"), ("left_knee", "left_ankle"), ("right_wrist", "right_elbow"),
        ("right_elbow", "right_shoulder"), ("right_shoulder", "left_shoulder"),
        ("left_shoulder", "left_elbow"), ("left_elbow", "left_wrist"),
        ("right_shoulder", "right_hip"), ("left_shoulder", "left_hip"), ("neck", "head_top"),
    ),
    # LSP has no OKS: COCO's constants for the shared joints, CrowdPose's for neck and head.
    sigmas=(
        0.089, 0.087, 0.107, 0.107, 0.087, 0.089, 0.062, 0.072, 0.079,
        0.079, 0.072, 0.062, 0.079, 0.079,
    ),
)  # fmt: skip

CROWDPOSE14 = KeypointSet(
    name="crowdpose14",
    names=(
        "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist",
        "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
        "right_ankle", "head", "neck",
    ),
    skeleton=(
        ("head", "neck"), ("neck", "left_shoulder"), ("neck", "right_shoulder"),
        ("left_shoulder", "left_elbow"), ("left_elbow", "left_wrist"),
        ("right_shoulder", "right_elbow"), ("right_elbow", "right_wrist"),
        ("left_shoulder", "left_hip"), ("right_shoulder", "right_hip"), ("left_hip", "right_hip"),
        ("left_hip", "left_knee"), ("left_knee", "left_ankle"), ("right_hip", "right_knee"),
        ("right_knee", "right_ankle"),
    ),
    sigmas=(
        0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089,
        0.079, 0.079,
    ),
)  # fmt: skip

MPII16 = KeypointSet(
    name="mpii16",
    names=(
        "right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "pelvis",
        "thorax", "neck", "head_top", "right_wrist", "right_elbow", "right_shoulder",
        "left_shoulder", "left_elbow", "left_wrist",
    ),
    skeleton=(
        ("right_ankle", "right_knee"), ("right_knee", "right_hip"), ("right_hip", "pelvis"),
        ("pelvis", "left_hip"), ("left_hip", "left_knee"), ("left_knee", "left_ankle"),
        ("pelvis", "thorax"), ("thorax", "neck"), ("neck", "head_top"),
        ("right_wrist", "right_elbow"), ("right_elbow", "right_shoulder"),
        ("right_shoulder", "thorax"), ("thorax", "left_shoulder"),
        ("left_shoulder", "left_elbow"), ("left_elbow", "left_wrist"),
    ),
    # MPII has no OKS: COCO's constants for the shared joints, the hips' and the neck's between.
    sigmas=(
        0.089, 0.087, 0.107, 0.107, 0.087, 0.089, 0.107, 0.079, 0.079, 0.079, 0.062, 0.072,
        0.079, 0.079, 0.072, 0.062,
    ),
)  # fmt: skip

HALPE26 = KeypointSet(
    name="halpe26",
    names=(
        *COCO17.names, "head", "neck", "hip", "left_big_toe", "right_big_toe", "left_small_toe",
        "right_small_toe", "left_heel", "right_heel",
    ),
    skeleton=(
        ("left_ankle", "left_knee"), ("left_knee", "left_hip"), ("left_hip", "hip"),
        ("right_ankle", "right_knee"), ("right_knee", "right_hip"), ("right_hip", "hip"),
        ("head", "neck"), ("neck", "hip"), ("neck", "left_shoulder"), ("neck", "right_shoulder"),
        ("left_shoulder", "left_elbow"), ("left_elbow", "left_wrist"),
        ("right_shoulder", "right_elbow"), ("right_elbow", "right_wrist"),
        ("left_eye", "right_eye"), ("nose", "left_eye"), ("nose", "right_eye"),
        ("left_eye", "left_ear"), ("right_eye", "right_ear"),
        ("left_ear", "left_shoulder"), ("right_ear", "right_shoulder"),
        ("left_ankle", "left_big_toe"), ("left_ankle", "left_small_toe"),
        ("left_ankle", "left_heel"), ("right_ankle", "right_big_toe"),
        ("right_ankle", "right_small_toe"), ("right_ankle", "right_heel"),
    ),
    sigmas=(*COCO17.sigmas, 0.026, 0.026, 0.066, 0.079, 0.079, 0.079, 0.079, 0.079, 0.079),
)  # fmt: skip

WHOLEBODY133 = KeypointSet(
    name="wholebody133",
    names=(*COCO17.names, *wholebody.PARTS),
    skeleton=(*COCO17.skeleton, *wholebody.EDGES),
    sigmas=(*COCO17.sigmas, *wholebody.SIGMAS),
)

KEYPOINT_SETS = {
    keypoints.name: keypoints
    for keypoints in (COCO17, LSP14, CROWDPOSE14, MPII16, HALPE26, WHOLEBODY133)
}
