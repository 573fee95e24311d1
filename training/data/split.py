"""`coco/dev`: what choices are made on, split off from train; val is only reported."""

from __future__ import annotations

import hashlib

DEV_SHARE = 10
"""One image in so many."""


def is_dev(image_id: int) -> bool:
    """Whether an image of train belongs to dev: by its id alone, so the same for every tool."""
    return int(hashlib.sha1(str(image_id).encode()).hexdigest(), 16) % DEV_SHARE == 0
