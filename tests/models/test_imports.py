"""Networks from elsewhere, made into bundles, answer as the files that they were made of."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from models.bundle import Bundle, BundleError, load_bundle
from models.engines import load_engine
from models.geometry import Box
from models.imports import Told, bundle_name, import_network
from models.keypoints import KEYPOINT_SETS
from models.pixels import IMAGENET, Pixels
from models.pose import PoseModel
from models.predictor import Predictor
from tests.models.elsewhere import SIZE, heatmap_network, save, simcc_network

TOLD = Told(name="theirs", licence="Apache-2.0", source="a test")
BGR = Pixels((103.53, 116.28, 123.675), (57.375, 57.12, 58.395), "BGR")
BOXES = [Box(5, 8, 60, 90), Box(20, 3, 40, 100), Box(-10, 30, 80, 80)]


@pytest.fixture(scope="module")
def image() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (120, 100, 3), np.uint8)


def bring(file: Path, **told: Any) -> PoseModel:  # noqa: ANN401
    return served(import_network(file, file.parent / "bundles", replace(TOLD, **told)))


def served(bundle: Bundle) -> PoseModel:
    # As a server would find it, from its files alone.
    loaded = load_bundle(bundle.path)
    assert loaded == bundle
    return PoseModel(loaded, load_engine(loaded, threads=1))


def answers(file: Path, crops: NDArray[np.uint8], pixels: Pixels = IMAGENET) -> list[Any]:
    """The file's own, crop by crop."""
    session = ort.InferenceSession(file)
    ordered = crops if pixels.channels == "RGB" else crops[..., ::-1]
    values = (ordered.astype(np.float64) - pixels.mean) / pixels.std
    (name,) = (taken.name for taken in session.get_inputs())
    each = [
        session.run(None, {name: crop.transpose(2, 0, 1)[None].astype(np.float32)})
        for crop in values
    ]
    return [np.concatenate(parts) for parts in zip(*each, strict=True)]


@pytest.mark.parametrize("pixels", [IMAGENET, BGR], ids=["RGB", "BGR"])
@pytest.mark.parametrize(
    ("batch", "sealed"), [("batch", False), (1, False), (1, True)], ids=["open", "one", "sealed"]
)
def test_a_simcc_network_is_decoded_as_published(
    tmp_path: Path, image: NDArray[np.uint8], pixels: Pixels, sealed: bool, batch: str | int
) -> None:
    file = simcc_network(tmp_path / "rtmpose.onnx", batch=batch, sealed=sealed)
    model = bring(file, pixels=pixels)
    spec = model.manifest.heads.simcc
    assert spec is not None
    assert (model.heads, model.size, spec.split) == (("simcc",), SIZE, 2)
    assert model.manifest.input.largest_batch == (1 if sealed else 32)
    people = Predictor(model).predict(image, boxes=BOXES)
    crops = np.stack(model.cut(image, BOXES)[1])
    x, y = answers(file, crops, pixels)
    for person, box, *logits in zip(people, BOXES, x, y, strict=True):
        bins = np.stack([part.argmax(-1) for part in logits], axis=-1)
        # mmpose: u / W * w + c - w / 2, of the padded box.
        padded = box.padded(SIZE[0] / SIZE[1], 1.25)
        extent = np.array([padded.width, padded.height])
        expected = bins / 2 / SIZE * extent + padded.center - extent / 2
        np.testing.assert_allclose(person.pose.points, expected, atol=1e-3)
        peaks = np.minimum(*(part.max(-1) for part in logits))
        np.testing.assert_allclose(person.pose.scores, peaks.clip(0, 1), atol=1e-4)


def test_a_fixed_batch_is_opened_where_the_graph_allows_it(tmp_path: Path) -> None:
    crops = np.random.default_rng(1).integers(0, 256, (3, SIZE[1], SIZE[0], 3), np.uint8)
    file = simcc_network(tmp_path / "one.onnx", batch=1)
    model = bring(file)
    assert "opened" in model.manifest.provenance.recipe
    for own, theirs in zip(
        model.engine.head("simcc", model.encode(crops).plain), answers(file, crops), strict=True
    ):
        np.testing.assert_allclose(own, theirs, atol=1e-5)
    sealed = bring(simcc_network(tmp_path / "sealed.onnx", batch=1, sealed=True), name="sealed")
    assert "one crop a batch, which is fixed" in sealed.manifest.provenance.recipe


@pytest.mark.parametrize("batch", ["n", 1])
def test_a_heatmap_network_keeps_its_maps_as_features(
    tmp_path: Path, image: NDArray[np.uint8], batch: str | int
) -> None:
    """They are told from the maps beside them by how many there are."""
    file = heatmap_network(tmp_path / "hrnet.onnx", batch=batch, features=40)
    model = bring(file, matrix="udp", blur=3, decode="argmax")
    spec = model.manifest.heads.heatmap
    assert spec is not None
    assert (spec.width, spec.height, spec.grid, spec.blur) == (12, 16, "udp", 3)
    crops = np.stack(model.cut(image, BOXES)[1])
    maps, _ = answers(file, crops)
    features = model.encode(crops, flip=True)
    np.testing.assert_allclose(features.plain, maps, atol=1e-5)
    decoded = model.decode(features[:], "heatmap")
    mirror = list(model.keypoints.mirror)
    both = (maps + answers(file, crops[:, :, ::-1])[0][:, mirror, :, ::-1]) / 2
    rows, columns = np.unravel_index(both.reshape(3, 17, -1).argmax(-1), (16, 12))
    np.testing.assert_allclose(decoded.points[..., 0], columns * 47 / 11, atol=1e-4)
    np.testing.assert_allclose(decoded.points[..., 1], rows * 63 / 15, atol=1e-4)
    np.testing.assert_allclose(decoded.scores, both.max((2, 3)), atol=1e-5)


@pytest.mark.parametrize("made", [simcc_network, heatmap_network])
def test_openvino_runs_what_was_imported(
    tmp_path: Path, made: Callable[..., Path], image: NDArray[np.uint8]
) -> None:
    pytest.importorskip("openvino")
    from models.engines.openvino import OpenvinoEngine

    model = bring(made(tmp_path / "a.onnx", batch=1))
    other = PoseModel(model.bundle, OpenvinoEngine(model.bundle, threads=1))
    crops = np.stack(model.cut(image, BOXES)[1])
    (head,) = model.heads
    ours, theirs = (each.decode(each.encode(crops, flip=True), head) for each in (model, other))
    np.testing.assert_allclose(theirs.points, ours.points, atol=1e-3)
    np.testing.assert_allclose(theirs.scores, ours.scores, atol=1e-4)


def test_both_kinds_draw_their_fields_and_have_no_sigma(
    tmp_path: Path, image: NDArray[np.uint8]
) -> None:
    files = simcc_network(tmp_path / "a.onnx"), heatmap_network(tmp_path / "b.onnx")
    for file in files:
        model = bring(file, name=file.stem)
        (head,) = model.heads
        features = model.encode(np.stack(model.cut(image, BOXES)[1]))
        decoded = model.decode(features, head, "argmax")
        field = model.field(features, head, np.arange(0, 48, 0.5), np.arange(0, 64, 0.5))
        assert field.shape == (3, 17, 128, 96)
        sure = decoded.scores > 0.05
        assert sure.any()
        for person, joint in np.argwhere(sure):
            u, v = decoded.points[person, joint]
            value = model.field(features, head, np.array([u]), np.array([v]), keypoints=[joint])
            assert value[person, 0, 0, 0] == pytest.approx(decoded.scores[person, joint], rel=0.01)
        with pytest.raises(ValueError, match="not calibrated"):
            model.decode(features, head, sigma=True)


@pytest.mark.parametrize("name", ["coco17", "halpe26", "wholebody133"])
def test_the_keypoint_set_is_the_one_of_as_many(tmp_path: Path, name: str) -> None:
    joints = len(KEYPOINT_SETS[name])
    for file in (
        simcc_network(tmp_path / "s.onnx", joints=joints),
        heatmap_network(tmp_path / "h.onnx", joints=joints),
    ):
        assert bring(file, name=file.stem).keypoints.name == name


def test_where_two_sets_are_as_large_it_is_chosen(tmp_path: Path) -> None:
    file = simcc_network(tmp_path / "s.onnx", joints=14)
    with pytest.raises(BundleError, match="choose --keypoints lsp14 or crowdpose14"):
        bring(file)
    with pytest.raises(BundleError, match="answers 14 keypoints, coco17 has 17"):
        bring(file, keypoints="coco17")
    assert bring(file, keypoints="crowdpose14").keypoints.name == "crowdpose14"


def test_axes_are_told_by_their_names_where_these_say_it(tmp_path: Path) -> None:
    file = simcc_network(tmp_path / "s.onnx")
    graph = onnx.load(file)
    graph.graph.output.reverse()
    onnx.save(graph, file)
    model = bring(file)
    crops = np.random.default_rng(1).integers(0, 256, (2, SIZE[1], SIZE[0], 3), np.uint8)
    x, y = model.engine.head("simcc", model.encode(crops).plain)
    assert (x.shape, y.shape) == ((2, 17, 96), (2, 17, 128))


def test_labels_are_mmpose_s_where_nothing_else_is_told(tmp_path: Path) -> None:
    simcc = simcc_network(tmp_path / "s.onnx", split=4)
    spec = bring(simcc).manifest.heads.simcc
    assert spec is not None
    assert (spec.split, spec.beta, spec.decode) == (4, 10, "argmax")
    assert spec.sigma == (3.46, 4.0)  # sqrt(bins) / 4
    told = bring(simcc, name="b", sigma=(6.0, 6.0), beta=0.0, decode="expectation")
    assert told.manifest.heads.simcc is not None
    assert told.manifest.heads.simcc.beta is None
    assert told.manifest.heads.simcc.sigma == (6.0, 6.0)
    heatmap = bring(heatmap_network(tmp_path / "h.onnx"), name="h").manifest.heads.heatmap
    assert heatmap is not None
    assert (heatmap.sigma, heatmap.blur, heatmap.decode) == (0.5, 3, "dark")


def test_narrow_labels_have_no_kernel(tmp_path: Path) -> None:
    file = heatmap_network(tmp_path / "h.onnx")
    heatmap = bring(file, sigma=(0.1, 0.1)).manifest.heads.heatmap
    assert heatmap is not None
    assert heatmap.blur == 1


@pytest.mark.parametrize("told", [{"name": "A b"}, {"blur": 4}, {"sigma": (0.0, 1.0)}])
def test_what_is_told_is_judged_before_graphs_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: dict[str, Any]
) -> None:
    monkeypatch.setattr("models.imports.write_graphs", lambda *_: pytest.fail("it takes long"))
    made = heatmap_network if "blur" in told else simcc_network
    with pytest.raises((BundleError, ValidationError)):
        bring(made(tmp_path / "x.onnx"), **told)


def test_a_network_of_any_size_is_told_one(tmp_path: Path) -> None:
    file = heatmap_network(tmp_path / "h.onnx", height="height")
    with pytest.raises(BundleError, match="any size: choose it with --size"):
        bring(file)
    model = bring(file, size=(48, 80))
    assert model.size == (48, 80)
    assert model.manifest.feature_shape == (17, 20, 12)


def _two_inputs(path: Path) -> Path:
    node = onnx.helper.make_node("Add", ["a", "b"], ["c"])
    shape = (1, 3, 64, 48)
    return save(path, [node], {}, {"a": shape, "b": shape}, {"c": shape})


def _points(path: Path) -> Path:
    """As mmdeploy exports SimCC with its post-processing."""
    nodes = [
        onnx.helper.make_node("Conv", ["input", "w"], ["c"], strides=[64, 24]),
        onnx.helper.make_node("Reshape", ["c", "shape"], ["simcc_x"]),
        onnx.helper.make_node("ReduceMean", ["simcc_x"], ["simcc_y"], axes=[2], keepdims=0),
    ]
    weights = {
        "w": np.ones((17, 3, 64, 24), np.float32), "shape": np.array([0, 17, 2], np.int64),
    }  # fmt: skip
    outputs: dict[str, Any] = {"simcc_x": (1, 17, 2), "simcc_y": (1, 17)}
    return save(path, nodes, weights, {"input": (1, 3, 64, 48)}, outputs)


def _undefined(path: Path) -> Path:
    shape = (1, 17, 64, 48)
    weights = {"w": np.full((17, 3, 1, 1), np.nan, np.float32)}
    node = onnx.helper.make_node("Conv", ["image", "w"], ["maps"])
    return save(path, [node], weights, {"image": (1, 3, 64, 48)}, {"maps": shape})


def _text(path: Path) -> Path:
    path.write_text("<!doctype html>")
    return path


def _empty(path: Path) -> Path:
    path.write_bytes(b"")
    return path


@pytest.mark.parametrize(
    ("made", "told", "said"),
    [
        (_text, {}, "x.onnx is no ONNX file"),
        (_empty, {}, "it holds no graph"),
        (_two_inputs, {}, r"takes a float \(1, 3, 64, 48\); b .*expected one input float32"),
        (_points, {}, "without its post-processing"),
        (_undefined, {}, "'maps' is not of finite float32 numbers"),
        (lambda path: heatmap_network(path, kind=10), {}, "takes image float16"),
        (lambda path: simcc_network(path, batch=4), {}, "batches of 4 only"),
        (lambda path: simcc_network(path, joints=21), {}, "21 keypoints, which no set here has"),
        (lambda path: simcc_network(path), {"outputs": ["heat"]}, "no output 'heat'; it answers"),
        (lambda path: simcc_network(path), {"size": (192, 256)}, "not crops of 192x256"),
        (lambda path: simcc_network(path), {"decode": "dark"}, "argmax or expectation"),
        (lambda path: heatmap_network(path), {"sigma": (1.0, 2.0)}, "--sigma of one number"),
        (lambda path: heatmap_network(path), {"beta": 10.0}, "heatmap head: no --beta"),
        (lambda path: heatmap_network(path), {"decode": "expectation"}, "dark, quarter or argmax"),
        (lambda path: simcc_network(path), {"keypoints": "coco18"}, "'coco18' is not one of"),
        (
            lambda path: simcc_network(path), {"outputs": ["simcc_x"]},
            "expected two outputs .* bins along x",
        ),
        (
            lambda path: heatmap_network(path, features=17), {},
            "several outputs that could be heatmaps: .*--output",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file_is_said(
    tmp_path: Path, made: Callable[[Path], Path], told: dict[str, Any], said: str
) -> None:
    file = made(tmp_path / "x.onnx")
    with pytest.raises(BundleError, match=said):
        bring(file, **told)
    assert not list((tmp_path / "bundles").glob("**/*"))


def test_a_name_is_given_once_unless_the_bundle_is_to_be_replaced(tmp_path: Path) -> None:
    first = bring(simcc_network(tmp_path / "a.onnx"))
    file = heatmap_network(tmp_path / "b.onnx")
    with pytest.raises(BundleError, match="is there already: choose another --name"):
        bring(file)
    assert load_bundle(first.bundle.path) == first.bundle
    elsewhere = tmp_path / "more"
    with pytest.raises(BundleError, match="has that name already"):
        import_network(file, elsewhere, TOLD, among=[tmp_path / "bundles", elsewhere])
    import_network(file, tmp_path / "bundles", TOLD, replace=True)
    assert load_bundle(first.bundle.path).pose.default_head == "heatmap"
    assert [path.name for path in (tmp_path / "bundles").iterdir()] == ["theirs"]


def test_a_bundle_is_named_by_its_file(tmp_path: Path) -> None:
    assert bundle_name(Path("rtmpose-m_simcc-body7_420e-256x192.onnx")) == (
        "rtmpose-m_simcc-body7_420e-256x192"
    )
    assert bundle_name(tmp_path / "RTMPose m" / "end2end.onnx") == "rtmpose-m"
    assert bundle_name(Path("_Ä.onnx")) == "imported"
