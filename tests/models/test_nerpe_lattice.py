from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from models.geometry import Box, Size
from models.nerpe_lattice import SURPRISE, sample_lattice
from models.pose import PoseModel
from service.doctor import SAMPLE
from tests.models.bumps import SIGMA, SIZE, Bumps, Floats, asked, bumps


def lattice(resolution: int, size: Size = SIZE) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Columns and rows over the whole crop, `resolution` along its longer side."""
    pitch = max(size) / resolution
    columns, rows = (np.arange(-0.5 + pitch / 2, side - 0.5, pitch) for side in size)
    return columns, rows


def written_out(
    joints: NDArray[np.floating], xs: NDArray[np.floating], ys: NDArray[np.floating]
) -> Floats:
    """(B, K, h, w)."""
    sigma = SIGMA * max(SIZE) / 2
    x = np.exp(-((xs - joints[..., 0, None]) ** 2) / (2 * sigma**2))
    y = np.exp(-((ys - joints[..., 1, None]) ** 2) / (2 * sigma**2))
    return np.asarray(y[..., :, None] * x[..., None, :], np.float32)


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
        sample_lattice(bumps(points), SIZE, xs, ys, wanted, exact=exact) for exact in (False, True)
    )
    assert refined.dtype == np.float32
    np.testing.assert_allclose(exact, written_out(points, xs, ys), atol=1e-5)
    np.testing.assert_allclose(refined, exact, atol=0.01)


def test_refining_asks_for_far_fewer_positions_and_finds_the_same_peak() -> None:
    points = np.array([[[100.2, 77.7], [30.9, 200.1]], [[-500.0, 0.0], [50.0, 50.0]]])
    xs, ys = lattice(1024)
    refining, exactly = bumps(points), bumps(points)
    refined = sample_lattice(refining, SIZE, xs, ys, [0, 1], exact=False)
    exact = sample_lattice(exactly, SIZE, xs, ys, [0, 1], exact=True)
    assert asked(exactly) == 2 * len(xs) * len(ys)
    assert asked(refining) < asked(exactly) / 200
    np.testing.assert_array_equal(refined.max((-2, -1)), exact.max((-2, -1)))
    np.testing.assert_array_equal(
        refined.reshape(2, 2, -1).argmax(-1)[[0, 0, 1], [0, 1, 1]],
        exact.reshape(2, 2, -1).argmax(-1)[[0, 0, 1], [0, 1, 1]],
    )


def test_a_finer_lattice_asks_for_hardly_more() -> None:
    points = np.array([[[100.2, 77.7]]])
    counts = []
    for resolution in (256, 512, 1024, 2048):
        nerpe = bumps(points)
        sample_lattice(nerpe, SIZE, *lattice(resolution), [0], exact=False)
        counts.append(asked(nerpe))
    assert max(counts) < 1.1 * min(counts)


def test_a_step_in_the_field_is_followed_along_its_edge(monkeypatch: pytest.MonkeyPatch) -> None:
    def steps(self: Bumps, cells: Floats, points: Floats) -> Floats:
        self.asked.append(points.shape[1])
        beyond = points[..., :1] + 0.3 * points[..., 1:] > 0.2
        return beyond.astype(np.float32)

    monkeypatch.setattr(Bumps, "field", steps)
    nerpe = bumps(np.zeros((1, 1, 2)))
    xs, ys = lattice(512)
    refined, exact = (sample_lattice(nerpe, SIZE, xs, ys, [0], exact=e) for e in (False, True))
    assert asked(nerpe) < 1.2 * len(xs) * len(ys)
    np.testing.assert_array_equal(refined > 0.5, exact > 0.5)
    # A cubic overshoots beside a step; the samples it overshoots at most are evaluated.
    assert np.abs(refined - exact).max() < 0.1


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (2, 40), (1, 500), (2, 2), (500, 2)])
@pytest.mark.parametrize("exact", [False, True])
def test_lattices_of_a_single_column_or_row_are_answered(
    shape: tuple[int, int], exact: bool
) -> None:
    points = np.array([[[90.0, 120.0]]])
    xs, ys = np.linspace(70, 110, shape[0]), np.linspace(100, 140, shape[1])
    found = sample_lattice(bumps(points), SIZE, xs, ys, [0], exact=exact)
    np.testing.assert_allclose(found, written_out(points, xs, ys), atol=0.01)


def test_only_the_joints_wanted_are_answered_in_their_order() -> None:
    points = np.random.default_rng(0).uniform(20, 170, (2, 5, 2))
    xs, ys = np.arange(192.0), np.arange(256.0)
    every = sample_lattice(bumps(points), SIZE, xs, ys, list(range(5)), exact=True)
    some = sample_lattice(bumps(points), SIZE, xs, ys, [3, 1], exact=True)
    np.testing.assert_array_equal(some, every[:, [3, 1]])
    # Refined, each choice of joints stirs its own blocks.
    refined = sample_lattice(bumps(points), SIZE, xs, ys, [3, 1], exact=False)
    np.testing.assert_allclose(refined, some, atol=0.01)


def test_values_beyond_0_and_1_are_clipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bumps, "field", lambda self, cells, points: 3 * np.sin(9 * points[..., :1]))
    found = sample_lattice(bumps(np.zeros((1, 1, 2))), SIZE, *lattice(256), [0], exact=False)
    assert (found.min(), found.max()) == (0, 1)


def counted(model: PoseModel, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Positions that the engine evaluated since it was asked last."""
    field, seen = model.engine.field, [0]

    def counting(cells: Floats, points: Floats) -> Floats:
        seen[0] += points.shape[0] * points.shape[1]
        return np.asarray(field(cells, points))

    def since() -> int:
        count, seen[0] = seen[0], 0
        return count

    monkeypatch.setattr(model.engine, "field", counting)
    return since


def test_of_a_real_person_a_heatmap_is_exact_enough_for_a_fraction_of_the_work(
    model: PoseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Image.open(SAMPLE) as photo:
        image = np.asarray(photo.convert("RGB"))
    height, width = image.shape[:2]
    # Half of the photo: several people, some of them cut off.
    _, (crop,) = model.cut(image, [Box(0, 0, width / 2, height)])
    features = model.encode(crop[None])
    positions = counted(model, monkeypatch)
    samples = lattice(256, model.size)
    whole = len(samples[0]) * len(samples[1])
    exact = model.field(features, "nerpe", *samples, exact=True)[0]
    assert positions() == whole
    assert exact.max() > 0.5
    every = model.field(features, "nerpe", *samples)[0]
    assert positions() < whole / 4
    assert np.quantile(np.abs(every - exact), 0.999) < SURPRISE
    for joint in range(0, 17, 4):
        one = model.field(features, "nerpe", *samples, keypoints=[joint])[0, 0]
        assert positions() < whole / 15
        difference = np.abs(one - exact[joint])
        assert np.quantile(difference, 0.999) < SURPRISE
        assert np.quantile(difference[exact[joint] > 0.05], 0.999) < 1.5 * SURPRISE
        assert one.max() == pytest.approx(exact[joint].max(), abs=0.002)


def test_progressive_evaluates_less_than_a_twentieth_of_what_standard_does(
    model: PoseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = model.encode(np.full((1, *model.size[::-1], 3), 128, np.uint8))
    positions = counted(model, monkeypatch)
    model.decode(features, "nerpe", "standard", 256)
    standard = positions()
    columns = -(-256 * model.size[0] // model.size[1])
    assert standard == columns * 256
    # At 1024 the five that are followed take ten positions more than that.
    for resolution, part in ((256, 20), (512, 20), (1024, 19.9)):
        model.decode(features, "nerpe", "progressive", resolution)
        assert positions() < standard / part
