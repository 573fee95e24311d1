from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.codecs import SimccCodec, SimccLabels
from models.keypoints import COCO17

SIZE = (192, 256)
CODEC = SimccCodec(SIZE, 2, (6.0, 6.0))
MIRROR = COCO17.mirror

pytestmark = pytest.mark.usefixtures("one_thread")

kinds = pytest.mark.parametrize(
    "array",
    [lambda x: np.asarray(x, np.float64), lambda x: torch.asarray(x, dtype=torch.float32)],
    ids=["numpy", "torch"],
)
# Far enough from the border that no label is cut off.
inside = st.tuples(st.floats(20, 171), st.floats(20, 235))


def _labels(codec: SimccCodec, points: Any) -> tuple[Any, Any]:  # noqa: ANN401
    """Logits of a network that has learned the labels by heart."""
    x, y, _ = codec.encode(points, points[..., 0] == points[..., 0])
    log = torch.log if isinstance(points, torch.Tensor) else np.log
    return log(x + 1e-30), log(y + 1e-30)


def test_labels_are_the_published_ones() -> None:
    x, y, weight = CODEC.encode(np.array([[50.3, 1.0]]), np.array([True]))
    assert (x.shape, y.shape) == ((1, 384), (1, 512))
    np.testing.assert_allclose(x[0, [100, 101, 95]], [0.066159, 0.066343, 0.043013], atol=5e-7)
    # The centre of y is bin 2: what lies before the border is lost, not handed to the rest.
    assert y.sum() == pytest.approx(0.661716, abs=5e-7)
    assert weight.tolist() == [1]


@pytest.mark.parametrize(
    ("point", "visible", "weight"),
    [
        ((50.0, 50.0), True, 1),
        ((50.0, 50.0), False, 0),
        ((-8.9, 50.0), True, 1),
        ((-9.0, 50.0), True, 0),
        ((50.0, -9.1), True, 0),
        ((200.4, 50.0), True, 1),
        ((200.5, 50.0), True, 0),
        ((50.0, 264.6), True, 0),
    ],
)
def test_a_joint_weighs_while_some_of_its_label_is_inside(
    point: tuple[float, float], visible: bool, weight: float
) -> None:
    assert CODEC.encode(np.array(point), np.array(visible))[2] == weight


def _label(labels: SimccLabels, u: float, sigma: float = 6.0) -> Any:  # noqa: ANN401
    x, _, weight = SimccCodec(SIZE, 2, (sigma, sigma), labels).encode(
        np.array([u, 50.0]), np.array(True)
    )
    return x, float(weight)


def test_mmpose_s_labels_are_centred_on_a_bin() -> None:
    x, _ = _label(SimccLabels(form="mmpose"), 50.3)
    np.testing.assert_allclose(x[[101, 100, 95]], [0.066490, 0.065573, 0.040328], atol=5e-7)
    x, _ = _label(SimccLabels(form="mmpose", normalised=False), 50.3, 4.9)
    np.testing.assert_allclose(x[[101, 100, 96]], [1, 0.979391, 0.594154], atol=5e-7)
    assert x.sum() == pytest.approx(12.282479, abs=5e-6)


def test_laplace_labels_fall_off_as_an_exponential() -> None:
    x, _ = _label(SimccLabels("laplace"), 50.3)
    np.testing.assert_allclose(x[[100, 101]], [0.075403, 0.077959], atol=5e-7)
    assert x.sum() == pytest.approx(0.998982, abs=5e-7)


@pytest.mark.parametrize(
    ("u", "hit", "weight"), [(50.3, 101, 1), (50.25, 100, 1), (191.8, 383, 0), (-0.3, 0, 0)]
)
def test_equal_labels_hold_one_bin_and_share_the_rest(u: float, hit: int, weight: float) -> None:
    x, found = _label(SimccLabels("equal"), u)
    assert found == weight
    assert x[hit] == pytest.approx(0.9)
    assert np.delete(x, hit) == pytest.approx(0.1 / 383)
    assert x.sum() == pytest.approx(1)


@pytest.mark.parametrize(
    "labels",
    [SimccLabels("equal", smoothing=0.2), SimccLabels("laplace"), SimccLabels(form="mmpose")],
    ids=lambda labels: f"{labels.kind}-{labels.form}",
)
def test_a_perfect_answer_scores_one_under_every_label(labels: SimccLabels) -> None:
    codec = SimccCodec(SIZE, 2, (6.0, 6.0), labels)
    decoded = codec.decode(*_labels(codec, np.array([[[50.0, 70.5]]])), "argmax")
    np.testing.assert_allclose(decoded.points, [[[50.0, 70.5]]])
    assert decoded.scores[0, 0] == pytest.approx(1, abs=0.003)


@kinds
def test_logits_that_have_learnt_labels_of_peak_one_are_read_as_published(array: Any) -> None:  # noqa: ANN401
    """RTMPose's: a score is the lower peak, merging is the mean, a factor makes distributions."""
    codec = SimccCodec(SIZE, 2, (4.9, 5.66), SimccLabels(normalised=False), beta=10)
    points = array([[[50.3, 77.2], [120.0, 30.5]]])
    x, y, _ = codec.encode(points, points[..., 0] == points[..., 0])
    perfect = codec.decode(x, y, "argmax")
    np.testing.assert_allclose(perfect.points, points, atol=0.2501)
    np.testing.assert_allclose(perfect.scores, 1, atol=0.01)
    np.testing.assert_allclose(codec.decode(x, y).points, points, atol=0.02)
    assert float(codec.decode(x * 0.3, y, "argmax").scores[0, 1]) == pytest.approx(0.3, abs=1e-3)
    assert float(codec.decode(x * 1.2, y * 1.3).scores[0, 1]) == 1
    # A mirrored crop that sees nothing halves the peak.
    halved = codec.merge((x, y), (x * 0, y * 0))
    np.testing.assert_allclose(
        codec.decode(*halved, "argmax").scores, np.asarray(perfect.scores) / 2, atol=1e-6
    )
    # What the factor makes of the labels near their peak: sigmas smaller by its root.
    expected = np.hypot(4.9, 5.66) / 2 / np.sqrt(10)
    np.testing.assert_allclose(codec.spread(x, y, points), expected, rtol=0.15)
    rows = columns = np.arange(0, 192, 0.5)
    field = np.asarray(codec.field(x, y, array(columns), array(rows), perfect.scores))
    np.testing.assert_allclose(field.max((-2, -1)), np.asarray(perfect.scores), atol=1e-6)


@pytest.mark.parametrize(
    ("split", "u", "decoded"),
    [(1.5, 50.3, 50.0), (2, 50.3, 50.5), (3, 50.3, 50.333333), (2, 50.25, 50.0)],
)
def test_argmax_is_the_published_bin(split: float, u: float, decoded: float) -> None:
    codec = SimccCodec(SIZE, split, (6.0, 6.0))
    logits = _labels(codec, np.array([[[u, u]]]))
    np.testing.assert_allclose(codec.decode(*logits, "argmax").points, decoded, atol=1e-6)


@kinds
@settings(max_examples=40)
@given(points=st.lists(inside, min_size=1, max_size=4), split=st.sampled_from([1, 1.5, 2, 3]))
def test_labels_decode_to_their_joints(
    array: Any,  # noqa: ANN401
    points: list[tuple[float, float]],
    split: float,
) -> None:
    codec = SimccCodec(SIZE, split, (4.9, 5.66))
    logits = _labels(codec, array([points]))
    for decode, window, bins in (
        ("argmax", 2.0, 0.501),
        # The window is cut about the peak's bin, not about the joint, and leans towards it.
        ("expectation", 2.0, 0.12),
        ("expectation", 3.0, 0.025),
    ):
        decoded = codec.decode(*logits, decode, window=window)  # type: ignore[arg-type]
        np.testing.assert_allclose(decoded.points, [points], atol=bins / split)
        assert decoded.scores.shape == (1, len(points))
        assert float(decoded.scores.min()) > 0.99
        assert float(decoded.scores.max()) <= 1
        assert decoded.resolution is None


@kinds
def test_the_score_is_the_lower_axis_s(array: Any) -> None:  # noqa: ANN401
    sure, unsure = _labels(CODEC, array([[[90.0, 90.0]]]))
    flat = unsure * 0
    both = CODEC.decode(sure, unsure).scores
    assert float(both[0, 0]) == pytest.approx(1, abs=1e-3)
    uniform = 6 * np.sqrt(2 * np.pi) / 512
    assert float(CODEC.decode(sure, flat).scores[0, 0]) == pytest.approx(uniform, rel=1e-4)
    # Half of the mass elsewhere: half of the score.
    elsewhere, _ = _labels(CODEC, array([[[20.0, 20.0]]]))
    mixed, _ = CODEC.merge((sure, unsure), (elsewhere, unsure))
    assert float(CODEC.decode(mixed, unsure).scores[0, 0]) == pytest.approx(0.5, abs=1e-3)


@kinds
@pytest.mark.parametrize("decode", ["expectation", "argmax"])
def test_logits_do_not_change_by_a_constant(array: Any, decode: Any) -> None:  # noqa: ANN401
    x, y = _labels(CODEC, array([[[50.3, 77.7]]]))
    plain, raised = CODEC.decode(x, y, decode), CODEC.decode(x + 300, y - 900, decode)
    np.testing.assert_allclose(plain.points, raised.points, atol=1e-3)
    np.testing.assert_allclose(plain.scores, raised.scores, atol=1e-3)


@kinds
@pytest.mark.parametrize("value", [0.0, 1e30, -1e30, np.nan])
@pytest.mark.parametrize("decode", ["expectation", "argmax"])
def test_flat_logits_decode_to_something_of_low_score(
    array: Any,  # noqa: ANN401
    decode: Any,  # noqa: ANN401
    value: float,
) -> None:
    decoded = CODEC.decode(array(np.full((2, 3, 384), value)), array(np.zeros((2, 3, 512))), decode)
    assert decoded.points.shape == (2, 3, 2)
    if not np.isnan(value):
        assert bool((decoded.points >= 0).all())
        assert float(decoded.scores.max()) < 0.05


@kinds
@pytest.mark.parametrize("split", [1, 1.5, 2, 3])
def test_mirrored_logits_come_back_to_their_own_bins(array: Any, split: float) -> None:  # noqa: ANN401
    codec = SimccCodec(SIZE, split, (6.0, 6.0))
    points = np.random.default_rng(0).uniform((40, 40), (150, 200), (2, 17, 2))
    mirrored = points[:, list(MIRROR)] * [-1, 1] + [191, 0]
    own = [np.asarray(part) for part in _labels(codec, array(points))]
    back = codec.unmirror(*_labels(codec, array(mirrored)), MIRROR)
    assert back[0].shape == own[0].shape
    # Where the labels can be told from nothing, the two differ by a constant, which means nothing.
    for ours, theirs in zip(own, back, strict=True):
        difference = np.where(ours > -40, np.asarray(theirs) - ours, np.nan)
        span = np.nanmax(difference, axis=-1) - np.nanmin(difference, axis=-1)
        assert span.max() < (1e-9 if own[0].dtype == np.float64 else 2e-3)
    found = codec.decode(*back, "expectation", window=3)
    np.testing.assert_allclose(found.points, points, atol=0.025 / split + 1e-3)


@pytest.mark.parametrize(("split", "bin_", "other"), [(2, 101, 281), (3, 151, 422)])
def test_unmirroring_shifts_by_the_published_bins(split: int, bin_: int, other: int) -> None:
    codec = SimccCodec(SIZE, split, (6.0, 6.0))
    x = np.zeros((1, 17, codec.bins[0]))
    x[0, MIRROR[9], other] = 1
    back, _ = codec.unmirror(x, np.zeros((1, 17, codec.bins[1])), MIRROR)
    assert np.argwhere(back).tolist() == [[0, 9, bin_]]


@kinds
def test_merging_is_the_mean_of_the_distributions(array: Any) -> None:  # noqa: ANN401
    random = np.random.default_rng(0)
    own, other = (
        (array(random.normal(size=(1, 2, 384))), array(random.normal(size=(1, 2, 512))))
        for _ in range(2)
    )
    for part, (a, b) in zip(CODEC.merge(own, other), zip(own, other, strict=True), strict=True):
        mean = (_softmax(a) + _softmax(b)) / 2
        np.testing.assert_allclose(_softmax(part), mean, rtol=1e-4)
    same = CODEC.merge(own, own)
    np.testing.assert_allclose(CODEC.decode(*same).points, CODEC.decode(*own).points, atol=1e-3)


@kinds
def test_the_field_is_the_product_of_the_distributions(array: Any) -> None:  # noqa: ANN401
    x, y = _labels(CODEC, array([[[50.0, 77.0], [120.0, 30.5]]]))
    columns, rows = np.arange(384) / 2, np.arange(512) / 2
    scores = CODEC.decode(x, y, "argmax").scores / 2
    field = np.asarray(CODEC.field(x, y, array(columns), array(rows), scores))
    assert field.shape == (1, 2, 512, 384)
    assert 0 <= field.min() <= field.max() <= 1
    scores = np.asarray(scores)
    np.testing.assert_allclose(field.max((-2, -1)), scores, atol=1e-6)
    for joint, (u, v) in enumerate([(50.0, 77.0), (120.0, 30.5)]):
        # Sigma is 6 bins, which are 3 px.
        exact = np.exp(-((columns - u) ** 2 + (rows[:, None] - v) ** 2) / (2 * 9))
        np.testing.assert_allclose(field[0, joint], scores[0, joint] * exact, atol=1e-5)


@kinds
def test_the_field_is_linear_between_bins_and_goes_on_beyond_the_last(array: Any) -> None:  # noqa: ANN401
    random = np.random.default_rng(0)
    x, y = array(random.normal(size=(1, 1, 384))), array(random.normal(size=(1, 1, 512)))
    row, one = array([40.0]), array([[1.0]])
    at = np.asarray(CODEC.field(x, y, array([10.0, 10.125, 10.5]), row, one))[0, 0, 0]
    assert at[1] == pytest.approx(0.75 * at[0] + 0.25 * at[2], rel=1e-4)
    ends = np.asarray(CODEC.field(x, y, array([-0.5, 0.0, 191.5, 191.499]), row, one))[0, 0, 0]
    assert ends[0] == ends[1]
    assert ends[2] == pytest.approx(ends[3], rel=1e-2)


def _softmax(logits: Any) -> NDArray[np.float64]:  # noqa: ANN401
    exponent = np.exp(np.asarray(logits, np.float64))
    total: NDArray[np.float64] = exponent / exponent.sum(-1, keepdims=True)
    return total


@kinds
def test_the_spread_is_that_of_the_labels_and_grows_with_theirs(array: Any) -> None:  # noqa: ANN401
    points = array([[[50.0, 77.0], [120.0, 30.5]]])
    spreads = []
    for sigma in (6.0, 8.0):
        logits = _labels(SimccCodec(SIZE, 2, (sigma, sigma)), points)
        spreads.append(np.asarray(CODEC.spread(*logits, points)))
    # Two axes of 3 px, of which 3 sigmas hold all but little.
    np.testing.assert_allclose(spreads[0], 3 * np.sqrt(2), rtol=0.02)
    assert (spreads[1] > 1.15 * spreads[0]).all()
    away = points + array([4.0, 0.0])
    assert (np.asarray(CODEC.spread(*logits, away)) > spreads[1]).all()
