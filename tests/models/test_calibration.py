from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from models.calibration import IDENTITY, Curve

CURVE = Curve(raw=(0, 0.2, 0.5, 1), value=(0.1, 0.5, 0.5, 0.9))

kinds = pytest.mark.parametrize(
    "array",
    [lambda x: np.asarray(x, np.float64), lambda x: torch.asarray(x, dtype=torch.float32)],
    ids=["numpy", "torch"],
)


@kinds
def test_a_curve_is_straight_between_its_points_and_level_beyond(array: Any) -> None:  # noqa: ANN401
    raw = np.linspace(-1, 2, 301).reshape(7, 43)
    found = CURVE(array(raw))
    assert found.dtype == array(raw).dtype
    expected = np.interp(raw, CURVE.raw, CURVE.value)
    np.testing.assert_allclose(np.asarray(found), expected, atol=1e-6)


def test_the_identity_leaves_scores_and_spreads() -> None:
    values = np.array([0.0, 0.125, 1.0])
    np.testing.assert_allclose(IDENTITY.score(values), values)
    np.testing.assert_allclose(IDENTITY.sigma(values * 300), values * 300)


@pytest.mark.parametrize(
    ("raw", "value", "message"),
    [
        ((0, 1), (0.5, 0.4), "values fall"),
        ((0, 0), (0, 1), "do not rise"),
        ((0, 1), (0, 0.5, 1), "2 raw numbers have 3 values"),
        ((0,), (0,), "at least 2"),
        ((0, float("nan")), (0, 1), "finite"),
    ],
)
def test_what_is_no_rising_curve_is_refused(
    raw: tuple[float, ...], value: tuple[float, ...], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        Curve(raw=raw, value=value)
