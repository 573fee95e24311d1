"""Query parameters: each written once, with one meaning everywhere. An unknown one is an error."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from models.draw import Colormap
from service.heatmaps import Format, Frame
from service.photo import MAX_PEOPLE

HeadName = Literal["simcc", "nerpe", "heatmap"]
DecodeName = Literal[
    "expectation", "argmax", "progressive", "standard", "gaussian", "dark", "quarter"
]
PoseFormat = Literal["json", "coco", "openpose", "png"]


class Query(BaseModel):
    """What every route takes that the device works for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    deadline_ms: int | None = Field(
        default=None,
        ge=1,
        le=60_000,
        description="give up after this long; the server's limit holds too",
    )


class PhotoQuery(Query):
    """What every route takes that a photo is posted to."""

    model: str | None = Field(
        default=None, min_length=1, max_length=64, description="a name from /models"
    )
    detector: str | None = Field(
        default=None,
        min_length=1,
        max_length=64,
        description="a name from /models; `whole`: the image is one person",
    )
    boxes: str | None = Field(
        default=None,
        max_length=10_000,
        description="JSON `[[x, y, width, height], ...]`, 1 to 100: no detector; answered all, in "
        "this order, with box score 1; not with `detector` nor several images. With curl, `-g` and "
        "no spaces: `curl -g --data-binary @photo.jpg "
        "'http://127.0.0.1:8000/pose?boxes=[[95,98,103,303]]'`",
        examples=["[[12, 30.5, 201, 410.2]]"],
    )
    min_box_score: float | None = Field(
        default=None, ge=0, le=1, description="the detector's own threshold"
    )
    flip: bool = Field(
        default=False, description="average with the mirrored crop, a second encoder pass"
    )


class PoseQuery(PhotoQuery):
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
        description="`simcc`: expectation, argmax; `nerpe`: gaussian, progressive, standard; "
        "`heatmap`: dark, quarter, argmax; the manifest's choice. Of several heads those take it "
        "that know it",
    )
    resolution: int | None = Field(
        default=None,
        ge=16,
        le=2048,
        description="the lattice that `nerpe` is decoded on, along the crop's longer side; "
        "all but `standard` round up to 32, 64, ... 2048; the manifest's choice for its decode, "
        "else 64 for `gaussian`, 512 for the others",
    )
    max_people: int = Field(
        default=MAX_PEOPLE,
        ge=1,
        le=100,
        description="best box scores first; of the detector's boxes only",
    )
    sigma: bool = Field(
        default=False,
        description="give each keypoint `sigma`: it lies within so many pixels in 68 of 100 cases; "
        "json only",
    )
    keep: bool = Field(default=True, description="keep features for GET /heatmap")
    format: PoseFormat | None = Field(
        default=None, description="wins over `Accept`, which chooses among json and png"
    )
    image_id: int = Field(
        default=0, ge=0, le=2**53 - 1, description="echoed; the image's id in `coco`"
    )


class HeatmapQuery(Query):
    """Of both /heatmap routes."""

    head: HeadName | None = Field(default=None, description="the model's default")
    resolution: int = Field(
        default=256, ge=16, le=2048, description="samples along the longer side"
    )
    person: int = Field(default=0, ge=0, description="as numbered by POST /pose, under any head")
    keypoint: str = Field(
        default="max",
        max_length=64,
        description="a name, an index, `max` (their maximum) or `all` (npy and json only)",
    )
    frame: Frame = Field(default="crop", description="what the samples cover")
    format: Format | None = Field(
        default=None, description="wins over `Accept`; png where neither says"
    )
    colormap: Colormap = Field(default="grey", description="of the png")
    alpha: bool = Field(
        default=False,
        description="png: transparent where the value is low, to lay over the photo",
    )
    exact: bool = Field(
        default=False,
        description="`nerpe`: evaluate every sample rather than refine where it matters",
    )


class PostHeatmapQuery(HeatmapQuery, PhotoQuery):
    """Of POST /heatmap."""


class GetHeatmapQuery(HeatmapQuery):
    """Of GET /heatmap."""

    id: str | None = Field(
        default=None,
        max_length=64,
        description="from POST /pose; the newest where SUBPOSE_LATEST is set",
    )
