from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

pytest.importorskip("torch")

import torch

from models.bundle import BUNDLES, load_bundle
from models.engines import load_engine
from models.engines.torch import upload
from models.engines.torch_crops import cut_crops
from models.geometry import Box, CropGeometry
from models.pose import PoseModel

pytestmark = pytest.mark.usefixtures("one_thread")

place = partial(upload, device=torch.device("cpu"))

SIZE = (24, 32)


@st.composite
def geometries(draw: st.DrawFn) -> CropGeometry:
    """Of boxes from a hundredth of a pixel to thousands, in, across and beyond the photo.

    Of boxes of a million OpenCV itself is some levels off: its coordinates have 24 bits.
    """
    width, height = (2.0 ** draw(st.floats(-7, 13)) for _ in "xy")
    x, y = (draw(st.floats(-150, 300)) for _ in "xy")
    return CropGeometry.from_box(
        Box(x - width / 2, y - height / 2, width, height),
        SIZE,
        matrix=draw(st.sampled_from(["legacy", "udp"])),
        rotation=draw(st.sampled_from([0.0, 90.0]) | st.floats(-180, 180)),
        mirrored=draw(st.booleans()),
    )


def _most_levels_apart(photo: NDArray[np.uint8], crops: list[CropGeometry]) -> int:
    found = cut_crops(photo, crops, place)
    expected = np.stack([geometry.cut(photo) for geometry in crops])
    assert all(crop.dtype == torch.uint8 for crop in found)
    assert np.stack(found).shape == expected.shape
    return int(np.abs(np.stack(found).astype(int) - expected).max())


@settings(max_examples=200)
@given(
    st.tuples(st.integers(1, 150), st.integers(1, 150)),
    st.lists(geometries(), min_size=1, max_size=5),
    st.integers(0, 2**32 - 1),
    st.booleans(),
)
def test_crops_are_within_a_grey_level_of_the_hosts(
    shape: tuple[int, int], crops: list[CropGeometry], seed: int, stark: bool
) -> None:
    photo = np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)
    if stark:
        photo = np.where(photo > 127, 255, 0).astype(np.uint8)
    assert _most_levels_apart(photo, crops) <= 1


def test_a_large_photo_is_reduced_as_on_the_host() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (1999, 3001, 3), dtype=np.uint8)
    sides = (100, 500, 1900, 2900, 9000)
    boxes = [Box(1500 - side / 2, 1000 - side / 2, side, side) for side in sides]
    crops = [CropGeometry.from_box(box, (192, 256)) for box in boxes]
    assert len({crop.extent((3001, 1999)).factor for crop in crops}) == 5
    assert _most_levels_apart(photo, crops) <= 1


def test_only_what_is_read_of_a_photo_is_brought_to_the_device() -> None:
    brought: list[tuple[int, ...]] = []

    def watched(array: NDArray[np.generic]) -> torch.Tensor:
        brought.append(array.shape)
        return place(array)

    photo = np.zeros((1000, 2000, 3), np.uint8)
    boxes = [Box(500, 300, 60, 80), Box(530, 340, 60, 80)]
    cut_crops(photo, [CropGeometry.from_box(box, SIZE, padding=1) for box in boxes], watched)
    pixels, *maps = brought
    assert 90 <= pixels[1] <= 100
    assert 120 <= pixels[0] <= 130
    assert maps == [(2, 2, 3)]


@pytest.mark.parametrize("shape", [(0, 5, 3), (5, 0, 3), (40, 50, 3)])
def test_what_a_photo_does_not_show_is_black(shape: tuple[int, ...]) -> None:
    photo = np.full(shape, 255, np.uint8)
    beside = CropGeometry.from_box(Box(500, 10, 20, 30), SIZE)
    (crop,) = cut_crops(photo, [beside], place)
    assert crop.shape == (32, 24, 3)
    assert not crop.any()
    assert cut_crops(photo, [], place) == []


def test_photos_that_may_not_be_written_to_and_parts_of_others_are_cut_too() -> None:
    whole = np.random.default_rng(1).integers(0, 256, (80, 90, 3), dtype=np.uint8)
    turned = whole[::-1, 10:70].transpose(1, 0, 2)
    turned.flags.writeable = False
    assert _most_levels_apart(turned, [CropGeometry.from_box(Box(5, 6, 40, 50), SIZE)]) <= 1


def test_nothing_waits_for_the_device_or_mixes_it_with_the_host() -> None:
    # A device without numbers: whatever reads one back, or meets one of the host's, fails.
    def elsewhere(array: NDArray[np.generic]) -> torch.Tensor:
        return place(array).to("meta")

    photo = np.zeros((300, 400, 3), np.uint8)
    boxes = [Box(50, 50, 20, 20), Box(0, 0, 400, 300), Box(900, 0, 5, 5)]
    crops = cut_crops(photo, [CropGeometry.from_box(box, SIZE) for box in boxes], elsewhere)
    assert {crop.device.type for crop in crops} == {"meta"}


@pytest.mark.data
def test_joints_of_real_people_stay_where_they_are(data: Path) -> None:
    from training.data.images import read_image
    from training.truth import read_truth

    bundle = load_bundle(BUNDLES / "pose-s")
    model = PoseModel(bundle, load_engine(bundle, threads=1))
    moved = []
    for photo in read_truth(data, "coco/val").with_people().photos[:10]:
        pixels = read_image(photo.path)
        cuts, theirs = model.cut(pixels, [person.box for person in photo.people])
        ours = cut_crops(pixels, cuts, place)
        assert np.abs(np.stack(ours).astype(int) - np.stack(theirs)).max() <= 1
        a, b = (
            model.decode(model.encode(np.stack(crops)), "simcc", "expectation")
            for crops in (ours, theirs)
        )
        moved.append(np.linalg.norm(a.points - b.points, axis=-1).ravel())
    apart = np.concatenate(moved)
    assert np.median(apart) <= 0.02
    assert np.quantile(apart, 0.99) <= 0.1
