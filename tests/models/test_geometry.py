import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.geometry import LARGEST_PX, Box, CropGeometry, CropMatrix, denormalise, normalise

SIZE = (192, 256)
BOX = Box(50, 40, 80, 200)
POINT = np.array([101.5, 77.25])

matrices = st.sampled_from(["legacy", "udp"])
coordinates = st.floats(-1e4, 1e4)
sides = st.floats(0.5, 5e3)
boxes = st.builds(Box, coordinates, coordinates, sides, sides)
sizes = st.tuples(st.integers(16, 400), st.integers(16, 400))


def _blob(width: int, height: int, center: tuple[float, float], sigma: float) -> NDArray[np.uint8]:
    """A smooth bump on black."""
    x = np.exp(-((np.arange(width) - center[0]) ** 2) / (2 * sigma**2))
    y = np.exp(-((np.arange(height) - center[1]) ** 2) / (2 * sigma**2))
    grey = np.rint(255 * np.outer(y, x)).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1)


def _center_of_mass(crop: NDArray[np.uint8]) -> NDArray[np.float64]:
    mass = crop[..., 0].astype(float)
    rows, columns = np.indices(mass.shape)
    center = np.array([(columns * mass).sum(), (rows * mass).sum()]) / mass.sum()
    return np.asarray(center, np.float64)


def test_padding_widens_to_the_aspect_about_the_centre() -> None:
    padded = BOX.padded(192 / 256, 1.25)
    assert padded.center == BOX.center == (90, 140)
    assert (padded.width, padded.height) == (187.5, 250)
    wide = Box(0, 0, 300, 100).padded(192 / 256, 1)
    assert (wide.width, wide.height) == (300, 400)


def test_legacy_matrix_is_the_published_one() -> None:
    geometry = CropGeometry.from_box(BOX, SIZE)
    np.testing.assert_allclose(geometry.matrix, [[1.024, 0, 3.84], [0, 1.024, -15.36]], atol=1e-12)
    np.testing.assert_allclose(geometry.to_crop(POINT), [107.776, 63.744], atol=1e-9)
    np.testing.assert_allclose(
        geometry.to_image(np.array([[0.0, 0], [191, 255]])),
        [[-3.75, 15], [182.773438, 264.023438]],
        atol=1e-6,
    )


def test_udp_matrix_is_the_published_one() -> None:
    geometry = CropGeometry.from_box(BOX, SIZE, matrix="udp")
    np.testing.assert_allclose(np.diag(geometry.matrix), [1.018667, 1.02], atol=1e-6)
    np.testing.assert_allclose(geometry.to_crop(POINT), [107.214667, 63.495], atol=1e-6)


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [("legacy", (74.070315, 66.464672)), ("udp", (73.684532, 66.205044))],
)
def test_rotation_is_the_published_one(matrix: CropMatrix, expected: tuple[float, float]) -> None:
    geometry = CropGeometry.from_box(BOX, SIZE, matrix=matrix, rotation=30)
    np.testing.assert_allclose(geometry.to_crop(POINT), expected, atol=1e-6)
    if matrix == "legacy":
        expected_matrix = [[0.886810, 0.512, -55.492901], [-0.512, 0.886810, 49.926598]]
        np.testing.assert_allclose(geometry.matrix, expected_matrix, atol=1e-6)


@given(boxes, sizes, matrices, st.floats(-180, 180), st.booleans(), coordinates, coordinates)
def test_image_to_crop_and_back_is_exact(
    box: Box,
    size: tuple[int, int],
    matrix: CropMatrix,
    rotation: float,
    mirrored: bool,
    x: float,
    y: float,
) -> None:
    geometry = CropGeometry.from_box(box, size, matrix=matrix, rotation=rotation, mirrored=mirrored)
    points = np.array([[x, y], box.center])
    np.testing.assert_allclose(geometry.to_image(geometry.to_crop(points)), points, atol=1e-6)


@given(boxes, sizes, matrices, st.floats(-180, 180), coordinates, coordinates)
def test_a_mirrored_crop_has_every_point_on_the_mirrored_column(
    box: Box, size: tuple[int, int], matrix: CropMatrix, rotation: float, x: float, y: float
) -> None:
    plain, mirrored = (
        CropGeometry.from_box(box, size, matrix=matrix, rotation=rotation, mirrored=mirrored)
        for mirrored in (False, True)
    )
    u, v = plain.to_crop(np.array([x, y]))
    # Both maps have terms as large as the product of position and scale, which cancel.
    atol = 1e-9 * max(1.0, np.abs(plain.matrix).max() * 1e4)
    np.testing.assert_allclose(mirrored.to_crop(np.array([x, y])), [size[0] - 1 - u, v], atol=atol)


@given(boxes, sizes, st.integers(1, 5000), coordinates, coordinates)
def test_only_udp_crops_a_mirrored_image_to_the_mirrored_crop(
    box: Box, size: tuple[int, int], width: int, x: float, y: float
) -> None:
    other = Box(width - 1 - box.x - box.width, box.y, box.width, box.height)
    for matrix, beyond in (("udp", 0), ("legacy", 1)):
        geometry = CropGeometry.from_box(box, size, matrix=matrix)  # type: ignore[arg-type]
        u, v = geometry.to_crop(np.array([x, y]))
        opposite = CropGeometry.from_box(other, size, matrix=matrix)  # type: ignore[arg-type]
        atol = 1e-9 * max(1.0, np.abs(geometry.matrix).max() * 1e4)
        np.testing.assert_allclose(
            opposite.to_crop(np.array([width - 1 - x, y])),
            [size[0] - 1 - u + beyond, v],
            atol=atol,
        )


def test_the_crop_knows_its_extent_in_the_image() -> None:
    for mirrored in (False, True):
        box = CropGeometry.from_box(BOX, SIZE, mirrored=mirrored).box
        assert (box.width, box.height) == pytest.approx((187.5, 250))
        # Half a crop pixel before the first pixel's centre; boxes count from a pixel's edge.
        assert box.y == pytest.approx(15 + 0.5 - 0.5 / 1.024)
    one_to_one = CropGeometry.from_box(Box(10, 20, 192, 256), SIZE, padding=1).box
    assert (one_to_one.x, one_to_one.y) == pytest.approx((10, 20))


@pytest.mark.parametrize(
    ("box", "clipped"),
    [
        (Box(10, 20, 30, 40), Box(10, 20, 29, 39)),
        (Box(-5, -5, 30, 40), Box(0, 0, 29, 39)),
        (Box(90, 20, 30, 40), Box(90, 20, 9, 39)),
        (Box(100, 20, 30, 40), None),
        (Box(10, 20, 1, 40), None),
        (Box(10, 20, -3, 40), None),
    ],
)
def test_ground_truth_boxes_are_clipped_as_coco_does(box: Box, clipped: Box | None) -> None:
    assert box.clipped(100, 80) == clipped


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        (Box(0, 0, 0, 10), "no area"),
        (Box(0, 0, 10, -1), "no area"),
        (Box(math.nan, 0, 10, 10), "not finite"),
        (Box(0, 0, math.inf, 10), "not finite"),
        (Box(0, 0, 10, 1e300), "not between"),
        (Box(0, 0, 1e-300, 10), "not between"),
    ],
)
def test_a_box_that_makes_no_crop_is_refused(box: Box, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        CropGeometry.from_box(box, SIZE)


@pytest.mark.parametrize("padding", [0.05, 0.3, 0.53, 0.77, 1.25])
@pytest.mark.parametrize(
    "how",
    [
        {},
        {"matrix": "udp"},
        {"matrix": "udp", "rotation": 30, "mirrored": True},
        {"rotation": -100},
    ],
)
def test_a_large_photo_is_reduced_without_a_shift(how: dict[str, Any], padding: float) -> None:
    center = 2001.37, 1507.81
    geometry = CropGeometry.from_box(
        Box(center[0] - 1100, center[1] - 1500, 2200, 3000), SIZE, padding=padding, **how
    )
    pitch = 1 / np.sqrt(abs(np.linalg.det(geometry.matrix[:, :2])))
    # A bump of 12 crop pixels, off the middle, far from every border.
    seen = geometry.to_image(np.array([80.3, 140.9]))
    image = _blob(4000, 3000, (float(seen[0]), float(seen[1])), 12 * pitch)
    found = _center_of_mass(geometry.cut(image))
    np.testing.assert_allclose(found, [80.3, 140.9], atol=0.05)


def test_a_large_photo_is_reduced_without_aliasing() -> None:
    rows, columns = np.indices((2999, 2201))
    board = np.repeat(((rows + columns) % 2 * 255).astype(np.uint8)[..., None], 3, axis=-1)
    for width in (500, 900, 1300, 1700):
        crop = CropGeometry.from_box(
            Box(1100 - width / 2, 1500 - width / 1.5, width, width / 0.75), SIZE, padding=1
        ).cut(board)
        # A board finer than the crop's pixels is grey. Sampled without reduction it is 0 or 255.
        assert abs(crop.mean() - 127.5) < 2
        assert crop.std() < (50 if width < 2 * SIZE[0] else 10)


def test_a_photo_no_larger_than_its_crop_is_not_touched() -> None:
    image = np.random.default_rng(0).integers(0, 256, (256, 192, 3), dtype=np.uint8)
    geometry = CropGeometry.from_box(Box(0, 0, 192, 256), SIZE, padding=1)
    np.testing.assert_array_equal(geometry.cut(image), image)


@pytest.mark.parametrize("scale", [0.5, 1, 9])
@pytest.mark.parametrize("matrix", ["legacy", "udp"])
def test_mirrored_geometry_cuts_mirrored_pixels(matrix: CropMatrix, scale: float) -> None:
    random = np.random.default_rng(1)
    coarse = random.integers(0, 256, (30, 24, 3), dtype=np.uint8)
    image = coarse.repeat(40, axis=0).repeat(40, axis=1)
    box = Box(400.3, 500.7, 80 * scale, 90 * scale)
    plain, mirrored = (
        CropGeometry.from_box(box, SIZE, matrix=matrix, mirrored=mirrored).cut(image).astype(int)
        for mirrored in (False, True)
    )
    assert np.abs(plain[:, ::-1] - mirrored).max() <= 2


@given(
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
    st.floats(-200, 200),
    st.floats(-200, 200),
    st.floats(1, 900),
    st.floats(1, 900),
    matrices,
    st.sampled_from([0, 33, 90, -141]),
    st.booleans(),
)
def test_a_crop_is_the_image_inside_and_black_outside(
    shape: tuple[int, int],
    x: float,
    y: float,
    width: float,
    height: float,
    matrix: CropMatrix,
    rotation: float,
    mirrored: bool,
) -> None:
    rows, columns = shape
    geometry = CropGeometry.from_box(
        Box(x, y, width, height), (24, 32), matrix=matrix, rotation=rotation, mirrored=mirrored
    )
    crop = geometry.cut(np.full((rows, columns, 3), 200, np.uint8))
    assert crop.shape == (32, 24, 3)
    v, u = np.indices((32, 24))
    px, py = np.moveaxis(geometry.to_image(np.stack([u, v], axis=-1)), -1, 0)
    # How far within the image each crop pixel's centre lies, below 0 outside.
    depth = np.minimum.reduce([px, py, columns - 1 - px, rows - 1 - py])
    # Bilinear sampling of the image, reduced where a crop pixel covers more than one of its own.
    pitch = max(1.0, 1 / math.sqrt(abs(np.linalg.det(geometry.matrix[:, :2]))))
    assert (np.abs(crop[depth >= pitch].astype(int) - 200) <= 1).all()
    assert (crop[depth <= -2 * pitch - 1] == 0).all()


@pytest.mark.parametrize("side", [1e5, 1e7, LARGEST_PX])
@pytest.mark.parametrize("shape", [(100, 100), (3, 20000), (20000, 1), (1, 1)])
def test_a_huge_box_costs_no_more_than_the_image(side: float, shape: tuple[int, int]) -> None:
    geometry = CropGeometry.from_box(Box(-side / 2, -side / 2, side, side), SIZE)
    assert geometry.cut(np.full((*shape, 3), 255, np.uint8)).shape == (256, 192, 3)


@pytest.mark.parametrize("shape", [(0, 5, 3), (5, 0, 3), (0, 0, 3)])
def test_an_empty_image_is_black(shape: tuple[int, int, int]) -> None:
    assert not CropGeometry.from_box(BOX, SIZE).cut(np.zeros(shape, np.uint8)).any()


def test_a_view_of_an_image_is_cut_as_a_copy_is() -> None:
    image = np.random.default_rng(2).integers(0, 256, (300, 200, 3), dtype=np.uint8)
    geometry = CropGeometry.from_box(BOX, SIZE)
    view = image[::-1, ::-1, ::-1]
    np.testing.assert_array_equal(geometry.cut(view), geometry.cut(view.copy()))


@pytest.mark.parametrize("array", [np.asarray, torch.asarray])
def test_normalised_positions_span_the_longer_side(array: Any) -> None:  # noqa: ANN401
    points = array([[95.5, 127.5], [0, 0], [50.3, 200.6], [-0.5, -0.5], [191.5, 255.5]])
    expected = [
        [0.0, 0.0],
        [-0.746094, -0.996094],
        [-0.353125, 0.571094],
        [-0.75, -1.0],
        [0.75, 1.0],
    ]
    np.testing.assert_allclose(normalise(points, SIZE), expected, atol=1e-6)
    np.testing.assert_allclose(denormalise(normalise(points, SIZE), SIZE), points, atol=1e-4)
