from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.bundle import Bundle
from models.geometry import Box
from models.keypoints import COCO17
from models.pose import PoseModel
from models.predictor import HeadChoice
from tests.fakes import HEIGHT, WIDTH, FakeEngine, fake_manifest
from training.data.annotations import LabelledPerson
from training.equivariance import SCALES, SHIFTS, equivariance
from training.evaluation import Deviation, Evaluation, record
from training.report import equivariance_table
from training.truth import LabelledPhoto, Truth, read_truth

GREY = (100, 150, 200)


@pytest.fixture
def photo(tmp_path: Path) -> Callable[[Box], Truth]:
    """A photo of one colour, on which the fake engine finds joints at places of the crop."""

    def build(box: Box) -> Truth:
        path = tmp_path / "grey.png"
        Image.new("RGB", (120, 160), GREY).save(path)
        visibility = np.full(17, 2, np.uint8)
        visibility[3:] = 0
        person = LabelledPerson(path, 1, 1, box, np.zeros((17, 2)), visibility)
        return Truth("coco/dev", {}, (LabelledPhoto(path, 1, (person,), True, None, ""),))

    return build


def test_what_sticks_to_the_crop_goes_as_far_as_the_crop(photo: Callable[[Box], Truth]) -> None:
    model = PoseModel(Bundle(Path("fake"), fake_manifest(16), "sha256:fake"), FakeEngine())
    reading = [HeadChoice("simcc", "expectation")]
    shift, scale, flip = equivariance(model, photo(Box(30, 40, 60, 80)), readings=reading)
    lengths = np.hypot(*np.transpose(SHIFTS))
    assert [each.move for each in (shift, scale, flip)] == ["shift", "scale", "flip"]
    assert (shift.joints, scale.joints, flip.joints) == (3 * 4, 3 * 4, 3)
    assert shift.median_px == pytest.approx(np.median(lengths), abs=0.05)
    assert shift.p90_px == pytest.approx(np.quantile(np.repeat(lengths, 3), 0.9), abs=0.05)
    # The colour stays the same in the mirror: so do the joints' places in the crop.
    first = 6 + GREY[0] / 255 * 32 + np.arange(17) * 0.2
    mirror = list(COCO17.mirror)
    expected = np.median(np.abs(WIDTH - first[mirror] - first)[:3])
    assert flip.median_px == pytest.approx(expected, abs=1.5)
    # A box larger by a tenth takes the joints a tenth farther from its centre.
    second = 6 + GREY[1] / 255 * 48 + np.arange(3) * 0.2
    distance = np.hypot(first[:3] - WIDTH / 2, second - HEIGHT / 2)
    moved = np.abs(np.array(SCALES) - 1)[:, None] * distance
    assert scale.median_px == pytest.approx(np.median(moved), abs=0.05)


def test_the_table_has_a_row_a_decode() -> None:
    def deviation(decode: str, move: str) -> Deviation:
        return Deviation.model_validate(
            {
                "split": "coco/dev", "head": "nerpe", "decode": decode, "resolution": 64,
                "move": move, "joints": 9, "median_px": 0.126, "p90_px": 1.5,
            }
        )  # fmt: skip

    moves = ("shift", "flip")
    table = equivariance_table(
        [deviation(d, m) for d in ("standard", "progressive") for m in moves]
    )
    assert table.splitlines()[0] == "| head | decode | shift | flip |"
    assert table.splitlines()[2] == "| nerpe | standard, 64 | 0.13 / 1.50 | 0.13 / 1.50 |"
    assert len(table.splitlines()) == 4


@pytest.mark.data
def test_served_joints_move_less_with_the_crop_than_a_coarse_decode_s(
    model: PoseModel, data: Path, tmp_path: Path
) -> None:
    readings = [HeadChoice("heatmap", "dark"), HeadChoice("heatmap", "argmax")]
    found = equivariance(model, read_truth(data, "coco/dev"), readings=readings, people=12)
    medians = {(each.decode, each.move): each.median_px for each in found}
    assert medians["dark", "shift"] < 1.5
    for move in ("shift", "scale", "flip"):
        assert 0 < medians["dark", move] < medians["argmax", move] < 8
    path = tmp_path / "evaluation.json"
    record(path, model, equivariance=found)
    record(path, model)
    assert Evaluation.model_validate_json(path.read_bytes()).equivariance == tuple(found)
