from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.codecs import HeatmapCodec
from models.keypoints import COCO17

SIZE, GRID = (192, 256), (48, 64)
LEGACY = HeatmapCodec(SIZE, GRID, 2.0)
SHARP = HeatmapCodec(SIZE, GRID, 2.0, blur=1)
UDP = HeatmapCodec(SIZE, GRID, 2.0, "udp")
MIRROR = COCO17.mirror

pytestmark = pytest.mark.usefixtures("one_thread")

kinds = pytest.mark.parametrize(
    "array",
    [lambda x: np.asarray(x, np.float64), lambda x: torch.asarray(x, dtype=torch.float32)],
    ids=["numpy", "torch"],
)
codecs = pytest.mark.parametrize("codec", [LEGACY, UDP], ids=["legacy", "udp"])


def _maps(codec: HeatmapCodec, points: Any) -> Any:  # noqa: ANN401
    return codec.encode(points, points[..., 0] == points[..., 0])[0]


def _peak_at(codec: HeatmapCodec, x: float, y: float) -> Any:  # noqa: ANN401
    """The map whose bump's centre is at these cells."""
    return _maps(codec, codec.to_crop(np.array([[[x, y]]])))


def test_a_grid_maps_to_the_crop_as_published() -> None:
    assert LEGACY.to_grid(np.array([50.3, 50.3])) == pytest.approx([12.575, 12.575])
    assert UDP.to_grid(np.array([50.3, 0]))[0] == pytest.approx(12.377487, abs=5e-7)
    corner = np.array([191.0, 255.0])
    np.testing.assert_allclose(UDP.to_grid(corner), [47, 63])
    np.testing.assert_allclose(LEGACY.to_grid(corner), [47.75, 63.75])
    for codec in (LEGACY, UDP):
        np.testing.assert_allclose(codec.to_crop(codec.to_grid(corner)), corner)


def test_decodes_are_the_published_ones() -> None:
    map_ = _peak_at(SHARP, 20.3, 25.7)

    def cells(codec: HeatmapCodec, map_: Any, decode: Any) -> Any:  # noqa: ANN401
        return codec.to_grid(codec.decode(map_, decode).points)[0, 0]

    np.testing.assert_allclose(cells(SHARP, map_, "argmax"), [20, 26], atol=1e-9)
    assert SHARP.decode(map_, "argmax").scores == pytest.approx(0.977751, abs=5e-7)
    np.testing.assert_allclose(cells(SHARP, map_, "quarter"), [20.25, 25.75], atol=1e-9)
    np.testing.assert_allclose(cells(SHARP, map_, "dark"), [20.3, 25.7], atol=1e-6)
    np.testing.assert_allclose(cells(LEGACY, map_, "dark"), [20.299845, 25.700155], atol=1e-6)
    edge = _peak_at(LEGACY, 3.3, 25.7)
    np.testing.assert_allclose(cells(LEGACY, edge, "dark"), [3.327790, 25.700155], atol=1e-6)
    udp = HeatmapCodec(SIZE, GRID, 2.0, "udp", blur=1)
    np.testing.assert_allclose(
        cells(udp, _peak_at(udp, 20.3, 25.7), "dark"), [20.3, 25.7], atol=1e-6
    )


@pytest.mark.parametrize(("u", "cell"), [(50.3, 13), (49.9, 12)])
def test_rounded_targets_stand_on_a_cell(u: float, cell: int) -> None:
    target, _ = LEGACY.encode(np.array([u, 100.0]), np.array(True), rounded=True)
    assert target[25, cell] == 1
    assert target[25, cell + 1] == target[25, cell - 1] == pytest.approx(0.882497, abs=5e-7)


@codecs
@pytest.mark.parametrize(
    ("cell", "visible", "weight"),
    [
        ((20, 20), True, 1),
        ((20, 20), False, 0),
        ((-5.9, 20), True, 1),
        ((-6.1, 20), True, 0),
        ((20, 68.9), True, 1),
        ((20, 69.1), True, 0),
    ],
)
def test_a_joint_weighs_while_some_of_its_label_is_inside(
    codec: HeatmapCodec, cell: tuple[float, float], visible: bool, weight: float
) -> None:
    point = codec.to_crop(np.array(cell, float))
    assert codec.encode(point, np.array(visible))[1] == weight


@kinds
@codecs
@settings(max_examples=25)
@given(cells=st.lists(st.tuples(st.floats(9, 38), st.floats(9, 54)), min_size=1, max_size=4))
def test_labels_decode_to_their_joints(
    array: Any,  # noqa: ANN401
    codec: HeatmapCodec,
    cells: list[tuple[float, float]],
) -> None:
    points = codec.to_crop(array([cells]))
    maps = _maps(codec, points)
    for decode, bound in (("argmax", 0.501), ("quarter", 0.2501), ("dark", 0.01)):
        decoded = codec.decode(maps, decode)  # type: ignore[arg-type]
        np.testing.assert_allclose(codec.to_grid(decoded.points), [cells], atol=bound)
        # The peak falls between cells: at worst half a cell off each way.
        assert np.exp(-0.5 / 8) * np.exp(-0.5 / 8) < float(decoded.scores.min())
        assert float(decoded.scores.max()) <= 1


@kinds
@codecs
@settings(max_examples=25)
@given(x=st.floats(0, 47), y=st.floats(0, 63))
def test_the_border_leads_no_decode_far_astray(
    array: Any,  # noqa: ANN401
    codec: HeatmapCodec,
    x: float,
    y: float,
) -> None:
    maps = _maps(codec, codec.to_crop(array([[[x, y]]])))
    for decode in ("argmax", "quarter", "dark"):
        found = codec.to_grid(codec.decode(maps, decode).points)
        np.testing.assert_allclose(found, [[[x, y]]], atol=1.0)


def test_dark_is_darkpose_s_step_on_opencv_s_blur() -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        at = random.uniform((9, 9), (38, 54))
        map_ = _peak_at(LEGACY, *at)[0, 0] + 0.05 * random.random((64, 48))
        blurred = cv2.GaussianBlur(map_, (11, 11), 0, borderType=cv2.BORDER_CONSTANT)
        f = np.log(blurred * map_.max() / blurred.max())
        y, x = np.unravel_index(map_.argmax(), map_.shape)
        slope = 0.5 * np.array([f[y, x + 1] - f[y, x - 1], f[y + 1, x] - f[y - 1, x]])
        xx = 0.25 * (f[y, x + 2] - 2 * f[y, x] + f[y, x - 2])
        yy = 0.25 * (f[y + 2, x] - 2 * f[y, x] + f[y - 2, x])
        xy = 0.25 * (f[y + 1, x + 1] - f[y + 1, x - 1] - f[y - 1, x + 1] + f[y - 1, x - 1])
        expected = [x, y] - np.linalg.solve([[xx, xy], [xy, yy]], slope)
        found = LEGACY.to_grid(LEGACY.decode(map_[None, None], "dark").points)[0, 0]
        np.testing.assert_allclose(found, expected, atol=1e-6)


@kinds
@codecs
@pytest.mark.parametrize("decode", ["argmax", "quarter", "dark"])
@pytest.mark.parametrize("value", [0.0, 0.3, 7.0, -1.0, np.nan])
def test_flat_maps_decode_to_something_in_the_crop(
    array: Any,  # noqa: ANN401
    codec: HeatmapCodec,
    decode: Any,  # noqa: ANN401
    value: float,
) -> None:
    decoded = codec.decode(array(np.full((2, 3, 64, 48), value)), decode)
    assert decoded.points.shape == (2, 3, 2)
    if not np.isnan(value):
        np.testing.assert_array_equal(decoded.points, np.zeros((2, 3, 2)))
        assert float(decoded.scores.max()) == np.float32(min(max(value, 0), 1))


@kinds
def test_noise_moves_no_peak_by_more_than_its_cells(array: Any) -> None:  # noqa: ANN401
    maps = array(np.random.default_rng(0).random((4, 17, 64, 48)))
    for codec in (LEGACY, SHARP, UDP):
        peak = codec.to_grid(codec.decode(maps, "argmax").points)
        dark = codec.to_grid(codec.decode(maps, "dark").points)
        assert float(abs(dark - peak).max()) <= 2.001


def test_legacy_mirrored_maps_come_back_three_quarters_of_a_cell_off() -> None:
    # The published example: 12.575, of which the reversed map sees 11.825.
    points = np.tile([50.3, 100.0], (1, 17, 1))
    mirrored = _maps(LEGACY, points * [-1, 1] + [191, 0])
    reversed_ = mirrored[..., ::-1]
    np.testing.assert_allclose(
        SHARP.to_grid(SHARP.decode(reversed_, "dark").points)[..., 0], 11.825, atol=1e-6
    )
    back = SHARP.unmirror(mirrored, MIRROR)
    found = SHARP.to_grid(SHARP.decode(back, "dark").points)[..., 0]
    # Resampled linearly: the bump widens, and leans a little.
    np.testing.assert_allclose(found, 12.575, atol=0.02)


@kinds
def test_udp_mirrored_maps_come_back_exactly(array: Any) -> None:  # noqa: ANN401
    points = np.random.default_rng(0).uniform((20, 20), (170, 230), (2, 17, 2))
    mirrored = points[:, list(MIRROR)] * [-1, 1] + [191, 0]
    back = UDP.unmirror(_maps(UDP, array(mirrored)), MIRROR)
    np.testing.assert_allclose(back, _maps(UDP, array(points)), atol=1e-4)


@kinds
@codecs
def test_the_field_passes_through_every_cell(array: Any, codec: HeatmapCodec) -> None:  # noqa: ANN401
    maps = np.random.default_rng(0).random((2, 3, 64, 48))
    columns = codec.to_crop(np.stack([np.arange(48.0), np.zeros(48)], -1))[:, 0]
    rows = codec.to_crop(np.stack([np.zeros(64), np.arange(64.0)], -1))[:, 1]
    field = codec.field(array(maps), array(columns), array(rows))
    np.testing.assert_allclose(field, maps, atol=1e-5)


@kinds
@codecs
def test_the_field_is_smooth_between_cells(array: Any, codec: HeatmapCodec) -> None:  # noqa: ANN401
    point = np.array([77.3, 130.8])
    columns, rows = np.linspace(-0.5, 191.5, 97), np.linspace(-0.5, 255.5, 129)
    field = codec.field(_maps(codec, array(point[None, None])), array(columns), array(rows))
    sigma = 2 * np.array(codec.pitch)
    exact = np.exp(
        -(((columns - point[0]) / sigma[0]) ** 2) / 2
        - (((rows - point[1]) / sigma[1]) ** 2)[:, None] / 2
    )
    np.testing.assert_allclose(np.asarray(field)[0, 0], exact, atol=0.01)


@kinds
def test_the_field_stays_between_0_and_1(array: Any) -> None:  # noqa: ANN401
    maps = np.random.default_rng(0).choice([-0.2, 0.0, 1.0, 1.3], (1, 2, 64, 48))
    field = LEGACY.field(
        array(maps), array(np.linspace(0, 191, 300)), array(np.linspace(0, 255, 300))
    )
    assert 0 <= float(field.min()) < float(field.max()) <= 1


@kinds
@codecs
def test_the_spread_is_that_of_the_labels_and_grows_with_theirs(
    array: Any,  # noqa: ANN401
    codec: HeatmapCodec,
) -> None:
    points = array([[[80.0, 97.0], [120.0, 130.5]]])
    spreads = []
    for sigma in (2.0, 2.6):
        wide = HeatmapCodec(SIZE, GRID, sigma, codec.mapping)
        spreads.append(np.asarray(codec.spread(_maps(wide, points), points)))
    exact = 2 * np.hypot(*codec.pitch)
    np.testing.assert_allclose(spreads[0], exact, rtol=0.03)
    assert (spreads[1] > 1.1 * spreads[0]).all()
    # What lies far away is another joint's business.
    alone = _maps(codec, points)
    both = alone + _maps(codec, array([[[20.0, 20.0], [20.0, 20.0]]]))
    np.testing.assert_allclose(
        np.asarray(codec.spread(both, points)), np.asarray(codec.spread(alone, points)), rtol=1e-3
    )
