import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.codecs import NerpeCodec, nerpe
from models.codecs.nerpe import COARSE, LATTICES, PUBLISHED, REACH, ROBUST
from models.geometry import denormalise, normalise
from models.networks.nerpe import NerpeHead

pytestmark = pytest.mark.usefixtures("one_thread")

SIZE = (192, 256)
CODEC = NerpeCodec(SIZE, 0.06)
SQUARE = NerpeCodec((128, 128), 0.06)
PAPER = replace(SQUARE, refinement=PUBLISHED)

kinds = pytest.mark.parametrize(
    "array",
    [lambda x: np.asarray(x, np.float64), lambda x: torch.asarray(x, dtype=torch.float32)],
    ids=["numpy", "torch"],
)
Function = Callable[[Any], Any]


def _bump(center: tuple[float, float], sigma: float) -> Function:
    """A field of one joint: a Gaussian about a normalised position."""

    def field(positions: Any) -> Any:  # noqa: ANN401
        square = (positions[..., 0] - center[0]) ** 2 + (positions[..., 1] - center[1]) ** 2
        exp = torch.exp if isinstance(positions, torch.Tensor) else np.exp
        return exp(-square / (2 * sigma**2))[..., None]

    return field


def _samples(codec: NerpeCodec, points: Any, resolution: int) -> Any:  # noqa: ANN401
    """Crop px to lattice samples."""
    return (points + 0.5) * resolution / max(codec.size) - 0.5


# Codec


def test_targets_are_the_published_ones() -> None:
    point = np.array([[[50.3, 200.6]]])
    center = normalise(point, SIZE)
    np.testing.assert_allclose(center, [[[-0.353125, 0.571094]]], atol=5e-7)
    positions = center + np.array([[[0, 0], [0.06, 0], [0, -0.06], [0.036, 0.048]]])
    expected = [[1.0], [0.606531], [0.606531], [0.606531]]
    np.testing.assert_allclose(CODEC.encode(point, positions)[0], expected, atol=5e-7)


def test_laplace_targets_are_the_published_ones() -> None:
    codec = NerpeCodec(SIZE, 0.09, "laplace")
    positions = np.array([[[0.06, 0.0], [0.0, 0.0]]])
    joint = np.array([[[95.5, 127.5]]])  # the crop's middle, (0, 0)
    found = codec.encode(joint, positions)[0, :, 0]
    np.testing.assert_allclose(found, [0.513417, 1], atol=5e-7)


@pytest.mark.parametrize(
    ("index", "resolution", "u"), [(10, 64, 41.5), (200, 1024, 49.625), (100, 256, 100)]
)
def test_samples_lie_where_the_paper_puts_them(index: int, resolution: int, u: float) -> None:
    at = normalise(np.array([[[u, u]]]), SIZE)[0, 0]
    decoded = CODEC.decode(_bump(tuple(at), 0.06), np.empty((1, 0)), "standard", resolution)
    np.testing.assert_allclose(decoded.points, [[[u, u]]], atol=1e-9)
    assert _samples(CODEC, u, resolution) == pytest.approx(index)


@pytest.mark.parametrize(
    ("size", "resolution", "lattice"),
    [
        ((192, 256), 256, (192, 256)),
        ((192, 256), 32, (24, 32)),
        ((192, 256), 33, (25, 33)),
        ((256, 192), 512, (512, 384)),
        ((100, 256), 32, (13, 32)),
        ((128, 128), 17, (17, 17)),
        ((3, 2048), 16, (1, 16)),
    ],
)
def test_a_lattice_covers_the_shorter_side_with_the_same_pitch(
    size: tuple[int, int], resolution: int, lattice: tuple[int, int]
) -> None:
    assert NerpeCodec(size, 0.06).lattice(resolution) == lattice


@pytest.mark.parametrize(
    ("resolution", "index"), [(32, (17, 8)), (128, (71, 34)), (256, (143, 69)), (512, (287, 139))]
)
@pytest.mark.parametrize("decode", ["standard", "progressive"])
def test_decodes_find_the_published_samples(
    decode: Any,  # noqa: ANN401
    resolution: int,
    index: tuple[int, int],
) -> None:
    field = _bump((0.1234, -0.4567), 0.06)
    decoded = SQUARE.decode(field, np.empty((1, 0)), decode, resolution)
    np.testing.assert_allclose(_samples(SQUARE, decoded.points, resolution), [[index]], atol=1e-9)
    assert decoded.resolution == resolution
    if resolution == 512:
        np.testing.assert_allclose(decoded.points, [[[71.375, 34.375]]], atol=1e-9)
    exact = denormalise(np.array([0.1234, -0.4567]), SQUARE.size)
    np.testing.assert_allclose(exact, [71.3976, 34.2712], atol=1e-4)


def test_progressive_evaluates_the_published_windows() -> None:
    seen: list[Any] = []
    bump = _bump((0.1234, -0.4567), 0.06)

    def field(positions: Any) -> Any:  # noqa: ANN401
        seen.append(denormalise(positions, SQUARE.size)[0])
        return bump(positions)

    PAPER.decode(field, np.empty((1, 0)), "progressive", 512)
    assert [len(points) for points in seen] == [32 * 32, 36, 36]
    for points, resolution, x, y in ((seen[1], 128, 67, 31), (seen[2], 512, 283, 135)):
        window = np.rint(_samples(SQUARE, points, resolution)).astype(int).tolist()
        assert window == [[x + i, y + j] for j in range(6) for i in range(6)]


@kinds
@settings(max_examples=30)
@given(x=st.floats(6, 185), y=st.floats(6, 249), width=st.floats(0.04, 0.12))
def test_gaussian_finds_what_lies_between_samples(
    array: Function, x: float, y: float, width: float
) -> None:
    center = normalise(np.array([x, y]), SIZE)
    field = _bump((float(center[0]), float(center[1])), width)
    decoded = CODEC.decode(field, array(np.empty((1, 0))), "gaussian")
    assert decoded.resolution == LATTICES["gaussian"]
    # A lattice of 64 has a pitch of 4 px.
    np.testing.assert_allclose(np.asarray(decoded.points), [[[x, y]]], atol=0.02)


@kinds
def test_gaussian_moves_no_further_than_it_has_looked(array: Function) -> None:
    def rising(positions: Any) -> Any:  # noqa: ANN401
        return (0.3 + 0.2 * positions[..., 0])[..., None]

    def nothing(positions: Any) -> Any:  # noqa: ANN401
        return 0 * positions[..., :1]

    like = array(np.empty((1, 0)))
    most = REACH * CODEC.sigma * max(SIZE) / 2 * 2**0.5 + 1e-3
    for field in (rising, nothing):
        peak = CODEC.decode(field, like, "progressive", LATTICES["gaussian"])
        found = CODEC.decode(field, like, "gaussian")
        moved = np.asarray(found.points) - np.asarray(peak.points)
        assert np.isfinite(moved).all()
        assert np.linalg.norm(moved) <= (most if field is rising else 1e-3)


def test_gaussian_is_steadier_than_the_highest_sample() -> None:
    """What is added to a field, and has a peak of its own there, hardly moves the fit."""
    bump, ripple = _bump((0.1, -0.2), 0.06), _bump((0.12, -0.18), 0.008)

    def field(positions: Any) -> Any:  # noqa: ANN401
        return bump(positions) + 0.15 * ripple(positions)

    like = np.empty((1, 0))
    true = denormalise(np.array([0.1, -0.2]), SIZE)
    errors = [
        np.linalg.norm(np.asarray(CODEC.decode(field, like, decode, 512).points)[0, 0] - true)
        for decode in ("progressive", "gaussian")
    ]
    assert errors[1] < 0.3 * errors[0]


def test_progressive_stays_at_a_broad_peak_that_hides_a_sharp_one() -> None:
    broad, sharp = _bump((0.03125, 0.03125), 0.06), _bump((-0.5, -0.5), 0.02)

    def field(positions: Any) -> Any:  # noqa: ANN401
        return np.maximum(0.95 * broad(positions), sharp(positions))

    like = np.empty((1, 0))
    standard = SQUARE.decode(field, like, "standard", 512)
    np.testing.assert_allclose(_samples(SQUARE, standard.points, 512), [[[127, 127]]], atol=1e-9)
    assert standard.scores == pytest.approx(0.990509, abs=5e-7)
    coarse = SQUARE.decode(field, like, "standard", 32)
    np.testing.assert_allclose(_samples(SQUARE, coarse.points, 32), [[[16, 16]]], atol=1e-9)
    assert coarse.scores == pytest.approx(0.95)
    for resolution, index in ((128, 65), (512, 263)):
        found = PAPER.decode(field, like, "progressive", resolution)
        np.testing.assert_allclose(_samples(SQUARE, found.points, resolution), index, atol=1e-9)
    assert found.scores == pytest.approx(0.948994, abs=5e-7)


def test_progressive_goes_to_the_higher_of_two_peaks_whatever_the_coarse_lattice_says() -> None:
    # Between two samples of the coarse lattice, and upon one.
    pitch = 2 / COARSE
    higher, lower = _bump((4 * pitch, 4 * pitch), 0.06), _bump((-3.5 * pitch, -3.5 * pitch), 0.06)

    def field(positions: Any) -> Any:  # noqa: ANN401
        return np.maximum(higher(positions), 0.9 * lower(positions))

    like = np.empty((1, 0))
    standard = SQUARE.decode(field, like, "standard", 256)
    for codec, found in ((SQUARE, True), (PAPER, False)):
        progressive = codec.decode(field, like, "progressive", 256)
        assert np.array_equal(progressive.points, standard.points) is found


def test_progressive_follows_the_highest_samples_and_at_last_takes_one() -> None:
    asked: list[Any] = []
    bump = _bump((0.1234, -0.4567), 0.06)

    def field(positions: Any) -> Any:  # noqa: ANN401
        asked.append((denormalise(positions, SQUARE.size)[0], bump(positions)[0, :, 0]))
        return bump(positions)

    SQUARE.decode(field, np.empty((1, 0)), "progressive", 256)
    assert [len(points) for points, _ in asked] == [32 * 32] + [ROBUST.followed * 4] * 3
    resolution = COARSE
    for (points, values), (children, _) in itertools.pairwise(asked):
        highest = _samples(SQUARE, points[np.argsort(-values)[: ROBUST.followed]], resolution)
        resolution *= 2
        parents = np.rint(_samples(SQUARE, children, resolution)).astype(int) // 2
        expected = np.repeat(np.rint(highest).astype(int), 4, axis=0)
        assert sorted(parents.tolist()) == sorted(expected.tolist())


@settings(max_examples=50)
@given(
    st.floats(-0.75, 0.75),
    st.floats(-1, 1),
    st.floats(0.06, 0.4),
    st.sampled_from([32, 64, 128, 256]),
    st.sampled_from([(192, 256), (100, 256), (256, 130)]),
)
@example(0.0, 0.0, 0.06, 256, (192, 256))
@example(0.75, -1.0, 0.06, 128, (192, 256))
@example(0.0, -0.7499999999999999, 0.25, 64, (192, 256))  # between two samples that are as high
def test_progressive_finds_what_standard_finds_on_one_peak(
    x: float, y: float, sigma: float, resolution: int, size: tuple[int, int]
) -> None:
    codec = NerpeCodec(size, 0.06)
    longer = max(size)
    center = (x * size[0] / longer, y * size[1] / longer)
    field, like = _bump(center, sigma), np.empty((1, 0))
    progressive, standard = (
        codec.decode(field, like, decode, resolution) for decode in ("progressive", "standard")
    )
    np.testing.assert_allclose(progressive.scores, standard.scores, rtol=0, atol=1e-12)
    # The nearest sample is at most half a pitch away, and the peak's in the crop.
    for found in (progressive, standard):
        error = np.abs(found.points[0, 0] - denormalise(np.array(center), size))
        assert error.max() <= longer / resolution / 2 + 1e-9
    # Of samples that are equally high either is right.
    if (standard.points != progressive.points).any():
        middle = (standard.points + progressive.points)[0, 0] / 2
        apart = np.abs(middle - denormalise(np.array(center), size))
        assert apart[(standard.points != progressive.points)[0, 0]].max() < 1e-9


@pytest.mark.parametrize(
    ("asked", "used"),
    [(16, 32), (32, 32), (33, 64), (64, 64), (65, 128), (200, 256), (257, 512), (2048, 2048)],
)
def test_progressive_rounds_the_resolution_up_to_one_it_reaches(asked: int, used: int) -> None:
    decoded = CODEC.decode(_bump((0.1, 0.2), 0.06), np.empty((1, 0)), "progressive", asked)
    assert decoded.resolution == used
    exact = denormalise(np.array([0.1, 0.2]), SIZE)
    np.testing.assert_allclose(decoded.points[0, 0], exact, atol=128 / used + 1e-9)


@kinds
@pytest.mark.parametrize(("decode", "resolution"), [("standard", 48), ("progressive", 512)])
def test_each_joint_of_each_crop_has_its_own_peak(
    array: Any,  # noqa: ANN401
    decode: Any,  # noqa: ANN401
    resolution: int,
) -> None:
    points = array(np.random.default_rng(0).uniform((0, 0), (191, 255), (3, 17, 2)))
    decoded = CODEC.decode(lambda at: CODEC.encode(points, at), points, decode, resolution)
    assert type(decoded.points) is type(points)
    assert decoded.points.dtype == points.dtype
    half = 256 / resolution / 2
    np.testing.assert_allclose(decoded.points, points, atol=half + 1e-3)
    worst = np.exp(-2 * (half / 128) ** 2 / (2 * 0.06**2))
    assert worst - 1e-3 <= float(decoded.scores.min())
    assert float(decoded.scores.max()) <= 1


@kinds
def test_a_lattice_in_parts_decodes_as_a_whole_one(
    array: Any,  # noqa: ANN401
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    points = array(np.random.default_rng(0).uniform((0, 0), (191, 255), (3, 5, 2)))
    largest = []

    def field(positions: Any) -> Any:  # noqa: ANN401
        largest.append(positions.shape[1])
        # In steps, so that many samples tie: the first one counts, in whichever part it lies.
        return CODEC.encode(points, positions).round()

    whole = CODEC.decode(field, points, "standard", 64)
    monkeypatch.setattr(nerpe, "SAMPLES", 3 * 100)
    parts = CODEC.decode(field, points, "standard", 64)
    assert largest == [64 * 48] + [100] * 30 + [72]
    np.testing.assert_array_equal(whole.points, parts.points)
    np.testing.assert_array_equal(whole.scores, parts.scores)


@kinds
@pytest.mark.parametrize("decode", ["standard", "progressive"])
@pytest.mark.parametrize("value", [0.0, 5.0, -1.0, np.nan])
def test_a_flat_field_decodes_to_its_first_sample(
    array: Any,  # noqa: ANN401
    decode: Any,  # noqa: ANN401
    value: float,
) -> None:
    like = array(np.zeros((2, 1)))

    def field(positions: Any) -> Any:  # noqa: ANN401
        return array(np.full((*positions.shape[:2], 3), value))

    decoded = CODEC.decode(field, like, decode, 64)
    assert decoded.points.shape == (2, 3, 2)
    if not np.isnan(value):
        np.testing.assert_allclose(_samples(CODEC, decoded.points, 64), 0, atol=1e-5)
        assert float(decoded.scores.max()) == min(max(value, 0), 1)


# Head


def _head(grid: tuple[int, int], **how: Any) -> NerpeHead:  # noqa: ANN401
    torch.manual_seed(0)
    defaults: dict[str, Any] = {"hidden": (16, 8), "width": 12}
    return NerpeHead(10, grid, how.pop("cells", grid), 5, **(defaults | how)).eval().double()


def _probe(columns: int, rows: int) -> tuple[NerpeHead, Tensor]:
    """A head and cells whose values are (column, row, relative x, relative y) of the cell asked."""
    head = NerpeHead(1, (columns, rows), (columns, rows), 4, hidden=(4,), width=1).double()
    with torch.no_grad():
        head.position.weight.copy_(torch.tensor([[0, 0], [0, 0], [1, 0], [0, 1]]))
        head.mlp[1].weight.copy_(torch.eye(4))  # type: ignore[operator]
        head.mlp[1].bias.fill_(-100)  # type: ignore[operator]
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    cells = torch.stack([column, row, 0 * row, 0 * row]).double()[None] + 100
    return head, cells


@pytest.mark.parametrize(
    ("columns", "query", "expected", "weights"),
    [
        (
            8,
            (0.1, -0.05),
            [[3, 3, 1.8, 0.6], [3, 4, 1.8, -1.4], [4, 3, -0.2, 0.6], [4, 4, -0.2, -1.4]],
            [0.07, 0.03, 0.63, 0.27],
        ),
        (
            6,
            (0.1, -0.05),
            [[2, 3, 1.8, 0.6], [2, 4, 1.8, -1.4], [3, 3, -0.2, 0.6], [3, 4, -0.2, -1.4]],
            [0.07, 0.03, 0.63, 0.27],
        ),
        (8, (0.97, 0.97), [[7, 7, 0.76, 0.76]] * 4, [0.25] * 4),
    ],
)
def test_neighbours_are_the_published_ones(
    columns: int, query: tuple[float, float], expected: list[list[float]], weights: list[float]
) -> None:
    head, cells = _probe(columns, 8)
    values, found = head.neighbours(cells, torch.tensor([[query]], dtype=torch.float64))
    np.testing.assert_allclose(values[0, :, 0].detach(), expected, atol=1e-6)
    np.testing.assert_allclose(found[0, :, 0].detach(), weights, atol=1e-6)


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.floats(-0.8, 0.8), st.floats(-1.1, 1.1)), min_size=1, max_size=5),
    st.sampled_from([torch.float64, torch.float32]),
)
# On the centres of the last cells, and on the border itself.
@example([(0.625, 0.875), (0.625, 0.3), (0.2, 0.875), (-0.625, -0.875)], torch.float32)
@example([(0.75, 1.0), (-0.75, -1.0), (0.0, 0.0)], torch.float32)
def test_the_ensemble_is_bilinear_between_cells(
    queries: list[tuple[float, float]], dtype: torch.dtype
) -> None:
    head, cells = _probe(6, 8)
    points = torch.tensor([queries], dtype=dtype)
    values, weights = head.to(dtype).neighbours(cells.to(dtype), points)
    np.testing.assert_allclose(weights.sum(1).detach(), 1, atol=1e-6)
    assert weights.min() >= 0
    # The column and row that the weighted cells add up to are the position in cells, clamped.
    mean = (values * weights[..., None]).sum(1)[0, :, :2].detach()
    at = np.array(queries) * 4 + [2.5, 3.5]
    np.testing.assert_allclose(mean, at.clip(0, [5, 7]), atol=2e-4)
    np.testing.assert_allclose(
        head.field(cells.to(dtype), points).detach(), (values * weights[..., None]).sum(1).detach()
    )


def test_the_field_has_no_seam_and_without_the_ensemble_it_has() -> None:
    head = _head((6, 8))
    cells = head.cells(torch.randn((1, 10, 8, 6), dtype=torch.float64))
    # A walk through cells, their borders, their centres and out of the crop, in tiny steps.
    way = torch.linspace(-0.1, 1.0, 40001, dtype=torch.float64)
    points = torch.stack([0.74 * way, way], dim=-1)[None]
    with torch.no_grad():
        values, weights = head.neighbours(cells, points)
        ensemble = head.field(cells, points)[0]
        nearest = values.gather(1, weights.argmax(1)[:, None, :, None].expand(-1, 1, -1, 5))[0, 0]
    smooth = ensemble.diff(dim=0).abs().max()
    seam = nearest.diff(dim=0).abs().max()
    assert smooth < 2e-3
    assert seam > 50 * smooth


@pytest.mark.parametrize("sinusoids", [0, 2])
def test_the_split_first_layer_is_the_plain_one(sinusoids: int) -> None:
    head = _head((6, 8), sinusoids=sinusoids, hidden=(16, 12, 8))
    features = torch.randn((2, 10, 8, 6), dtype=torch.float64)
    points = torch.rand((2, 30, 2), dtype=torch.float64) * 2 - 1
    points[..., 0] *= 0.75
    first = torch.nn.Linear(12 + 2 + 4 * sinusoids, 16).double()
    with torch.no_grad():
        first.weight.copy_(torch.cat([head.feature.weight.flatten(1), head.position.weight], dim=1))
        assert head.feature.bias is not None
        first.bias.copy_(head.feature.bias)
        plain = torch.nn.Sequential(first, *head.mlp)
        grid = head.zoom(features)
        expected = torch.zeros((2, 30, 5), dtype=torch.float64)
        for b in range(2):
            for q in range(30):
                at = points[b, q] * 4 + torch.tensor([2.5, 3.5])
                low = at.floor().long()
                for dx in (0, 1):
                    for dy in (0, 1):
                        corner = low + torch.tensor([dx, dy])
                        share = (1 - (at - corner).abs()).prod()
                        x, y = int(corner[0].clamp(0, 5)), int(corner[1].clamp(0, 7))
                        relative = 2 * (at - torch.tensor([x, y]))
                        waves = [
                            wave(2**octave * torch.pi * relative)
                            for octave in range(sinusoids)
                            for wave in (torch.sin, torch.cos)
                        ]
                        asked = torch.cat([grid[b, :, y, x], relative, *waves])
                        expected[b, q] += share * plain(asked)
        found = head.field(head.cells(features), points)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("hidden", "parameters"),
    [((256, 128, 128, 128, 64), 141585), ((256, 256, 128, 128, 128), 200209)],
)
def test_the_mlp_has_the_published_number_of_parameters(
    hidden: tuple[int, ...], parameters: int
) -> None:
    head = NerpeHead(32, (48, 64), (6, 8), 17, hidden=hidden)
    parts = (head.feature, head.position, head.mlp)
    assert sum(p.numel() for part in parts for p in part.parameters()) == parameters


@pytest.mark.parametrize("cells", [(6, 8), (3, 4), (12, 16), (24, 32)])
def test_features_are_zoomed_to_the_cells(cells: tuple[int, int]) -> None:
    head = _head((24, 32), cells=cells)
    features = torch.randn((2, 10, 32, 24), dtype=torch.float64)
    assert head.cells(features).shape == (2, 16, cells[1], cells[0])


@pytest.mark.parametrize("cells", [(8, 8), (5, 8), (2, 3), (36, 48), (4, 32), (8, 11)])
def test_cells_that_the_features_cannot_reach_are_refused(cells: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="power of 2"):
        NerpeHead(10, (24, 32), cells, 5)


@kinds
def test_the_spread_is_that_of_the_targets_and_grows_with_theirs(array: Any) -> None:  # noqa: ANN401
    points = array([[[80.0, 97.0]], [[120.0, 130.5]]])
    spreads = []
    for sigma in (0.06, 0.08):

        def field(positions: Any, sigma: float = sigma) -> Any:  # noqa: ANN401
            return NerpeCodec(SIZE, sigma).encode(points, positions)

        spreads.append(np.asarray(CODEC.spread(field, points)))
    # Few samples tell it coarsely; a calibration goes on from there.
    np.testing.assert_allclose(spreads[0], 0.06 * 128 * np.sqrt(2), rtol=0.1)
    assert (spreads[1] > 1.1 * spreads[0]).all()
