"""What a bundle says of itself: the schema of `manifest.json`."""

from __future__ import annotations

import datetime
from typing import Annotated, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    Field,
    PositiveFloat,
    TypeAdapter,
    model_validator,
)

from models.calibration import Calibration
from models.keypoints import KEYPOINT_SETS
from models.strict import Strict

NAME = r"^[a-z0-9][a-z0-9._-]{0,63}$"
"""Of a bundle: what is safe in a path, a URL and a label."""


class Normalisation(Strict):
    """(value - mean) / std, channel by channel in the input's order, on 0 to 255."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class InputSpec(Strict):
    """What the first graph takes. `normalisation` is null where the graph does it itself."""

    width: int = Field(ge=16, le=4096)
    height: int = Field(ge=16, le=4096)
    layout: Literal["NHWC", "NCHW"] = "NHWC"
    dtype: Literal["uint8", "float32"] = "uint8"
    channels: Literal["RGB", "BGR"] = "RGB"
    normalisation: Normalisation | None = None
    largest_batch: int = Field(ge=1, le=1024, description="1 where the batch axis is fixed")


class CropSpec(Strict):
    """How a box becomes a crop."""

    matrix: Literal["legacy", "udp"]
    padding: float = Field(ge=1, le=2)


class _HeadSpec(Strict):
    """What every head has."""

    graph: str
    calibration: Calibration | None = Field(
        None, description="null: scores are raw peaks, and no joint has a sigma"
    )


class SimccSpec(_HeadSpec):
    """Graph: features -> logits x (B, K, W*split), y (B, K, H*split)."""

    split: float = Field(ge=1)
    sigma: tuple[PositiveFloat, PositiveFloat] = Field(description="of the labels in bins, x and y")
    beta: float | None = Field(
        None,
        gt=0,
        exclude_if=lambda beta: beta is None,  # so that weights from before it keep their digest
        description="where the labels have peak 1 (RTMPose): logits times it are a distribution's",
    )
    window: float = Field(2.0, gt=0, description="sigmas around the peak in the expectation")
    decode: Literal["expectation", "argmax"]


def _odd(cells: int) -> int:
    if cells % 2 == 0:
        raise ValueError(f"a kernel of {cells} cells has no middle: it must be odd")
    return cells


Kernel = Annotated[int, Field(ge=1), AfterValidator(_odd)]
"""The width of one that has a middle."""


class HeatmapSpec(_HeadSpec):
    """Graph: features -> (B, K, height, width)."""

    width: int = Field(ge=4)
    height: int = Field(ge=4)
    grid: Literal["legacy", "udp"]
    sigma: float = Field(gt=0, description="of the labels in cells")
    blur: Kernel = Field(description="DARK's Gaussian kernel in cells, odd; 1 for none")
    decode: Literal["dark", "quarter", "argmax"]


class NerpeSpec(_HeadSpec):
    """Graphs: features -> cells (B, C, height, width); cells, points (B, Q, 2) -> (B, Q, K)."""

    cells: str
    width: int = Field(ge=1, description="of the grid of cells")
    height: int = Field(ge=1)
    sigma: float = Field(gt=0, description="of the targets, in normalised positions")
    decode: Literal["progressive", "standard", "gaussian"]
    resolution: int = Field(ge=16, le=2048, description="of the lattice of that decode")


class Heads(Strict):
    """The heads a pose bundle has; at least one."""

    simcc: SimccSpec | None = None
    nerpe: NerpeSpec | None = None
    heatmap: HeatmapSpec | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Of the heads that are there."""
        return tuple(name for name in type(self).model_fields if getattr(self, name) is not None)


class Provenance(Strict):
    """Where weights come from."""

    data: str
    start: str = Field(description="the weights training started from, with their licence")
    recipe: str
    date: datetime.date


class _Manifest(Strict):
    schema_version: Literal[1]
    name: str = Field(pattern=NAME)
    input: InputSpec
    files: dict[str, str] = Field(description="sha256 of every file of weights")
    licence: str
    provenance: Provenance
    accuracy: dict[str, float] = Field(description="measured, each by the command in the card")


class PoseManifest(_Manifest):
    """Of a pose model: one encoder and its heads."""

    kind: Literal["pose"]
    keypoint_set: str
    crop: CropSpec
    encoder: str
    feature_shape: tuple[int, int, int] = Field(description="channels, height, width")
    heads: Heads
    default_head: Literal["simcc", "nerpe", "heatmap"]

    @model_validator(mode="after")
    def _consistent(self) -> PoseManifest:
        if self.keypoint_set not in KEYPOINT_SETS:
            known = ", ".join(KEYPOINT_SETS)
            raise ValueError(f"keypoint_set {self.keypoint_set!r} is not one of {known}")
        plain = InputSpec(
            width=self.input.width,
            height=self.input.height,
            largest_batch=self.input.largest_batch,
        )
        if self.input != plain:
            raise ValueError("input: a pose encoder takes NHWC uint8 RGB and normalises it itself")
        if self.default_head not in self.heads.names:
            raise ValueError(f"default_head {self.default_head!r} is not among the heads")
        graphs = {self.encoder}
        for name in self.heads.names:
            spec = getattr(self.heads, name)
            graphs |= {spec.graph} | ({spec.cells} if isinstance(spec, NerpeSpec) else set())
        if graphs != set(self.files):
            raise ValueError(f"files {sorted(self.files)} are not the graphs {sorted(graphs)}")
        return self


class DetectorManifest(_Manifest):
    """Of a person detector: one graph and how its output is read."""

    kind: Literal["detector"]
    graph: str
    decoder: Literal["rtmdet", "yolox"]
    score_threshold: float = Field(ge=0, le=1)
    nms_threshold: float = Field(ge=0, le=1, description="IoU above which the lower box goes")
    further_sizes: tuple[tuple[int, int], ...] = Field(
        default=(), description="width, height; a photo goes into the size in which it is largest"
    )

    @model_validator(mode="after")
    def _consistent(self) -> DetectorManifest:
        if set(self.files) != {self.graph}:
            raise ValueError(f"files {sorted(self.files)} are not the graph {self.graph!r}")
        return self


Manifest: TypeAlias = PoseManifest | DetectorManifest

MANIFEST: TypeAdapter[Manifest] = TypeAdapter(Annotated[Manifest, Field(discriminator="kind")])
"""Reads either, by its `kind`."""
