import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from models.geometry import Box, CropGeometry
from service.heatmaps import Frame, Heatmap, Lattice, answer_bytes, largest_fit, shape

CROP = (192, 256)
PHOTO = (640, 480)
GEOMETRY = CropGeometry.from_box(Box(100, 50, 120, 300), CROP)


def positions(lattice: Lattice) -> np.ndarray:
    """Image px of all samples, (rows, columns, 2), by the affine."""
    a, b, c, d, e, f = lattice.affine
    column, row = np.meshgrid(np.arange(len(lattice.columns)), np.arange(len(lattice.rows)))
    return np.stack([a * column + b * row + c, d * column + e * row + f], axis=-1)


@pytest.mark.parametrize("frame", ["crop", "image"])
@pytest.mark.parametrize("resolution", [16, 100, 256, 2048])
def test_the_affine_leads_to_where_the_samples_are_asked(frame: Frame, resolution: int) -> None:
    lattice = Lattice.over(frame, resolution, GEOMETRY, PHOTO)
    columns, rows = np.meshgrid(lattice.columns, lattice.rows)
    asked = GEOMETRY.to_image(np.stack([columns, rows], axis=-1))
    np.testing.assert_allclose(positions(lattice), asked, atol=1e-6)


def test_over_the_image_at_its_own_size_samples_are_its_pixels() -> None:
    lattice = Lattice.over("image", 640, GEOMETRY, PHOTO)
    assert (len(lattice.columns), len(lattice.rows)) == PHOTO
    assert lattice.affine == (1, 0, 0, 0, 1, 0)


def test_over_the_crop_at_its_own_size_samples_are_its_pixels() -> None:
    lattice = Lattice.over("crop", 256, GEOMETRY, PHOTO)
    np.testing.assert_allclose(lattice.columns, np.arange(192))
    np.testing.assert_allclose(lattice.rows, np.arange(256))


@given(width=st.integers(1, 5000), height=st.integers(1, 5000), resolution=st.integers(16, 2048))
def test_the_longer_side_has_the_resolution_and_the_shorter_is_just_covered(
    width: int, height: int, resolution: int
) -> None:
    columns, rows = shape((width, height), resolution)
    assert max(columns, rows) == resolution
    pitch = max(width, height) / resolution
    for side, count in ((width, columns), (height, rows)):
        assert count * pitch >= side * (1 - 1e-9)
        assert (count - 1) * pitch < side


def test_the_largest_fit_fits_and_one_more_does_not() -> None:
    fit = largest_fit(1_000_000, CROP, 17, "npy", coloured=False)
    assert answer_bytes(CROP, fit, 17, "npy", coloured=False) <= 1_000_000
    assert answer_bytes(CROP, fit + 1, 17, "npy", coloured=False) > 1_000_000
    assert largest_fit(10, CROP, 17, "npy", coloured=False) == 0


@pytest.fixture
def heatmap() -> Heatmap:
    lattice = Lattice.over("crop", 16, GEOMETRY, PHOTO)
    values = np.random.default_rng(3).random((2, 16, 12)).astype(np.float32)
    return Heatmap(values, ("nose", "left_eye"), lattice)


def test_npy_is_exact(heatmap: Heatmap) -> None:
    loaded = np.load(io.BytesIO(heatmap.npy()))
    assert loaded.dtype == np.float32
    np.testing.assert_array_equal(loaded, heatmap.values)


def test_json_has_values_peaks_and_affine(heatmap: Heatmap) -> None:
    body = json.loads(heatmap.json())
    np.testing.assert_allclose(body["values"], heatmap.values, atol=5e-5)
    assert (body["channels"], body["height"], body["width"]) == (["nose", "left_eye"], 16, 12)
    peak = body["peaks"][1]
    assert heatmap.values[1, peak["row"], peak["column"]] == heatmap.values[1].max()
    np.testing.assert_allclose(
        (peak["x"], peak["y"]), positions(heatmap.lattice)[peak["row"], peak["column"]], atol=0.006
    )


def test_json_writes_every_value_with_four_decimals() -> None:
    lattice = Lattice.over("crop", 16, GEOMETRY, PHOTO)
    values = np.concatenate([np.arange(10_001) / 10_000, [0.00004, 0.99996, 1 / 3]])
    body = json.loads(Heatmap(values[None, None].astype(np.float32), ("nose",), lattice).json())
    assert body["values"] == [[[round(float(value), 4) for value in values]]]


def test_json_takes_no_more_than_predicted(heatmap: Heatmap) -> None:
    before, values = heatmap.json().split(b'"values":')
    assert len(before) < 1000
    assert len(values) <= answer_bytes(CROP, 16, 2, "json", coloured=False)


def test_png_shows_the_values_in_grey_and_in_colour(heatmap: Heatmap) -> None:
    grey = Image.open(io.BytesIO(heatmap.png("grey", alpha=False)))
    assert (grey.mode, grey.size) == ("L", (12, 16))
    np.testing.assert_allclose(np.asarray(grey) / 255, heatmap.values[0], atol=0.002)
    assert Image.open(io.BytesIO(heatmap.png("turbo", alpha=False))).mode == "RGB"
    assert Image.open(io.BytesIO(heatmap.png("viridis", alpha=True))).mode == "RGBA"
