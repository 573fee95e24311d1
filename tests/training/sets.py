"""Small sets of painted people: every joint is a disc of a colour of its own."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from models.keypoints import COCO17

WIDTH, HEIGHT = 240, 320
BOX = [60.0, 40.0, 120.0, 240.0]

# Of a person who faces the camera: their left is on the right of the picture.
JOINTS = np.array(
    [
        [120, 60], [128, 54], [112, 54], [138, 58], [102, 58],
        [148, 95], [92, 95], [160, 135], [80, 135], [168, 172], [72, 172],
        [136, 165], [104, 165], [140, 215], [100, 215], [142, 262], [98, 262],
    ],
    float,
)  # fmt: skip

COLOURS = np.array(
    [[40 + 20 * (i % 10), 230 - 25 * (i % 8), 15 * i % 250] for i in range(17)], np.uint8
)
"""RGB, told apart by any channel's noise."""


def painted(background: int = 0, radius: int = 4) -> NDArray[np.uint8]:
    """The person's picture, (HEIGHT, WIDTH, 3) RGB."""
    image = np.full((HEIGHT, WIDTH, 3), background, np.uint8)
    for (x, y), colour in zip(JOINTS, COLOURS, strict=True):
        cv2.circle(image, (int(x), int(y)), radius, tuple(map(int, colour)), -1)
    return image


def row(number: int, **changes: Any) -> dict[str, Any]:  # noqa: ANN401
    """An annotation of the person on photo `number`."""
    labels = [value for x, y in JOINTS.tolist() for value in (x, y, 2)]
    return {
        "id": number, "image_id": number, "category_id": 1, "iscrowd": 0,
        "bbox": BOX, "keypoints": labels, "num_keypoints": 17,
    } | changes  # fmt: skip


def write_set(
    folder: Path,
    rows: list[Any],
    *,
    photos: int = 1,
    background: int = 0,
    names: Any = None,  # noqa: ANN401
) -> tuple[Path, Path]:
    """Photos 1, 2, ... and a COCO-style file of the rows; (the file, the photos' folder)."""
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    pixels = cv2.cvtColor(painted(background), cv2.COLOR_RGB2BGR)
    for number in range(1, photos + 1):
        cv2.imwrite(str(images / f"{number}.png"), pixels)
    content = {
        "images": [
            {"id": n, "file_name": f"{n}.png", "width": WIDTH, "height": HEIGHT}
            for n in range(1, photos + 1)
        ],
        "categories": [{"id": 1, "keypoints": list(names or COCO17.names)}],
        "annotations": rows,
    }
    file = folder / "people.json"
    file.write_text(json.dumps(content))
    return file, images
