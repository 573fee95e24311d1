from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from models.arrays import to_numpy
from models.bundle import BUNDLES, Bundle, BundleError, load_bundle
from models.cores import available_cores
from models.engines import Engine, EngineError, load_engine
from models.engines.auto import sample_crops
from models.engines.graphs import GraphEngine, Run
from models.engines.onnx import PROVIDERS, TENSORRT, handed_on, open_session, tensorrt_options
from models.engines.onnx_binding import bound

no_cuda = pytest.mark.skipif(
    PROVIDERS["cuda"] in ort.get_available_providers(), reason="CUDA is installed here"
)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundle(BUNDLES / "pose-s")


@pytest.fixture(scope="module", params=["onnxruntime", "bound", "openvino", "torch"])
def engine(bundle: Bundle, request: pytest.FixtureRequest) -> Engine:
    if request.param == "bound":  # as on a GPU, in the host's own memory
        stay = handed_on(bundle)

        def open_graph(path: Path) -> Run:
            return bound(open_session(path, threads=1), "cpu", stays=path in stay)

        return GraphEngine(bundle, open_graph, name="onnxruntime", device="cpu")
    pytest.importorskip(request.param)
    return load_engine(bundle, engine=request.param, threads=1)


@pytest.fixture(scope="module")
def reference(bundle: Bundle) -> Engine:
    return load_engine(bundle, threads=1)


@pytest.fixture(scope="module")
def crops(bundle: Bundle) -> np.ndarray:
    entry = bundle.pose.input
    shape = (3, entry.height, entry.width, 3)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_an_engine_says_what_it_runs_on(bundle: Bundle, engine: Engine) -> None:
    assert (engine.name, engine.device) in {
        ("onnxruntime", "cpu"), ("openvino", "cpu"), ("torch", "cpu")
    }  # fmt: skip


def test_engines_answer_alike(
    engine: Engine, reference: Engine, bundle: Bundle, crops: np.ndarray
) -> None:
    points = np.random.default_rng(2).uniform(-1, 1, (4, 9, 2)).astype(np.float32)
    for pixels in (sample_crops(bundle), crops[:1]):
        expected = reference.encode(pixels)
        features = engine.encode(pixels)
        np.testing.assert_allclose(features, expected, atol=1e-4 * np.abs(expected).max())
        for head in ("simcc", "heatmap", "nerpe"):
            for a, b in zip(
                engine.head(head, expected), reference.head(head, expected), strict=True
            ):
                np.testing.assert_allclose(a, b, atol=1e-4 * max(1, np.abs(b).max()))
        (cells,) = reference.head("nerpe", expected)
        asked = points[: len(cells)]
        np.testing.assert_allclose(
            engine.field(cells, asked), reference.field(cells, asked), atol=1e-4
        )


def test_what_an_engine_answered_stays(engine: Engine, crops: np.ndarray) -> None:
    first = engine.encode(crops)
    before = to_numpy(first).copy()
    engine.encode(255 - crops)
    np.testing.assert_array_equal(to_numpy(first), before)


def test_graphs_answer_in_the_shapes_that_the_manifest_states(
    bundle: Bundle, engine: Engine, crops: np.ndarray
) -> None:
    heads = bundle.pose.heads
    assert heads.simcc
    assert heads.heatmap
    assert heads.nerpe
    features = engine.encode(crops)
    assert features.shape == (3, *bundle.pose.feature_shape)
    x, y = engine.head("simcc", features)
    assert x.shape == (3, 17, bundle.pose.input.width * heads.simcc.split)
    assert y.shape == (3, 17, bundle.pose.input.height * heads.simcc.split)
    (maps,) = engine.head("heatmap", features)
    assert maps.shape == (3, 17, heads.heatmap.height, heads.heatmap.width)
    (cells,) = engine.head("nerpe", features)
    assert cells.shape[0] == 3
    assert cells.shape[2:] == (heads.nerpe.height, heads.nerpe.width)
    values = engine.field(cells, np.zeros((3, 7, 2), np.float32))
    assert values.shape == (3, 7, 17)
    for array in (features, x, y, maps, cells, values):
        assert to_numpy(array).dtype == np.float32
        assert np.isfinite(to_numpy(array)).all()


def test_a_batch_answers_as_its_crops_alone_do(engine: Engine, crops: np.ndarray) -> None:
    points = np.random.default_rng(1).uniform(-1, 1, (3, 11, 2)).astype(np.float32)
    features = engine.encode(crops)
    cells = engine.head("nerpe", features)[0]
    values = engine.field(cells, points)
    for i in range(3):
        one = slice(i, i + 1)
        np.testing.assert_allclose(engine.encode(crops[one]), features[one], atol=1e-4)
        for head in ("simcc", "heatmap", "nerpe"):
            together, alone = engine.head(head, features), engine.head(head, features[one])
            for a, b in zip(together, alone, strict=True):
                np.testing.assert_allclose(a[one], b, atol=1e-4)
        np.testing.assert_allclose(engine.field(cells[one], points[one]), values[one], atol=1e-4)


def test_extreme_crops_stay_finite(engine: Engine, crops: np.ndarray) -> None:
    for value in (0, 255):
        features = engine.encode(np.full_like(crops[:1], value))
        assert np.isfinite(to_numpy(features)).all()
        for head in ("simcc", "heatmap", "nerpe"):
            assert all(np.isfinite(to_numpy(part)).all() for part in engine.head(head, features))


def test_several_threads_may_call_one_engine(engine: Engine, crops: np.ndarray) -> None:
    expected = engine.encode(crops)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: engine.encode(crops[i % 3 :][:1]), range(8)))
    for i, features in enumerate(found):
        np.testing.assert_allclose(features, expected[i % 3 :][:1], atol=1e-4)


def test_openvino_is_no_engine_for_cuda(bundle: Bundle) -> None:
    with pytest.raises(EngineError, match="'openvino' runs on the cpu only"):
        load_engine(bundle, engine="openvino", device="cuda")


def test_a_precision_that_an_engine_does_not_have_is_an_error(bundle: Bundle) -> None:
    with pytest.raises(EngineError, match="'onnxruntime' does not compute in f16"):
        load_engine(bundle, precision="f16")
    with pytest.raises(EngineError, match="'tensorrt' does not compute in bf16"):
        load_engine(bundle, engine="tensorrt", device="cuda", precision="bf16")


def test_tensorrt_is_no_engine_for_the_cpu(bundle: Bundle) -> None:
    with pytest.raises(EngineError, match="'tensorrt' runs on cuda only"):
        load_engine(bundle, engine="tensorrt")


@no_cuda
def test_tensorrt_that_is_missing_is_an_error(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(EngineError, match=r"CUDAExecutionProvider.*extra `gpu`"):
        load_engine(bundle, engine="tensorrt", device="cuda")
    monkeypatch.setattr(ort, "get_available_providers", lambda: list(PROVIDERS.values()))
    with pytest.raises(EngineError, match="TensorrtExecutionProvider, which this installation"):
        load_engine(bundle, engine="tensorrt", device="cuda")


@no_cuda
def test_tensorrt_that_does_not_start_is_an_error_and_not_plain_cuda(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    class OnCuda:
        def __init__(self, *_: object, providers: list[tuple[str, object]]) -> None:
            assert [name for name, _ in providers] == [TENSORRT, PROVIDERS["cuda"]]

        def get_providers(self) -> list[str]:
            return [PROVIDERS["cuda"], PROVIDERS["cpu"]]

    monkeypatch.setattr(ort, "get_available_providers", lambda: [*PROVIDERS.values(), TENSORRT])
    monkeypatch.setattr(ort, "preload_dlls", lambda: None)
    monkeypatch.setattr(ort, "InferenceSession", OnCuda)
    with pytest.raises(EngineError, match="TensorRT was asked for but its driver did not start"):
        load_engine(bundle, engine="tensorrt", device="cuda")


def test_what_tensorrt_compiled_is_kept_beside_the_notes(tmp_path: Path) -> None:
    options = tensorrt_options("f16", tmp_path / "engine.json")
    assert options["trt_fp16_enable"] == options["trt_engine_cache_enable"] == "1"
    assert options["trt_engine_cache_path"] == str(tmp_path / "tensorrt")
    assert tensorrt_options("f32", None) == {"trt_fp16_enable": "0"}


@no_cuda
def test_a_missing_device_is_an_error_that_says_what_to_install(bundle: Bundle) -> None:
    with pytest.raises(EngineError, match=r"CUDAExecutionProvider.*extra `gpu`"):
        load_engine(bundle, device="cuda")


@no_cuda
@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_device_that_does_not_start_is_an_error_and_not_the_cpu(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What a machine looks like whose runtime knows CUDA but whose driver does not load.
    monkeypatch.setattr(ort, "get_available_providers", lambda: list(PROVIDERS.values()))
    with pytest.raises(EngineError, match="'cuda' was asked for but its driver did not start"):
        load_engine(bundle, device="cuda")


@pytest.mark.parametrize(("device", "threads"), [("cpu", None), ("cpu", 3), ("cuda", None)])
def test_sessions_are_told_what_neither_delays_nor_surprises(
    monkeypatch: pytest.MonkeyPatch, device: str, threads: int | None
) -> None:
    told: dict[str, Any] = {}

    class Session:
        def __init__(
            self, _: Path, options: ort.SessionOptions, providers: list[tuple[str, Any]]
        ) -> None:
            told.update(providers=dict(providers), threads=options.intra_op_num_threads)
            told["spins"] = options.get_session_config_entry("session.intra_op.allow_spinning")

        def get_providers(self) -> list[str]:
            return list(told["providers"])

    monkeypatch.setattr(ort, "get_available_providers", lambda: list(PROVIDERS.values()))
    monkeypatch.setattr(ort, "preload_dlls", lambda: None)
    monkeypatch.setattr(ort, "InferenceSession", Session)
    open_session(Path("some.onnx"), device=device, threads=threads)
    # A thread that spins takes a core from whoever decodes, and never lets an idle server rest.
    assert told["spins"] == "0"
    assert told["threads"] == (threads or available_cores())
    # No trial of every convolution at each new shape, and float32 that is float32.
    cuda = {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"}
    assert told["providers"] == {PROVIDERS[device]: cuda if device == "cuda" else {}}


def test_an_unknown_device_is_an_error(bundle: Bundle) -> None:
    with pytest.raises(EngineError, match="'tpu' is not one of cpu, cuda"):
        load_engine(bundle, device="tpu")


def test_a_file_that_is_no_graph_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"not a graph")
    with pytest.raises(EngineError, match=r"broken\.onnx cannot be loaded on cpu"):
        open_session(path)
    with pytest.raises(EngineError, match=r"missing\.onnx cannot be loaded on cpu"):
        open_session(tmp_path / "missing.onnx")


def test_a_detector_is_no_pose_engine() -> None:
    with pytest.raises(BundleError, match="not a pose one"):
        load_engine(load_bundle(BUNDLES / "person-n"))
