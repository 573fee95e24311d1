from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from models.bundle import BUNDLES, load_bundle
from models.calibration import Calibration, Curve
from models.engines import load_engine
from models.features import Features
from models.geometry import Box, CropGeometry
from models.keypoints import COCO17
from models.pose import PoseModel

MIRROR = list(COCO17.mirror)
HEADS = ("simcc", "nerpe", "heatmap")
DECODES = [
    ("simcc", "expectation"),
    ("simcc", "argmax"),
    ("nerpe", "gaussian"),
    ("nerpe", "progressive"),
    ("nerpe", "standard"),
    ("heatmap", "dark"),
    ("heatmap", "quarter"),
    ("heatmap", "argmax"),
]
heads = pytest.mark.parametrize("head", HEADS)


CALIBRATION = Calibration(
    score=Curve(raw=(0, 0.1, 1), value=(0, 0.4, 0.9)), sigma=Curve(raw=(0, 30), value=(1, 10))
)


def _with(model: PoseModel, calibration: Calibration | None) -> PoseModel:
    """The model as it were with this calibration of every head."""
    return model.with_heads({head: {"calibration": calibration} for head in HEADS})


@pytest.fixture(scope="module")
def model() -> PoseModel:
    """With raw scores: what is told of fields and heads is told of these."""
    bundle = load_bundle(BUNDLES / "pose-s")
    return _with(PoseModel(bundle, load_engine(bundle, threads=1)), None)


@pytest.fixture(scope="module")
def calibrated(model: PoseModel) -> PoseModel:
    return _with(model, CALIBRATION)


@pytest.fixture(scope="module")
def crops(model: PoseModel) -> NDArray[np.uint8]:
    """Smooth colours: what the network says of them means nothing, but it says it again."""
    coarse = np.random.default_rng(0).integers(0, 256, (3, 8, 6, 3), dtype=np.uint8)
    return np.stack([cv2.resize(crop, model.size) for crop in coarse]).astype(np.uint8)


@pytest.fixture(scope="module")
def features(model: PoseModel, crops: NDArray[np.uint8]) -> Features:
    return model.encode(crops, flip=True)


@pytest.fixture(scope="module")
def people(model: PoseModel, data: Path) -> NDArray[np.uint8]:
    """Crops of two people of a photo."""
    image = cv2.imread(str(data / "demo" / "astronaut.jpg"))
    assert image is not None
    rgb = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)
    height, width = rgb.shape[:2]
    boxes = [Box(0, 0, width, height), Box(width * 0.2, 0, width * 0.5, height * 0.7)]
    return np.stack(model.cut(rgb, boxes)[1])


def _lattice(model: PoseModel, pitch: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sample centres over the whole crop."""
    columns, rows = (np.arange(-0.5 + pitch / 2, side - 0.5, pitch) for side in model.size)
    return columns, rows


# What a model knows of itself


def test_a_model_is_what_its_manifest_says(model: PoseModel) -> None:
    assert (model.name, model.keypoints) == ("pose-s", COCO17)
    entry = model.manifest.input
    assert model.size == (entry.width, entry.height)
    assert model.heads == HEADS
    assert model.default_head in HEADS
    for head in HEADS:
        known = {decode for name, decode in DECODES if name == head}
        assert set(model.decodes[head]) == known
        assert len(model.decodes[head]) == len(known)
        assert model.decodes[head][0] == getattr(model.manifest.heads, head).decode


def test_crops_are_cut_as_the_manifest_says(model: PoseModel) -> None:
    image = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    box = Box(40, 50, 100, 200)
    (geometry,), (pixels,) = model.cut(image, [box])
    crop = model.manifest.crop
    expected = CropGeometry.from_box(box, model.size, matrix=crop.matrix, padding=crop.padding)
    np.testing.assert_array_equal(geometry.matrix, expected.matrix)
    np.testing.assert_array_equal(pixels, expected.cut(image))
    with pytest.raises(ValueError, match="no area"):
        model.cut(image, [Box(0, 0, 0, 5)])


# Decoding


@pytest.mark.parametrize(("head", "decode"), DECODES)
def test_every_decode_answers_joints_in_the_crop(
    model: PoseModel, features: Features, head: str, decode: str
) -> None:
    resolution = 64 if decode == "standard" else None
    decoded = model.decode(features, head, decode, resolution)
    assert decoded.points.shape == (3, 17, 2)
    assert decoded.scores.shape == (3, 17)
    assert (decoded.points > -8).all()
    assert (decoded.points < np.array(model.size) + 8).all()
    assert (decoded.scores >= 0).all()
    assert (decoded.scores <= 1).all()
    spec = model.manifest.heads.nerpe
    assert spec
    used = {"standard": 64} | {name: model.lattice(name) for name in ("progressive", "gaussian")}
    assert decoded.resolution == (used[decode] if head == "nerpe" else None)
    assert model.lattice(spec.decode) == spec.resolution


@heads
def test_without_a_decode_the_manifest_s_is_taken(
    model: PoseModel, features: Features, head: str
) -> None:
    one = features[:1]
    default = model.decode(one, head)
    named = model.decode(one, head, model.decodes[head][0])
    np.testing.assert_array_equal(default.points, named.points)
    assert default.resolution == named.resolution


def test_nerpe_is_decoded_on_the_lattice_asked_for(model: PoseModel, features: Features) -> None:
    for asked, used in ((16, 32), (100, 128), (256, 256)):
        assert model.decode(features[:1], "nerpe", "progressive", asked).resolution == used
    found = model.decode(features[:1], "nerpe", "standard", 48)
    assert found.resolution == 48
    index = (found.points + 0.5) * 48 / max(model.size) - 0.5
    np.testing.assert_allclose(index, np.rint(index), atol=1e-3)


@pytest.mark.parametrize("resolution", [16, 48, 80])
def test_samples_on_the_cells_own_centres_have_values(
    model: PoseModel, features: Features, resolution: int
) -> None:
    # At an odd multiple of the cells, the last cells' centres too, where the ensemble has no
    # second cell to weigh.
    decoded = model.decode(features[:1], "nerpe", "standard", resolution)
    assert np.isfinite(decoded.scores).all()
    field = model.field(
        features[:1], "nerpe", *_lattice(model, max(model.size) / resolution), exact=True
    )
    assert np.isfinite(field).all()
    assert field.max((-2, -1)) == pytest.approx(decoded.scores, abs=1e-5)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (("openpose",), "head 'openpose' is not one of simcc, nerpe, heatmap"),
        (("simcc", "dark"), "decode 'dark' of head 'simcc' is not one of"),
        (("nerpe", ""), "decode '' of head 'nerpe' is not one of"),
        (("simcc", None, 256), "head 'simcc' is decoded without a resolution"),
        (("nerpe", None, 0), "resolution 0 is not between 16 and 2048"),
        (("nerpe", "standard", -5), "resolution -5 is not between"),
        (("nerpe", "standard", 4096), "resolution 4096 is not between"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(
    model: PoseModel,
    features: Features,
    asked: tuple[Any, ...],
    message: str,
) -> None:
    with pytest.raises(ValueError, match=message):
        model.decode(features[:1], *asked)


def test_a_field_of_a_head_that_is_not_there_is_refused(
    model: PoseModel, features: Features
) -> None:
    with pytest.raises(ValueError, match="head 'paf' is not one of"):
        model.field(features, "paf", np.zeros(1), np.zeros(1))


# Calibration


@pytest.mark.parametrize(("head", "decode"), DECODES)
def test_a_calibrated_score_is_the_raw_one_s_value(
    model: PoseModel, calibrated: PoseModel, features: Features, head: str, decode: str
) -> None:
    resolution = 64 if decode == "standard" else None
    raw, own = (each.decode(features, head, decode, resolution) for each in (model, calibrated))
    np.testing.assert_array_equal(own.points, raw.points)
    expected = np.interp(raw.scores, CALIBRATION.score.raw, CALIBRATION.score.value)
    np.testing.assert_allclose(own.scores, expected, atol=1e-6)
    assert own.sigmas is None
    told = calibrated.decode(features, head, decode, resolution, sigma=True)
    assert told.sigmas is not None
    assert told.sigmas.shape == (3, 17)
    assert ((told.sigmas > 1) & (told.sigmas <= 10)).all()
    assert len(np.unique(told.sigmas)) > 20


def test_a_sigma_of_a_head_that_is_not_calibrated_is_refused_before_the_head_runs(
    model: PoseModel, features: Features, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []
    monkeypatch.setattr(model.engine, "head", lambda name, _: ran.append(name))
    with pytest.raises(ValueError, match="'simcc' of pose-s is not calibrated"):
        model.decode(features, "simcc", sigma=True)
    assert not ran


def test_of_the_fields_simcc_s_alone_is_as_high_as_the_calibrated_score(
    model: PoseModel, calibrated: PoseModel, features: Features
) -> None:
    scores = calibrated.decode(features, "simcc", "argmax").scores
    field = calibrated.field(features, "simcc", *_lattice(model, 0.5))
    np.testing.assert_allclose(field.max((-2, -1)), scores, rtol=0.05)
    for head in ("nerpe", "heatmap"):
        raw, own = (
            each.field(features[:1], head, *_lattice(model, 8)) for each in (model, calibrated)
        )
        np.testing.assert_array_equal(raw, own)


# Features


def test_a_batch_is_stacked_and_cut_as_an_array_is(features: Features) -> None:
    again = Features.stack([features[:1], features[1:]])
    assert Features.stack([features]) is features
    np.testing.assert_array_equal(again.plain, features.plain)
    assert again.mirrored is not None
    assert features.mirrored is not None
    np.testing.assert_array_equal(again.mirrored, features.mirrored)
    assert (len(again), len(features[1:])) == (3, 2)
    plain = Features(features.plain)
    assert Features.stack([plain[:1], plain[1:]]).mirrored is None
    with pytest.raises(ValueError, match="with and without mirror images"):
        Features.stack([features[:1], plain[1:]])


def test_kept_features_take_half_the_memory_and_none_of_the_batch_s(features: Features) -> None:
    kept = features[1:2].half()
    assert kept.nbytes * 2 * 3 == features.nbytes
    assert features.nbytes == 2 * features.plain.nbytes
    assert Features(features.plain).nbytes == features.plain.nbytes
    assert kept.mirrored is not None
    assert kept.plain.dtype == kept.mirrored.dtype == np.float16
    assert not np.shares_memory(kept.plain, features.plain)
    assert not np.shares_memory(features.half().half().plain, features.plain)


@heads
def test_kept_features_answer_nearly_as_fresh_ones(
    model: PoseModel, features: Features, head: str
) -> None:
    lattice = _lattice(model, 4)
    fresh, kept = (model.field(part, head, *lattice) for part in (features, features.half()))
    np.testing.assert_allclose(kept, fresh, atol=0.01)


def test_flip_encodes_the_mirrored_crops_too(
    model: PoseModel, features: Features, crops: NDArray[np.uint8]
) -> None:
    plain = model.encode(crops)
    assert plain.mirrored is None
    np.testing.assert_allclose(plain.plain, features.plain, atol=1e-5)
    opposite = model.encode(np.ascontiguousarray(crops[:, :, ::-1]))
    assert features.mirrored is not None
    np.testing.assert_allclose(opposite.plain, features.mirrored, atol=1e-5)


# Mirror images


@heads
def test_with_flip_a_mirrored_crop_has_the_mirrored_field(
    model: PoseModel, crops: NDArray[np.uint8], features: Features, head: str
) -> None:
    mirrored = model.encode(np.ascontiguousarray(crops[:, :, ::-1]), flip=True)
    columns, rows = _lattice(model, 3)
    own = model.field(features, head, columns, rows, exact=True)
    other = model.field(mirrored, head, columns, rows, exact=True)
    # SimCC's last bin has no counterpart in the mirrored crop.
    inner = slice(2, -2)
    np.testing.assert_allclose(other[:, MIRROR, :, ::-1][..., inner], own[..., inner], atol=2e-3)


@pytest.mark.data
@pytest.mark.parametrize(("head", "decode"), [d for d in DECODES if d[1] != "argmax"])
def test_with_flip_a_mirrored_person_has_mirrored_joints(
    model: PoseModel, people: NDArray[np.uint8], head: str, decode: str
) -> None:
    resolution = 64 if decode == "standard" else None
    own, other = (
        model.decode(model.encode(crops, flip=True), head, decode, resolution)
        for crops in (people, np.ascontiguousarray(people[:, :, ::-1]))
    )
    np.testing.assert_allclose(other.scores[:, MIRROR], own.scores, atol=5e-3)
    clear = own.scores > 0.5
    expected = own.points * [-1, 1] + [model.size[0] - 1, 0]
    # On a lattice, equal neighbours of a peak that lies between them are chosen from one side.
    atol = max(model.size) / 64 + 0.01 if decode == "standard" else 0.6
    np.testing.assert_allclose(other.points[:, MIRROR][clear], expected[clear], atol=atol)


@pytest.mark.data
def test_heads_agree_on_the_joints_they_are_sure_of(
    model: PoseModel, people: NDArray[np.uint8]
) -> None:
    features = model.encode(people, flip=True)
    simcc, nerpe, heatmap = (model.decode(features, head) for head in HEADS)
    sure = np.minimum.reduce([simcc.scores, nerpe.scores, heatmap.scores]) > 0.3
    assert sure.sum() >= 8
    for other in (nerpe, heatmap):
        distance = np.linalg.norm(other.points - simcc.points, axis=-1)[sure]
        assert np.median(distance) < 4


# Fields


@heads
def test_a_field_is_0_outside_the_crop(model: PoseModel, features: Features, head: str) -> None:
    columns = np.array([-300.0, -0.6, -0.5, 80, 191.5, 191.6])
    rows = np.array([-0.51, 0, 100, 255.5, 255.51, 4000])
    field = model.field(features, head, columns, rows)
    assert field.shape == (3, 17, 6, 6)
    assert field.dtype == np.float32
    inside = np.zeros((6, 6), bool)
    inside[1:4, 2:5] = True
    assert (field[:, :, ~inside] == 0).all()
    assert (field[:, :, inside] > 0).any()
    # The samples inside are those that they alone would be.
    alone = model.field(features, head, columns[2:5], rows[1:4])
    np.testing.assert_allclose(field[:, :, 1:4, 2:5], alone, atol=1e-6)
    assert not model.field(features, head, columns[:2], rows).any()


@heads
def test_a_field_stays_between_0_and_1(model: PoseModel, features: Features, head: str) -> None:
    field = model.field(features, head, *_lattice(model, 2))
    assert field.shape == (3, 17, 128, 96)
    assert (field >= 0).all()
    assert (field <= 1).all()


@heads
def test_joints_are_chosen_by_index_in_any_order(
    model: PoseModel, features: Features, head: str
) -> None:
    lattice = _lattice(model, 2)
    every = model.field(features, head, *lattice, exact=True)
    some = model.field(features, head, *lattice, keypoints=[9, 0], exact=True)
    np.testing.assert_allclose(some, every[:, [9, 0]], atol=1e-6)
    assert model.field(features, head, *lattice, keypoints=[]).shape == (3, 0, 128, 96)


@heads
def test_a_field_of_one_sample_is_that_sample(
    model: PoseModel, features: Features, head: str
) -> None:
    columns, rows = _lattice(model, 8)
    every = model.field(features, head, columns, rows, exact=True)
    one = model.field(features, head, columns[7:8], rows[20:21])
    np.testing.assert_allclose(one, every[:, :, 20:21, 7:8], atol=1e-6)


@pytest.mark.parametrize(
    ("head", "decode"), [("simcc", "argmax"), ("nerpe", "standard"), ("heatmap", "argmax")]
)
def test_a_field_s_height_at_a_joint_is_its_score(
    model: PoseModel, features: Features, head: str, decode: str
) -> None:
    one = features[:1]
    decoded = model.decode(one, head, decode, 64 if head == "nerpe" else None)
    for joint in (0, 6, 15):
        u, v = decoded.points[0, joint]
        at = model.field(one, head, np.array([u]), np.array([v]), keypoints=[joint])
        assert at.item() == pytest.approx(decoded.scores[0, joint], abs=1e-4)


@pytest.mark.data
def test_refining_a_person_s_field_changes_nothing_that_can_be_seen(
    model: PoseModel, people: NDArray[np.uint8]
) -> None:
    features = model.encode(people[:1])
    refined, exact = (
        model.field(features, "nerpe", *_lattice(model, 1), keypoints=[0, 10], exact=exact)
        for exact in (False, True)
    )
    error = np.abs(refined - exact)
    assert np.quantile(error, 0.999) <= 0.01
    assert error.max() <= 0.05


@pytest.mark.parametrize(("library", "kind"), [("numpy", "asarray"), ("torch", "as_tensor")])
def test_features_know_which_crops_have_numbers(library: str, kind: str) -> None:
    made = getattr(pytest.importorskip(library), kind)
    plain = np.zeros((4, 2, 3, 3), np.float32)
    mirrored = plain.copy()
    plain[1, 0, 2, 1], mirrored[2, 1, 0, 0] = np.nan, np.inf
    assert Features(made(plain)).finite.tolist() == [True, False, True, True]
    assert Features(made(plain), made(mirrored)).finite.tolist() == [True, False, False, True]
