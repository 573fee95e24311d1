import matplotlib as mpl
import numpy as np
import pytest
from numpy.typing import NDArray

from models.draw import Colormap, colour, draw_people
from models.geometry import Box
from models.keypoints import COCO17, LEFT, RIGHT
from models.predictor import Person, Pose

GREEN = np.full((120, 160, 3), (40, 120, 40), np.uint8)
RAMP = np.linspace(0, 1, 256)[None]


def person(score: float = 0.9, **at: tuple[float, float]) -> Person:
    """Only the joints that are named have a score."""
    points = np.zeros((17, 2))
    scores = np.zeros(17)
    for name, point in at.items():
        points[COCO17.index(name)] = point
        scores[COCO17.index(name)] = score
    pose = Pose(points=points, scores=scores, resolution=None)
    return Person(box=Box(0, 0, 160, 120, 1.0), poses={"simcc": pose})


def changed(picture: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return np.asarray((picture != GREEN).any(axis=2))


def test_limbs_take_the_colour_of_their_side() -> None:
    picture = draw_people(
        GREEN,
        [
            person(left_knee=(40, 20), left_ankle=(40, 100)),
            person(right_knee=(120, 20), right_ankle=(120, 100)),
        ],
        COCO17,
    )
    assert tuple(picture[60, 40]) == LEFT
    assert tuple(picture[60, 120]) == RIGHT


@pytest.mark.parametrize("y", [60.0, 60.25, 60.5, 60.75])
def test_a_limb_lies_on_its_joints_not_on_the_nearest_whole_pixels(y: float) -> None:
    picture = draw_people(GREEN, [person(left_knee=(20, y), left_ankle=(140, y))], COCO17)
    ink = np.abs(picture[:, 80].astype(float) - GREEN[:, 80]).sum(axis=1)
    assert np.average(np.arange(120), weights=ink) == pytest.approx(y, abs=0.3)


def test_a_joint_under_the_threshold_and_its_limbs_are_left_out() -> None:
    low = person(score=0.29, left_knee=(40, 20), left_ankle=(40, 100))
    assert not changed(draw_people(GREEN, [low], COCO17)).any()
    assert changed(draw_people(GREEN, [low], COCO17, min_score=0.2)).any()


def test_the_photo_itself_is_left_as_it_is() -> None:
    before = GREEN.copy()
    draw_people(GREEN, [person(nose=(80, 60))], COCO17)
    np.testing.assert_array_equal(GREEN, before)


def test_an_outline_sets_the_limb_off_from_a_background_of_its_own_colour() -> None:
    sky = np.full((120, 160, 3), LEFT, np.uint8)
    picture = draw_people(sky, [person(left_knee=(40, 20), left_ankle=(40, 100))], COCO17)
    assert picture[60, 30:51].min() < 60
    assert tuple(picture[60, 40]) == LEFT


def test_larger_people_get_wider_lines() -> None:
    widths = []
    for scale in (1, 4):
        image = np.zeros((120 * scale, 160 * scale, 3), np.uint8)
        someone = person(left_knee=(40 * scale, 20 * scale), left_ankle=(40 * scale, 100 * scale))
        someone = Person(Box(0, 0, 160 * scale, 120 * scale, 1.0), someone.poses)
        widths.append((draw_people(image, [someone], COCO17)[60 * scale] > 0).any(axis=1).sum())
    assert widths[1] >= 2 * widths[0]


def test_the_best_person_is_on_top() -> None:
    best = person(left_knee=(20, 60), left_ankle=(140, 60))
    other = person(right_knee=(80, 10), right_ankle=(80, 110))
    assert tuple(draw_people(GREEN, [best, other], COCO17)[60, 80]) == LEFT


@pytest.mark.parametrize("far", [1e3, -1e3, 1e9, -1e9])
def test_joints_far_outside_the_image_are_no_trouble(far: float) -> None:
    picture = draw_people(GREEN, [person(left_knee=(80, 60), left_ankle=(far, far))], COCO17)
    assert picture.shape == GREEN.shape
    assert changed(picture).any()


@pytest.mark.parametrize("colormap", ["viridis", "turbo"])
def test_colours_are_matplotlibs_within_2_of_255(colormap: Colormap) -> None:
    expected = mpl.colormaps[colormap](RAMP, bytes=True)[..., :3]
    found = colour(RAMP, colormap)
    assert found.shape == (1, 256, 3)
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= 2


def test_grey_goes_from_black_to_white_and_clips() -> None:
    np.testing.assert_array_equal(
        colour(np.array([[-1.0, 0.0, 0.2, 1.0, 7.0]])), [[0, 0, 51, 255, 255]]
    )


@pytest.mark.parametrize("colormap", ["grey", "viridis", "turbo"])
def test_alpha_is_transparent_at_0_opaque_from_a_half_and_keeps_the_colours(
    colormap: Colormap,
) -> None:
    found = colour(RAMP, colormap, alpha=True)
    assert found.shape == (1, 256, 4)
    opacity = found[0, :, 3].astype(int)
    assert (opacity[0], opacity[64], opacity[128]) == (0, 128, 255)
    assert (np.diff(opacity) >= 0).all()
    plain = colour(RAMP, colormap)
    np.testing.assert_array_equal(
        found[..., :3], plain if plain.ndim == 3 else np.repeat(plain[..., None], 3, 2)
    )
