import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tritonclient.grpc")

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from models.bundle import BUNDLES, Bundle, load_bundle
from models.engines import Engine, EngineAway, EngineError, Remote, load_engine
from models.engines.auto import sample_crops
from models.engines.triton_repository import export_repository
from models.pose import PoseModel
from tests.models.triton_server import Stub, serving

GRAPHS = [
    f"pose-s-{name}" for name in ("encoder", "heatmap", "nerpe-cells", "nerpe-field", "simcc")
]


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundle(BUNDLES / "pose-s")


@pytest.fixture(scope="module")
def repository(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("triton") / "repository"
    assert export_repository(bundle, folder) == GRAPHS
    return folder


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[Stub]:
    with serving(repository) as stub:
        yield stub


@pytest.fixture(scope="module")
def engine(bundle: Bundle, server: Stub) -> Engine:
    return load_engine(bundle, engine="triton", remote=Remote(server.address))


@pytest.fixture(scope="module")
def local(bundle: Bundle) -> Engine:
    return load_engine(bundle, threads=1)


def test_the_server_finds_the_joints_that_are_found_here(
    bundle: Bundle, engine: Engine, local: Engine, server: Stub
) -> None:
    crops = sample_crops(bundle)
    there, here = PoseModel(bundle, engine), PoseModel(bundle, local)
    server.asked.clear()
    found, expected = there.encode(crops, flip=True), here.encode(crops, flip=True)
    assert server.asked == [("pose-s-encoder", 4)] * 2
    np.testing.assert_allclose(found.plain, expected.plain, atol=1e-4)
    for head in there.heads:
        a, b = there.decode(found, head), here.decode(expected, head)
        np.testing.assert_allclose(a.points, b.points, atol=1e-2)
        np.testing.assert_allclose(a.scores, b.scores, atol=1e-4)
    assert {name for name, _ in server.asked} == set(GRAPHS)


def test_an_engine_elsewhere_says_so(engine: Engine) -> None:
    assert (engine.name, engine.device) == ("triton", "remote")


def test_a_model_says_how_it_is_batched_and_whose_weights_it_has(
    bundle: Bundle, repository: Path
) -> None:
    text = (repository / "pose-s-nerpe-field" / "config.pbtxt").read_text()
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    assert config.backend == "onnxruntime"
    assert config.max_batch_size == bundle.pose.input.largest_batch
    assert config.HasField("dynamic_batching")
    assert config.dynamic_batching.max_queue_delay_microseconds == 0
    assert config.parameters["weights"].string_value == bundle.digest
    assert [list(node.dims) for node in config.input][1] == [-1, 2]
    assert [list(node.dims) for node in config.output] == [[-1, 17]]


def test_the_same_weights_stay_one_version_and_new_ones_become_the_next(
    bundle: Bundle, tmp_path: Path
) -> None:
    for _ in range(2):
        export_repository(bundle, tmp_path / "repository")
        versions = (tmp_path / "repository" / "pose-s-heatmap").glob("[0-9]*")
        assert [path.name for path in versions] == ["1"]
    other = tmp_path / "pose-s"
    shutil.copytree(bundle.path, other)
    shutil.copy(other / "nerpe-cells.onnx", other / "heatmap.onnx")
    export_repository(replace(bundle, path=other), tmp_path / "repository")
    names = {path.name for path in (tmp_path / "repository" / "pose-s-heatmap").iterdir()}
    assert names == {"1", "2", "config.pbtxt"}
    assert not (tmp_path / "repository" / "pose-s-simcc" / "2").exists()


def test_a_server_with_other_weights_is_refused(bundle: Bundle, server: Stub) -> None:
    other = replace(bundle, digest="sha256:other")
    with pytest.raises(
        EngineError, match=r"of sha256:.*, not of sha256:other: run .*export-triton"
    ):
        load_engine(other, engine="triton", remote=Remote(server.address))


def test_a_server_without_the_models_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    with serving(tmp_path) as empty, pytest.raises(EngineError, match="unknown model: pose-s-"):
        load_engine(bundle, engine="triton", remote=Remote(empty.address))


def test_a_server_that_is_away_is_named(bundle: Bundle, repository: Path) -> None:
    with serving(repository) as stub:
        remote = Remote(stub.address, timeout_s=5)
        engine = load_engine(bundle, engine="triton", remote=remote)
    away = f"Triton at {remote.address} (cannot be reached|did not answer)"
    with pytest.raises(EngineAway, match=away):
        engine.encode(sample_crops(bundle))
    with pytest.raises(EngineAway, match=away):
        load_engine(bundle, engine="triton", remote=replace(remote, timeout_s=1))


def test_a_server_that_hangs_is_waited_for_no_longer_than_said(
    bundle: Bundle, server: Stub
) -> None:
    engine = load_engine(bundle, engine="triton", remote=Remote(server.address, timeout_s=0.5))
    server.awake.clear()
    try:
        with pytest.raises(EngineAway, match=r"did not answer for pose-s-encoder in 0.5 s"):
            engine.encode(sample_crops(bundle))
    finally:
        server.awake.set()


def test_a_failure_of_the_server_is_told_and_over_with_the_next_call(
    bundle: Bundle, engine: Engine, server: Stub
) -> None:
    server.broken = "out of memory"
    try:
        with pytest.raises(EngineError, match="pose-s-encoder: out of memory"):
            engine.encode(sample_crops(bundle))
    finally:
        server.broken = None
    assert engine.encode(sample_crops(bundle)).shape[0] == 4


def test_a_batch_beyond_the_configuration_is_the_servers_to_refuse(
    bundle: Bundle, engine: Engine
) -> None:
    entry = bundle.pose.input
    shape = (entry.largest_batch + 1, entry.height, entry.width, 3)
    with pytest.raises(EngineError, match="shape"):
        engine.encode(np.zeros(shape, np.uint8))
