from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.pose import PoseModel
from training.calibrate import Joints, calibrate, fit, observe, with_curves
from training.evaluate import evaluate, readings_of
from training.reliability import calibration_error, reliability
from training.truth import Truth, read_truth


def _joints(count: int, seed: int) -> Joints:
    """Joints that are right as often as the square root of their score says, in crops of a scale.

    Those who spread twice as far err thrice as far.
    """
    random = np.random.default_rng(seed)
    scores, scales = random.uniform(0, 1, count), random.uniform(0.5, 3, count)
    right = random.uniform(size=count) < np.sqrt(scores)
    spread = random.uniform(5, 15, count)
    errors = spread ** np.log2(3) / 10 * random.rayleigh(size=count)
    # The person is as large as makes the joint right or wrong.
    sizes = errors * np.where(right, 11, 9)
    return Joints(scores, spread * scales, errors * scales, sizes * scales, scales)


def test_scores_become_the_share_that_is_right() -> None:
    curve = fit(_joints(8000, 0)).score
    at = np.array([0.05, 0.2, 0.5, 0.8])
    np.testing.assert_allclose(curve(at), np.sqrt(at), atol=0.05)
    assert (np.diff(curve.value) > 0).all()
    assert (curve.raw[0], curve.raw[-1]) == (0, 1)
    unseen = _joints(8000, 1)
    before = calibration_error(reliability(unseen.scores, unseen.right))
    after = calibration_error(reliability(curve(unseen.scores), unseen.right))
    assert before > 0.1
    assert after < 0.03


def test_sigmas_hold_68_of_100_joints_narrow_and_wide() -> None:
    curve = fit(_joints(8000, 0)).sigma
    unseen = _joints(8000, 1)
    inside = unseen.errors <= curve(unseen.sigmas / unseen.scales) * unseen.scales
    assert inside.mean() == pytest.approx(0.68, abs=0.02)
    narrow = unseen.sigmas / unseen.scales < 8
    assert inside[narrow].mean() == pytest.approx(0.68, abs=0.05)
    assert inside[~narrow].mean() == pytest.approx(0.68, abs=0.05)


def test_a_score_that_tells_nothing_becomes_the_share_of_all() -> None:
    joints = _joints(4000, 0)
    shuffled = np.random.default_rng(2).permutation(joints.scores)
    curve = fit(replace(joints, scores=shuffled)).score
    assert curve(np.array([0.5])) == pytest.approx(joints.right.mean(), abs=0.05)


def test_few_joints_make_none_certain() -> None:
    curve = fit(_joints(40, 0)).score
    assert 0 < curve(np.array([0.1]))[0] < curve(np.array([0.9]))[0] < 1


def test_reliability_counts_each_bin_and_its_distance() -> None:
    scores = np.array([0.0, 0.01, 0.95, 1.0])
    table = reliability(scores, np.array([False, True, True, True]))
    np.testing.assert_allclose(table, [(0.005, 0.5, 2), (0.975, 1.0, 2)])
    assert calibration_error(table) == pytest.approx((0.495 + 0.025) / 2)


@pytest.fixture(scope="module")
def dev(data: Path) -> Truth:
    truth = read_truth(data, "coco/dev").with_people()
    return truth.of(truth.photos[:16])


@pytest.mark.data
def test_a_bundle_is_calibrated_through_the_product_s_path(model: PoseModel, dev: Truth) -> None:
    joints = observe(with_curves(model, {}), dev)
    labelled = sum(int((p.visibility > 0).sum()) for photo in dev.photos for p in photo.people)
    assert set(joints) == set(model.heads)
    for mine in joints.values():
        assert len(mine.errors) == len(mine.scores) == labelled
        assert (mine.sigmas > 0).all()
        # Raw peaks and spreads foretell errors, or there would be nothing to calibrate.
        assert mine.scores[mine.right].mean() > mine.scores[~mine.right].mean()
        relative = mine.sigmas / mine.scales
        assert relative[mine.right].mean() < relative[~mine.right].mean()

    manifest = calibrate(model, dev)
    assert manifest.files == model.manifest.files
    curves = {head: getattr(manifest.heads, head).calibration for head in model.heads}
    fitted = with_curves(model, curves)
    assert fitted.manifest == manifest
    readings = [r for r in readings_of(model) if r.decode == model.decodes[r.head][0]]
    raw, own = (
        evaluate(each, None, dev, readings=readings, draws=2)
        for each in (with_curves(model, {}), fitted)
    )
    for before, after in zip(raw, own, strict=True):
        assert after.figures.metrics["within_sigma"] == pytest.approx(0.68, abs=0.06)
        errors = [each.figures.metrics["calibration_error"] for each in (before, after)]
        # Of so few people; the bound of 0.05 is for a whole split.
        assert errors[1] < 0.07 < errors[0]
        assert calibration_error(after.figures.reliability) == errors[1]
        assert sum(count for _, _, count in after.figures.reliability) == labelled
