import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.detectors.letterbox import PADDING, Letterbox

SIZES = [(320, 320), (384, 256), (256, 384)]
sides = st.integers(1, 5000)


@given(sides, sides)
def test_the_photo_fills_the_input_in_one_direction_and_fits_in_the_other(
    width: int, height: int
) -> None:
    letterbox = Letterbox.fit((width, height), SIZES)
    fills = [a == b for a, b in zip(letterbox.fitted, letterbox.size, strict=True)]
    assert any(fills)
    assert all(1 <= a <= b for a, b in zip(letterbox.fitted, letterbox.size, strict=True))
    whole = letterbox.to_image(np.array([[0.0, 0, *letterbox.fitted]]))
    np.testing.assert_allclose(whole[0], [0, 0, width, height])


@given(st.integers(1, 60), st.integers(1, 60), st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_boxes_are_clipped_to_the_photo(width: int, height: int, low: float, high: float) -> None:
    corners = Letterbox.fit((width, height), SIZES).to_image(np.array([[low, low, high, high]]))
    assert (corners >= 0).all()
    assert (corners <= [width, height, width, height]).all()


def test_a_photo_goes_into_the_size_in_which_it_is_largest() -> None:
    assert Letterbox.fit((600, 400), SIZES).size == (384, 256)
    assert Letterbox.fit((400, 600), SIZES).size == (256, 384)
    assert Letterbox.fit((500, 500), SIZES).size == (320, 320)


def test_the_photo_lies_at_the_top_left_and_the_rest_is_padding() -> None:
    pixels = np.full((50, 100, 3), 200, np.uint8)
    placed = Letterbox.fit((100, 50), [(320, 320)]).place(pixels)
    assert placed.shape == (320, 320, 3)
    assert (placed[:160] == 200).all()
    assert (placed[160:] == PADDING).all()


def test_a_shrinking_photo_is_averaged_and_not_sampled() -> None:
    board = (np.indices((640, 640)).sum(axis=0) % 2 * 255).astype(np.uint8)
    placed = Letterbox.fit((640, 640), [(320, 320)]).place(np.repeat(board[..., None], 3, axis=2))
    assert placed.min() >= 127
    assert placed.max() <= 128


@pytest.mark.parametrize("size", [(2560, 1920), (2564, 1282), (4032, 3024), (2559, 1280)])
def test_a_large_photo_is_averaged_as_if_at_once(size: tuple[int, int]) -> None:
    noise = np.random.default_rng(7).integers(0, 256, (*size[::-1], 3), np.uint8)
    pixels = np.asarray(cv2.blur(noise, (15, 15)), np.uint8)
    letterbox = Letterbox.fit(size, [(320, 320)])
    width, height = letterbox.fitted
    whole = cv2.resize(pixels, letterbox.fitted, interpolation=cv2.INTER_AREA).astype(int)
    assert np.abs(letterbox.place(pixels)[:height, :width] - whole).max() <= 2


@pytest.mark.parametrize("side", [31, 320, 777, 2560])
def test_an_edge_in_the_photo_lies_where_the_map_says(side: int) -> None:
    # Left half black, right half white: their border is an edge of a box.
    pixels = np.zeros((side, 2 * side, 3), np.uint8)
    pixels[:, side:] = 255
    letterbox = Letterbox.fit((2 * side, side), [(320, 320)])
    row = letterbox.place(pixels)[0, :, 0].astype(float) / 255
    # The white share of the row measures the border to a fraction of a pixel.
    border = letterbox.to_image(np.array([[320 - row.sum(), 0, 320, 320]]))[0, 0]
    assert border == pytest.approx(side, abs=0.02 * 2 * side / letterbox.fitted[0])
