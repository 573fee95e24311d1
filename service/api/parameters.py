"""Query parameters: one class a route, one meaning everywhere. An unknown one is an error."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from models.draw import Colormap
from service.heatmaps import Format, Frame

HeadName = Literal["simcc", "nerpe", "heatmap"]
DecodeName = Literal["expectation", "argmax", "progressive", "standard", "dark", "quarter"]
PoseFormat = Literal["json", "coco", "openpose", "png"]

Head = Annotated[HeadName | None, Field(description="the model's default")]
Model = Annotated[str | None, Field(min_length=1, max_length=64, description="a name from /models")]
Detector = Annotated[
    str | None,
    Field(
        min_length=1,
        max_length=64,
        description="a name from /models; `whole`: the image is one person",
    ),
]
Boxes = Annotated[
    str | None,
    Field(
        max_length=10_000,
        description="JSON `[[x, y, width, height], ...]`, 1 to 100: no detector; answered all, in "
        "this order, with box score 1; not with `detector` nor several images",
        examples=["[[12, 30.5, 201, 410.2]]"],
    ),
]
MinBoxScore = Annotated[float | None, Field(ge=0, le=1, description="the detector's own threshold")]
Flip = Annotated[bool, Field(description="average with the mirrored crop, a second encoder pass")]
DeadlineMs = Annotated[
    int | None,
    Field(ge=1, le=60_000, description="give up after this long; the server's limit holds too"),
]
Samples = Annotated[int, Field(ge=16, le=2048, description="samples along the longer side")]
PersonIndex = Annotated[int, Field(ge=0, description="as numbered by POST /pose")]
Keypoint = Annotated[
    str,
    Field(
        max_length=64,
        description="a name, an index, `max` (their maximum) or `all` (npy and json only)",
    ),
]
InFrame = Annotated[Frame, Field(description="what the samples cover")]
Colours = Annotated[Colormap, Field(description="of the png")]
Alpha = Annotated[
    bool, Field(description="png: transparent where the value is low, to lay over the photo")
]
Exact = Annotated[
    bool, Field(description="`nerpe`: evaluate every sample rather than refine where it matters")
]
HeatmapFormat = Annotated[
    Format | None, Field(description="wins over `Accept`; png where neither says")
]


class _Query(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PoseQuery(_Query):
    """Of POST /pose."""

    head: str | None = Field(
        default=None,
        min_length=1,
        max_length=64,
        description="`simcc`, `nerpe` or `heatmap`, or several of them with commas on one encoder "
        "pass; the model's default",
    )
    decode: DecodeName | None = Field(
        default=None,
        description="`simcc`: expectation, argmax; `nerpe`: progressive, standard; `heatmap`: "
        "dark, quarter, argmax; the manifest's choice. Of several heads those take it that know it",
    )
    resolution: int | None = Field(
        default=None,
        ge=16,
        le=2048,
        description="the lattice that `nerpe` is decoded on, along the crop's longer side; "
        "`progressive` rounds up to 32, 64, ... 2048; the manifest's choice",
    )
    model: Model = None
    detector: Detector = None
    boxes: Boxes = None
    max_people: int = Field(
        default=20, ge=1, le=100, description="best box scores first; of the detector's boxes only"
    )
    min_box_score: MinBoxScore = None
    flip: Flip = False
    keep: bool = Field(default=True, description="keep features for GET /heatmap")
    format: PoseFormat | None = Field(
        default=None, description="wins over `Accept`, which chooses among json and png"
    )
    image_id: int = Field(
        default=0, ge=0, le=2**53 - 1, description="echoed; the image's id in `coco`"
    )
    deadline_ms: DeadlineMs = None


class PostHeatmapQuery(_Query):
    """Of POST /heatmap."""

    head: Head = None
    resolution: Samples = 256
    model: Model = None
    detector: Detector = None
    boxes: Boxes = None
    min_box_score: MinBoxScore = None
    flip: Flip = False
    format: HeatmapFormat = None
    deadline_ms: DeadlineMs = None
    person: PersonIndex = 0
    keypoint: Keypoint = "max"
    frame: InFrame = "crop"
    colormap: Colours = "grey"
    alpha: Alpha = False
    exact: Exact = False


class GetHeatmapQuery(_Query):
    """Of GET /heatmap."""

    id: str | None = Field(
        default=None,
        max_length=64,
        description="from POST /pose; the newest where SUBPOSE_LATEST is set",
    )
    head: Head = None
    resolution: Samples = 256
    format: HeatmapFormat = None
    deadline_ms: DeadlineMs = None
    person: PersonIndex = 0
    keypoint: Keypoint = "max"
    frame: InFrame = "crop"
    colormap: Colours = "grey"
    alpha: Alpha = False
    exact: Exact = False
