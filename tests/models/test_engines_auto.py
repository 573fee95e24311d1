import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from models.arrays import Array
from models.bundle import BUNDLES, Bundle, load_bundle
from models.engines import Engine, EngineError, Floats, auto, load_engine
from models.engines.auto import accurate, choose_engine, measure, sample_crops
from models.geometry import CropGeometry


class Changed(Engine):
    """The real engine, with features that something was done to, on a clock of its own."""

    now = 0.0

    def __init__(
        self, engine: Engine, name: str, change: Callable[[Floats], Floats] = lambda x: x, *,
        seconds: float = 1,
    ) -> None:  # fmt: skip
        self.engine, self.name, self.device = engine, name, engine.device
        self.change, self.seconds = change, seconds

    def encode(self, crops: NDArray[np.uint8]) -> Floats:
        Changed.now += self.seconds
        return self.change(self.engine.encode(crops))

    def head(self, name: str, features: Floats) -> tuple[Floats, ...]:
        return self.engine.head(name, features)

    def field(self, cells: Floats, points: Floats) -> Floats:
        return np.asarray(self.engine.field(cells, points))


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundle(BUNDLES / "pose-s")


@pytest.fixture(scope="module")
def real(bundle: Bundle) -> Engine:
    return load_engine(bundle, threads=1)


Install = Callable[..., list[str]]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Makes these the engines that are there; returns the names of those that get loaded.

    They are timed by what they say: what else the machine does has no part in it.
    """

    def install(*engines: Engine) -> list[str]:
        loaded: list[str] = []

        def loader(engine: Engine) -> Callable[[], Engine]:
            def load() -> Engine:
                loaded.append(engine.name)
                return engine

            return load

        found = {engine.name: loader(engine) for engine in engines}
        monkeypatch.setattr(auto, "installed", lambda bundle, threads: found)
        monkeypatch.setattr(auto, "perf_counter", lambda: Changed.now)
        monkeypatch.setattr(auto, "ROUNDS", 1)
        monkeypatch.setattr(auto, "BATCHES", (1,))
        return loaded

    return install


def test_the_faster_engine_is_chosen_and_the_choice_kept(
    bundle: Bundle, real: Engine, install: Install, tmp_path: Path
) -> None:
    notes = tmp_path / "cache" / "engine.json"
    engines = Changed(real, "onnxruntime", seconds=4), Changed(real, "other")
    loaded = install(*engines)
    assert choose_engine(bundle, notes, threads=1) is engines[1]
    assert loaded == ["onnxruntime", "other"]
    loaded.clear()
    assert choose_engine(bundle, notes, threads=1) is engines[1]
    assert loaded == ["other"]


def test_onnx_runtime_stays_where_it_is_the_faster_one(
    bundle: Bundle, real: Engine, install: Install
) -> None:
    engines = Changed(real, "onnxruntime"), Changed(real, "other", seconds=4)
    install(*engines)
    assert choose_engine(bundle, threads=1) is engines[0]


def test_an_engine_alone_is_not_measured(
    bundle: Bundle, real: Engine, install: Install, tmp_path: Path
) -> None:
    install(Changed(real, "onnxruntime", change=lambda _: pytest.fail("it was run")))
    assert choose_engine(bundle, tmp_path / "engine.json").name == "onnxruntime"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("digest", ["sha256:other", None])
def test_other_weights_or_threads_are_measured_anew(
    bundle: Bundle, real: Engine, install: Install, tmp_path: Path, threads: int, digest: str | None
) -> None:
    notes = tmp_path / "engine.json"
    loaded = install(Changed(real, "onnxruntime"), Changed(real, "other"))
    choose_engine(bundle, notes, threads=1)
    loaded.clear()
    choose_engine(replace(bundle, digest=digest or bundle.digest), notes, threads=threads)
    same = threads == 1 and digest is None
    assert (len(loaded), len(json.loads(notes.read_text()))) == ((1, 1) if same else (2, 2))


@pytest.mark.parametrize("damage", [["onnxruntime"], {"a": 1}, 3, None, "nothing that is there"])
def test_a_choice_that_is_no_engine_is_made_anew(
    bundle: Bundle, real: Engine, install: Install, tmp_path: Path, damage: object
) -> None:
    notes = tmp_path / "engine.json"
    install(Changed(real, "onnxruntime", seconds=3), Changed(real, "other"))
    choose_engine(bundle, notes)
    (key,) = json.loads(notes.read_text())
    notes.write_text(json.dumps({key: damage}))
    assert choose_engine(bundle, notes).name == "other"
    assert json.loads(notes.read_text()) == {key: "other"}


@pytest.mark.parametrize("content", ["", "[1]", "{"])
def test_notes_that_cannot_be_read_are_written_anew(
    bundle: Bundle, real: Engine, install: Install, tmp_path: Path, content: str
) -> None:
    notes = tmp_path / "engine.json"
    notes.write_text(content)
    install(Changed(real, "onnxruntime", seconds=3), Changed(real, "other"))
    choose_engine(bundle, notes)
    assert list(json.loads(notes.read_text()).values()) == ["other"]


def test_a_choice_that_cannot_be_kept_is_made_all_the_same(
    bundle: Bundle, real: Engine, install: Install, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way of the folder")
    install(Changed(real, "onnxruntime", seconds=3), Changed(real, "other"))
    assert choose_engine(bundle, tmp_path / "file" / "engine.json").name == "other"


CHANGES: Mapping[str, Callable[[Floats], Floats]] = {
    "wrong": lambda x: np.asarray(np.roll(x, 1, axis=-1)),
    "not a number": lambda x: np.full_like(x, np.nan),
    "coarse": lambda x: np.asarray(np.round(x, 1)),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_an_engine_that_moves_joints_is_never_chosen(
    bundle: Bundle, real: Engine, install: Install, change: Callable[[Floats], Floats]
) -> None:
    install(Changed(real, "onnxruntime", seconds=3), Changed(real, "other", change))
    assert choose_engine(bundle, threads=1).name == "onnxruntime"
    with pytest.raises(EngineError, match=r"other puts joints of head simcc up to .* px"):
        accurate(Changed(real, "other", change), bundle, real)


def test_a_reference_that_finds_nobody_is_no_measure(bundle: Bundle, real: Engine) -> None:
    class Blind(Changed):
        def head(self, name: str, features: Floats) -> tuple[Floats, ...]:
            return tuple(np.zeros_like(part) for part in super().head(name, features))

    with pytest.raises(EngineError, match="blind finds no joint by head simcc"):
        accurate(real, bundle, Blind(real, "blind"))


def test_the_gate_looks_at_people(bundle: Bundle, real: Engine) -> None:
    crops = sample_crops(bundle)
    assert crops.shape == (4, bundle.pose.input.height, bundle.pose.input.width, 3)
    assert accurate(real, bundle, real) is real
    (cost,) = measure({"a": real}, crops).values()
    assert cost > 0


def test_openvino_that_is_not_installed_is_an_error(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.delitem(sys.modules, "models.engines.openvino", raising=False)
    with pytest.raises(EngineError, match="needs the extra `openvino`"):
        load_engine(bundle, engine="openvino")


def test_openvino_passes_the_gate(bundle: Bundle) -> None:
    pytest.importorskip("openvino")
    engine = load_engine(bundle, engine="openvino", threads=1)
    assert (engine.name, engine.device) == ("openvino", "cpu")


def test_an_engine_that_cuts_other_crops_is_refused(bundle: Bundle, real: Engine) -> None:
    class Darker(Changed):
        def cut(
            self, photo: NDArray[np.uint8], geometries: Sequence[CropGeometry]
        ) -> Sequence[Array]:
            return [crop - np.minimum(crop, 2) for crop in super().cut(photo, geometries)]

    with pytest.raises(EngineError, match=r"darker cuts crops up to 2 grey levels from onnx.*'s"):
        accurate(Darker(real, "darker"), bundle, real)
