"""Reader of LSP and LSPET as their homes give them: `joints.mat` beside a folder of photos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.io import loadmat

from models.geometry import Box
from models.keypoints import LSP14
from training.data.annotations import LabelledPerson, LabelledSet
from training.errors import DataError

MARGIN = 0.1
"""Of the longer side of the joints' box, around it: neither set has boxes of people."""


def read_lsp(joints: Path, images: Path) -> LabelledSet:
    """Read one person a photo, in the order of the photos' names.

    LSP is (3, 14, N) and its third row says that a joint is hidden; LSPET is (14, 3, N) and its
    third column says that a joint is labelled.

    Args:
        joints: the file `joints.mat`.
        images: the folder of `im*.jpg`.

    Raises:
        DataError: the file is not of that form, or there are fewer photos than people.
    """
    try:
        content = np.asarray(loadmat(joints)["joints"], np.float64)
    except (KeyError, ValueError) as error:
        raise DataError(f"{joints} is not LSP's joints.mat: {error!r}") from error
    extended = content.shape[:2] == (len(LSP14), 3)
    if not extended and content.shape[:2] != (3, len(LSP14)):
        raise DataError(f"{joints} holds {content.shape}, neither (3, 14, N) nor (14, 3, N)")
    people = content.transpose(2, 0, 1) if extended else content.transpose(2, 1, 0)
    files = sorted(images.glob("im*.jpg"))
    if len(files) < len(people):
        raise DataError(f"{images} has {len(files)} photos, {joints} {len(people)} people")
    result = LabelledSet()
    for number, (file, person) in enumerate(zip(files, people, strict=False)):
        points, flag = person[:, :2], person[:, 2] > 0
        visibility = np.where(flag, 2, 0) if extended else np.where(flag, 1, 2)
        seen = points[visibility > 0]
        if not len(seen):
            result.rejected["no labelled joint"] += 1
        elif not np.isfinite(seen).all():
            result.rejected["numbers missing or not finite"] += 1
        else:
            low, high = seen.min(0), seen.max(0)
            margin = MARGIN * max((high - low).max(), 1.0)
            box = Box(*(low - margin), *(high - low + 2 * margin))
            result.people.append(
                LabelledPerson(file, number, number, box, points, visibility.astype(np.uint8))
            )
    return result
