"""MediaPipe Pose on crops, in its own environment: `mediapipe_joints.py CROPS.npz JOINTS.npz`."""

from __future__ import annotations

import sys
from time import perf_counter

import mediapipe
import numpy as np

# Of its 33 landmarks, COCO's 17 in COCO's order.
COCO = [0, 2, 5, 7, 8, 11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28]


def main(crops: str, joints: str) -> None:
    """Write (N, 17, 3) x, y as shares of the crop and visibility, zeros where it finds no one."""
    stored = np.load(crops)
    found, seconds = np.zeros((len(stored.files), len(COCO), 3)), []
    with mediapipe.solutions.pose.Pose(
        static_image_mode=True, model_complexity=1, min_detection_confidence=0.1
    ) as pose:
        for number, name in enumerate(stored.files):
            crop = stored[name]
            begin = perf_counter()
            landmarks = pose.process(crop).pose_landmarks
            seconds.append(perf_counter() - begin)
            if landmarks:
                every = [(mark.x, mark.y, mark.visibility) for mark in landmarks.landmark]
                found[number] = np.array(every)[COCO]
    np.savez(joints, joints=found, seconds=np.array(seconds))


if __name__ == "__main__":
    main(*sys.argv[1:])
