from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from models import nerpe_field
from models.geometry import normalise
from models.nerpe_field import QUERIES, NerpeField, sample_lattice

SIZE = (192, 256)
SIGMA = 0.06
Floats = NDArray[np.float32]


@dataclass
class Bumps:
    """An engine whose cells are the joints' positions, (B, K, 2) crop px, and nothing else."""

    name: str = "bumps"
    device: str = "cpu"
    asked: list[int] = field(default_factory=list)

    def encode(self, crops: NDArray[np.uint8]) -> Floats:
        raise NotImplementedError

    def head(self, name: str, features: Floats) -> tuple[Floats, ...]:
        raise NotImplementedError

    def field(self, cells: Floats, points: Floats) -> Floats:
        assert points.dtype == np.float32
        self.asked.append(points.shape[0] * points.shape[1])
        offset = points[:, :, None] - normalise(cells, SIZE)[:, None]
        return np.asarray(np.exp(-(offset**2).sum(-1) / (2 * SIGMA**2)), np.float32)


def _field(
    joints: NDArray[np.floating], mirrored: NDArray[np.floating] | None = None
) -> NerpeField:
    mirror = tuple(range(joints.shape[1]))
    return NerpeField(
        Bumps(),
        joints.astype(np.float32),
        None if mirrored is None else mirrored.astype(np.float32),
        (*mirror[:1], *mirror[2:], mirror[1]) if len(mirror) == 3 else mirror,
    )


def _asked(nerpe: NerpeField) -> int:
    assert isinstance(nerpe.engine, Bumps)
    return sum(nerpe.engine.asked)


def _exact(
    joints: NDArray[np.floating], xs: NDArray[np.floating], ys: NDArray[np.floating]
) -> Floats:
    """(B, K, h, w), written out."""
    sigma = SIGMA * max(SIZE) / 2
    x = np.exp(-((xs - joints[..., 0, None]) ** 2) / (2 * sigma**2))
    y = np.exp(-((ys - joints[..., 1, None]) ** 2) / (2 * sigma**2))
    return np.asarray(y[..., :, None] * x[..., None, :], np.float32)


def test_many_positions_are_asked_for_a_bounded_number_at_a_time() -> None:
    joints = np.random.default_rng(0).uniform(0, 190, (4, 5, 2))
    nerpe = _field(joints)
    points = np.random.default_rng(1).uniform(-1, 1, (4, QUERIES // 2 + 3, 2))
    values = nerpe(points)
    assert isinstance(nerpe.engine, Bumps)
    assert max(nerpe.engine.asked) == QUERIES
    assert len(nerpe.engine.asked) == 3
    fresh = Bumps().field(joints.astype(np.float32), points.astype(np.float32))
    np.testing.assert_array_equal(values, fresh)


def test_a_mirror_image_is_asked_at_the_opposite_x_and_its_sides_change() -> None:
    joints = np.array([[[60.0, 40], [50, 90], [120, 200]]])
    # The mirrored crop shows joint 1 where joint 2 is, and the other way round.
    mirrored = joints[:, [0, 2, 1]] * [-1, 1] + [191, 0]
    points = np.random.default_rng(0).uniform(-1, 1, (1, 50, 2))
    plain = _field(joints)(points)
    np.testing.assert_allclose(_field(joints, mirrored)(points), plain, atol=1e-5)
    # A mirror image that sees the joints elsewhere counts for half.
    far = _field(joints, mirrored + 1000)(points)
    np.testing.assert_allclose(far, plain / 2, atol=1e-6)


def test_one_crop_s_field_is_its_own() -> None:
    joints = np.random.default_rng(0).uniform(0, 190, (3, 3, 2))
    points = np.random.default_rng(1).uniform(-1, 1, (3, 20, 2))
    whole = _field(joints, joints[::-1])
    assert len(whole) == 3
    np.testing.assert_array_equal(whole.of(1)(points[1:2]), whole(points)[1:2])


@settings(max_examples=30)
@given(
    st.lists(st.tuples(st.floats(-20, 211), st.floats(-20, 275)), min_size=1, max_size=3),
    st.integers(16, 160),
    st.sampled_from([SIZE, (300, 300), (1500, 200)]),
)
def test_refining_changes_nothing_that_can_be_seen(
    joints: list[tuple[float, float]], resolution: int, frame: tuple[int, int]
) -> None:
    pitch = max(frame) / resolution
    xs, ys = (np.arange(-0.5 + pitch / 2, side - 0.5, pitch) for side in frame)
    xs, ys = xs[xs < 191.5], ys[ys < 255.5]
    points = np.array([joints])
    wanted = list(range(len(joints)))
    refined, exact = (
        sample_lattice(_field(points), SIZE, xs, ys, wanted, exact=exact) for exact in (False, True)
    )
    assert refined.dtype == np.float32
    np.testing.assert_allclose(exact, _exact(points, xs, ys), atol=1e-5)
    np.testing.assert_allclose(refined, exact, atol=0.01)


def test_refining_asks_for_far_fewer_positions_and_finds_the_same_peak() -> None:
    points = np.array([[[100.2, 77.7], [30.9, 200.1]], [[-500.0, 0.0], [50.0, 50.0]]])
    xs, ys = (np.arange(side * 4) / 4 - 0.375 for side in SIZE)
    refining, exactly = _field(points), _field(points)
    refined = sample_lattice(refining, SIZE, xs, ys, [0, 1], exact=False)
    exact = sample_lattice(exactly, SIZE, xs, ys, [0, 1], exact=True)
    assert _asked(exactly) == 2 * len(xs) * len(ys)
    assert _asked(refining) < 0.35 * _asked(exactly)
    np.testing.assert_array_equal(refined.max((-2, -1)), exact.max((-2, -1)))
    np.testing.assert_array_equal(
        refined.reshape(2, 2, -1).argmax(-1)[[0, 0, 1], [0, 1, 1]],
        exact.reshape(2, 2, -1).argmax(-1)[[0, 0, 1], [0, 1, 1]],
    )


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (2, 40), (1, 500), (2, 2), (500, 2)])
@pytest.mark.parametrize("exact", [False, True])
def test_lattices_of_a_single_column_or_row_are_answered(
    shape: tuple[int, int], exact: bool
) -> None:
    points = np.array([[[90.0, 120.0]]])
    xs, ys = np.linspace(70, 110, shape[0]), np.linspace(100, 140, shape[1])
    found = sample_lattice(_field(points), SIZE, xs, ys, [0], exact=exact)
    np.testing.assert_allclose(found, _exact(points, xs, ys), atol=0.01)


def test_only_the_joints_wanted_are_answered_in_their_order() -> None:
    points = np.random.default_rng(0).uniform(20, 170, (2, 5, 2))
    xs, ys = np.arange(192.0), np.arange(256.0)
    every = sample_lattice(_field(points), SIZE, xs, ys, list(range(5)), exact=True)
    some = sample_lattice(_field(points), SIZE, xs, ys, [3, 1], exact=True)
    np.testing.assert_array_equal(some, every[:, [3, 1]])
    # Refined, each choice of joints stirs its own blocks.
    refined = sample_lattice(_field(points), SIZE, xs, ys, [3, 1], exact=False)
    np.testing.assert_allclose(refined, some, atol=0.01)


def test_values_beyond_0_and_1_are_clipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bumps, "field", lambda self, cells, points: 3 * np.sin(9 * points[..., :1]))
    found = sample_lattice(
        _field(np.zeros((1, 1, 2))), SIZE, np.arange(192.0), np.arange(256.0), [0], exact=False
    )
    assert (found.min(), found.max()) == (0, 1)
    assert nerpe_field.QUIET < 0.02
