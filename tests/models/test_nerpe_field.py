import numpy as np

from models.nerpe_field import QUERIES
from tests.models.bumps import Bumps, bumps


def test_many_positions_are_asked_for_a_bounded_number_at_a_time() -> None:
    joints = np.random.default_rng(0).uniform(0, 190, (4, 5, 2))
    points = np.random.default_rng(1).uniform(-1, 1, (4, QUERIES["cpu"] // 2 + 3, 2))
    on_cpu, elsewhere = Bumps(), Bumps(device="cuda:0")
    values = bumps(joints, engine=on_cpu)(points)
    assert max(on_cpu.asked) == QUERIES["cpu"]
    assert len(on_cpu.asked) == 3
    np.testing.assert_array_equal(bumps(joints, engine=elsewhere)(points), values)
    assert len(elsewhere.asked) == 1


def test_a_mirror_image_is_asked_at_the_opposite_x_and_its_sides_change() -> None:
    joints = np.array([[[60.0, 40], [50, 90], [120, 200]]])
    # The mirrored crop shows joint 1 where joint 2 is, and the other way round.
    mirrored = joints[:, [0, 2, 1]] * [-1, 1] + [191, 0]
    points = np.random.default_rng(0).uniform(-1, 1, (1, 50, 2))
    plain = bumps(joints)(points)
    np.testing.assert_allclose(bumps(joints, mirrored)(points), plain, atol=1e-5)
    # A mirror image that sees the joints elsewhere counts for half.
    far = bumps(joints, mirrored + 1000)(points)
    np.testing.assert_allclose(far, plain / 2, atol=1e-6)


def test_one_crop_s_field_is_its_own() -> None:
    joints = np.random.default_rng(0).uniform(0, 190, (3, 3, 2))
    points = np.random.default_rng(1).uniform(-1, 1, (3, 20, 2))
    whole = bumps(joints, joints[::-1])
    assert len(whole) == 3
    np.testing.assert_array_equal(whole.of(1)(points[1:2]), whole(points)[1:2])
