"""A pose network that others exported, read strictly."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import onnx

from models.bundle import BundleError
from models.engines import EngineError, Floats
from models.engines.onnx import open_session
from models.geometry import Size

Kind = Literal["simcc", "heatmap"]

EXPECTED = (
    "expected two outputs (n, keypoints, bins along x) and (n, keypoints, bins along y), as "
    "mmdeploy exports SimCC without its post-processing, or one (n, keypoints, rows, columns) of "
    "heatmaps"
)


class ForeignNetwork:
    """An ONNX file: what it takes is declared, what it answers is found by running it once.

    Attributes:
        file: where it lies.
        model: the graph.
        input: its name.
        outputs: names of those that are read: two of SimCC, x first, or one of heatmaps.
        shapes: of these, without the batch.
        size: of its crops (width, height), px.
        kind: of its head.
        joints: K.
        open_batch: whether it takes batches of any size by itself.
    """

    def __init__(
        self,
        file: Path,
        *,
        counts: Collection[int],
        size: Size | None = None,
        outputs: Sequence[str] = (),
    ) -> None:
        """Read a file and run it once.

        Args:
            file: ONNX, with its external data beside it where it has such.
            counts: of keypoints that are expected, by which heatmaps are told from other maps.
            size: of the crops, where the graph takes any.
            outputs: names of those to read; none to find them by their shapes.

        Raises:
            BundleError: it is no such network; the message says what it is instead.
            EngineError: ONNX Runtime does not run it.
        """
        self.file = file
        self.model = _loaded(file)
        self.input, self.size, self.open_batch = _input_of(self.model, file.name, size)
        self._session = open_session(file)
        noise = np.random.default_rng(0).normal(size=(3, *reversed(self.size)))
        answers = self._run(noise.astype(np.float32))
        shapes = {name: answer.shape for name, answer in answers.items()}
        self.kind, self.outputs = _reading(shapes, self.size, counts, outputs, file.name)
        self.shapes = [shapes[name][1:] for name in self.outputs]
        self.joints = self.shapes[0][0]
        for name in self.outputs:
            if answers[name].dtype != np.float32 or not np.isfinite(answers[name]).all():
                raise BundleError(f"{file.name}: output {name!r} is not of finite float32 numbers")

    @property
    def feature_shape(self) -> tuple[int, int, int]:
        """Of what the encoder made of it answers, without the batch."""
        if self.kind == "heatmap":
            joints, rows, columns = self.shapes[0]
            return joints, rows, columns
        return self.joints, 1, sum(shape[1] for shape in self.shapes)

    def __call__(self, crops: Floats) -> list[Floats]:
        """(B, 3, H, W) as it wants them to what it answers of each crop alone."""
        answers = [self._run(crop) for crop in crops]
        return [np.concatenate([answer[name] for answer in answers]) for name in self.outputs]

    def _run(self, crop: Floats) -> dict[str, Floats]:
        names = [output.name for output in self._session.get_outputs()]
        try:
            answers = self._session.run(names, {self.input: crop[None]})
        except Exception as error:  # ONNX Runtime's own types, without a common base
            reason = str(error).splitlines()[0]
            raise EngineError(f"{self.file.name} does not run on crops: {reason}") from error
        return dict(zip(names, answers, strict=True))


def _loaded(file: Path) -> onnx.ModelProto:
    try:
        model = onnx.load(file)
    except OSError:
        raise
    except Exception as error:  # onnx and protobuf raise types without a common base
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BundleError(f"{file.name} is no ONNX file: {reason}") from error
    if not model.graph.node or not model.graph.output:
        raise BundleError(f"{file.name} is no ONNX file: it holds no graph")
    model.ir_version = max(model.ir_version, 4)
    weights = {weight.name for weight in model.graph.initializer}
    # Old exports name their weights among the inputs too.
    taken = [value for value in model.graph.input if value.name not in weights]
    del model.graph.input[:]
    model.graph.input.extend(taken)
    return model


def _input_of(model: onnx.ModelProto, file: str, size: Size | None) -> tuple[str, Size, bool]:
    """Its name, the size of the crops, and whether the batch is open."""
    inputs = {value.name: value.type.tensor_type for value in model.graph.input}
    found = "; ".join(f"{name} {_declared(kind)}" for name, kind in inputs.items())
    wrong = BundleError(f"{file} takes {found}; expected one input float32 (n, 3, height, width)")
    if len(inputs) != 1:
        raise wrong
    ((name, kind),) = inputs.items()
    dims = kind.shape.dim
    if (
        kind.elem_type != onnx.TensorProto.FLOAT
        or len(dims) != 4
        or dims[1].dim_value not in (0, 3)
    ):
        raise wrong
    batch, _, height, width = (dim.dim_value for dim in dims)
    if batch > 1:
        raise BundleError(f"{file} takes batches of {batch} only; export it for 1 or any number")
    if size is None:
        if not (width and height):
            raise BundleError(f"{file} takes crops of any size: choose it with --size WIDTHxHEIGHT")
        size = width, height
    if width not in (0, size[0]) or height not in (0, size[1]):
        raise BundleError(f"{file} takes {found}, not crops of {size[0]}x{size[1]}")
    return name, size, batch == 0


def _declared(kind: onnx.TypeProto.Tensor) -> str:
    dims = ", ".join(dim.dim_param or str(dim.dim_value or "?") for dim in kind.shape.dim)
    return f"{onnx.TensorProto.DataType.Name(kind.elem_type).lower()} ({dims})"


def _reading(
    shapes: Mapping[str, tuple[int, ...]],
    size: Size,
    counts: Collection[int],
    chosen: Sequence[str],
    file: str,
) -> tuple[Kind, list[str]]:
    """Which outputs are read, and as what.

    Raises:
        BundleError: none can be, or several could.
    """
    found = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
    for name in chosen:
        if name not in shapes:
            raise BundleError(f"{file} has no output {name!r}; it answers {found}")
    width, height = size
    among = {name: shapes[name] for name in chosen or shapes}
    axes = [name for name, shape in among.items() if len(shape) == 3 and shape[2] > 3]
    maps = [
        name
        for name, shape in among.items()
        if len(shape) == 4 and shape[2] * width == shape[3] * height and shape[2] >= 8
    ]
    if len(axes) == 2 and not maps:
        # By their names where these say it, as crops that are square do not.
        axes.sort(key=lambda name: name.lower().endswith("y"))
        (_, joints, x), (_, others, y) = (among[name] for name in axes)
        if joints == others and x * height == y * width and x >= width:
            return "simcc", axes
        raise BundleError(
            f"{file} answers {found}: as SimCC's axes of {width}x{height} px, these differ in "
            "keypoints or in bins a pixel"
        )
    if len(maps) > 1:  # features beside them have as many channels as they like
        maps = [name for name in maps if among[name][1] in counts] or maps
    if len(maps) == 1 and not axes:
        return "heatmap", maps
    if len(maps) > 1 and not axes:
        raise BundleError(
            f"{file} has several outputs that could be heatmaps: {found}; choose with --output NAME"
        )
    raise BundleError(f"{file} answers {found}; {EXPECTED}")
