import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch")
pytest.importorskip("onnx")

import onnx
import torch
from onnx import TensorProto, helper
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from models.bundle import BUNDLES, Bundle, load_bundle
from models.calibration import IDENTITY
from models.detectors import load_detector
from models.engines import EngineError, Precision, load_engine
from models.engines.auto import SCORED, sample_crops
from models.engines.torch_graph import TorchGraph
from models.pose import PoseModel

GRAPHS = sorted(path.relative_to(BUNDLES) for path in BUNDLES.glob("*/*.onnx"))


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundle(BUNDLES / "pose-s")


@pytest.fixture(scope="module")
def models(bundle: Bundle) -> tuple[PoseModel, PoseModel]:
    """On torch, and on ONNX Runtime."""
    ours = load_engine(bundle, engine="torch", threads=1)
    return PoseModel(bundle, ours), PoseModel(bundle, load_engine(bundle, threads=1))


@pytest.fixture(scope="module")
def crops(bundle: Bundle) -> NDArray[np.uint8]:
    return sample_crops(bundle)


def _inputs(session: ort.InferenceSession, crops: NDArray[np.uint8]) -> list[NDArray[np.generic]]:
    """People where the graph takes pixels, else numbers in its shapes."""
    random = np.random.default_rng(0)
    arrays: list[NDArray[np.generic]] = []
    for node in session.get_inputs():
        if node.type == "tensor(uint8)":
            height, width = (n if isinstance(n, int) else 160 for n in node.shape[1:3])
            arrays.append(crops[:, :height, :width])
        else:
            sizes = [size if isinstance(size, int) else 4 for size in node.shape]
            arrays.append(random.uniform(-1, 1, sizes).astype(np.float32))
    return arrays


@pytest.mark.parametrize("name", GRAPHS, ids=str)
def test_every_graph_answers_as_in_onnx_runtime(name: Path, crops: NDArray[np.uint8]) -> None:
    session = ort.InferenceSession(BUNDLES / name, providers=["CPUExecutionProvider"])
    inputs = _inputs(session, crops)
    names = [node.name for node in session.get_inputs()]
    expected = session.run(None, dict(zip(names, inputs, strict=True)))
    graph = TorchGraph(BUNDLES / name, torch.device("cpu"))
    with torch.inference_mode():
        found = graph(*map(torch.from_numpy, inputs))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4 * max(1, np.abs(b).max()))


@pytest.mark.parametrize("name", GRAPHS, ids=str)
def test_no_graph_waits_for_the_device_or_mixes_it_with_the_host(
    name: Path, crops: NDArray[np.uint8]
) -> None:
    # A device without numbers: whatever reads one back, or meets one of the host's, fails.
    meta = torch.device("meta")
    session = ort.InferenceSession(BUNDLES / name, providers=["CPUExecutionProvider"])
    inputs = [torch.from_numpy(x).to(meta) for x in _inputs(session, crops)]
    outputs = TorchGraph(BUNDLES / name, meta)(*inputs)
    assert [x.device for x in outputs] == [meta] * len(session.get_outputs())


class Crossings(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Operators that bring something from one device to another."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: list[str] = []

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        result = func(*args, **(kwargs or {}))
        tensors = (x for x in tree_leaves((args, kwargs, result)) if isinstance(x, torch.Tensor))
        if len({x.device for x in tensors}) > 1:
            self.seen.append(str(func))
        return result


def test_nothing_of_the_host_enters_an_encoder_in_its_midst(
    bundle: Bundle, crops: NDArray[np.uint8]
) -> None:
    # A CUDA graph may hold no copy from memory that is not pinned.
    meta = torch.device("meta")
    graph = TorchGraph(bundle.file(bundle.pose.encoder), meta)
    with torch.inference_mode():
        with Crossings() as crossings:
            there = torch.from_numpy(crops).to(meta)
        assert crossings.seen
        with Crossings() as crossings:
            graph(there)
    assert not crossings.seen


@pytest.mark.parametrize("flip", [False, True])
def test_joints_are_decoded_in_torch_as_they_are_in_numpy(
    models: tuple[PoseModel, PoseModel], crops: NDArray[np.uint8], flip: bool
) -> None:
    ours, theirs = models
    found, expected = (model.encode(crops, flip=flip) for model in models)
    assert isinstance(found.plain, torch.Tensor)
    for head, decodes in ours.decodes.items():
        for decode in decodes:
            resolution = 64 if decode == "standard" else None
            a = ours.decode(found, head, decode, resolution)
            b = theirs.decode(expected, head, decode, resolution)
            assert isinstance(a.points, np.ndarray)
            sure = np.asarray(b.scores) > SCORED
            np.testing.assert_allclose(a.points[sure], b.points[sure], atol=0.01)
            np.testing.assert_allclose(a.scores, b.scores, atol=1e-4)


def test_spreads_are_told_in_torch_too(
    models: tuple[PoseModel, PoseModel],
    crops: NDArray[np.uint8],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(PoseModel, "calibration", lambda self, head: IDENTITY)
    for head in models[0].heads:
        a, b = (model.decode(model.encode(crops), head, sigma=True) for model in models)
        assert isinstance(a.sigmas, np.ndarray)
        assert b.sigmas is not None
        sure = np.asarray(b.scores) > SCORED
        np.testing.assert_allclose(a.sigmas[sure], b.sigmas[sure], atol=0.01)


def test_people_are_found_by_the_same_boxes(crops: NDArray[np.uint8]) -> None:
    photo = np.concatenate(list(crops), axis=1)
    (ours,) = load_detector("person-n", engine="torch", threads=1).detect([photo])
    (theirs,) = load_detector("person-n", threads=1).detect([photo])
    assert len(ours) == len(theirs) >= 3
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(
            (a.x, a.y, a.width, a.height), (b.x, b.y, b.width, b.height), atol=0.01
        )


@pytest.mark.parametrize("precision", ["bf16", "f16"])
def test_a_precision_that_moves_joints_is_refused(bundle: Bundle, precision: Precision) -> None:
    with pytest.raises(EngineError, match=rf"torch-{precision} puts joints of head .* px"):
        load_engine(bundle, engine="torch", precision=precision, threads=1)


def _graph(path: Path, operator: str, **attributes: int | list[int]) -> Path:
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 1, 4, 4]) for n in "xy")
    node = helper.make_node(operator, ["x"], ["y"], **attributes)  # type: ignore[arg-type]
    onnx.save(helper.make_model(helper.make_graph([node], "one", [x], [y])), path)
    return path


def test_what_torch_cannot_run_exactly_is_named(tmp_path: Path) -> None:
    path, cpu = tmp_path / "graph.onnx", torch.device("cpu")
    with pytest.raises(EngineError, match="knows no operator Erf, only Abs"):
        TorchGraph(_graph(path, "Erf"), cpu)
    with pytest.raises(EngineError, match="knows MaxPool, but not so: ceil_mode is 1"):
        TorchGraph(_graph(path, "MaxPool", kernel_shape=[2, 2], ceil_mode=1), cpu)
    with pytest.raises(EngineError, match=r"knows Relu, but not so: .*'shape'"):
        TorchGraph(_graph(path, "Relu", shape=1), cpu)
    path.write_bytes(b"not a graph")
    with pytest.raises(EngineError, match=r"graph\.onnx cannot be loaded by torch"):
        TorchGraph(path, cpu)


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is here")
def test_a_missing_gpu_is_an_error_and_not_the_cpu(bundle: Bundle) -> None:
    with pytest.raises(EngineError, match=r"'cuda' is not there for torch .*nvidia-smi"):
        load_engine(bundle, engine="torch", device="cuda")
    with pytest.raises(EngineError, match="'cuda' is not there"):
        load_detector("person-n", engine="torch", device="cuda")


def test_torch_that_is_not_installed_is_an_error(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "models.engines.torch", None)
    with pytest.raises(EngineError, match="needs the extra `torch`"):
        load_engine(bundle, engine="torch")
    with pytest.raises(EngineError, match="needs the extra `torch`"):
        load_detector("person-n", engine="torch")
