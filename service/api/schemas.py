"""What answers look like as JSON; who fills them in rounds. All numbers are finite."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Coordinate = Annotated[
    float, Field(allow_inf_nan=False, description="pixels of the posted image, 2 decimals")
]
Score = Annotated[float, Field(ge=0, le=1, description="4 decimals")]
Milliseconds = Annotated[float, AfterValidator(lambda value: round(value, 1)), Field(ge=0)]


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class ParameterError(_Answer):
    """What is wrong with one parameter."""

    parameter: str
    message: str


class ProblemBody(_Answer):
    """An error, as RFC 9457 has it."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    errors: list[ParameterError] | None = Field(default=None, description="of a 422 only")


class ImageSize(_Answer):
    """Of the posted image, after its EXIF orientation."""

    width: int
    height: int


class BoxBody(_Answer):
    """A person's box."""

    x: Coordinate
    y: Coordinate
    width: Coordinate
    height: Coordinate
    score: Score


class KeypointBody(_Answer):
    """A joint."""

    name: str
    x: Coordinate
    y: Coordinate
    score: Score = Field(
        description="of a calibrated head the share of labelled joints like it that lie within a "
        "tenth of their person's size (the square root of the box's area), 4 decimals"
    )
    sigma: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = Field(
        default=None,
        description="where asked for: the joint lies within so many pixels of the posted image in "
        "68 of 100 cases, 2 decimals",
    )


class HeadBody(_Answer):
    """One head's answer for a person."""

    decode: str
    resolution: int | None
    keypoints: list[KeypointBody]


class PersonBody(_Answer):
    """A person; with `error` where the crop failed, else with keypoints."""

    person: int = Field(description="its number, for /heatmap")
    score: Score | None = Field(
        default=None, description="box score times the mean of its keypoint scores above 0.2"
    )
    box: BoxBody
    keypoints: list[KeypointBody] | None = Field(
        default=None, description="all of the set, in its order; of the first head"
    )
    heads: dict[str, HeadBody] | None = Field(
        default=None, description="where several were asked for"
    )
    error: ProblemBody | None = None


class TimingsBody(_Answer):
    """Where the time went, in milliseconds."""

    decode_image: Milliseconds
    detect: Milliseconds
    queue: Milliseconds
    encode: Milliseconds
    head: Milliseconds
    total: Milliseconds


class PoseBody(_Answer):
    """One photo's people."""

    id: str | None = Field(description="for GET /heatmap; null where nothing is kept")
    expires: str | None = Field(description="UTC, at the latest")
    image: ImageSize
    image_id: int
    model: str
    weights: str
    engine: str = Field(description="engine/device that it really ran on")
    detector: str | None = Field(description="null where the boxes were given")
    head: str
    decode: str
    resolution: int | None = Field(description="of nerpe's lattice, as used")
    keypoint_set: str
    people: list[PersonBody]
    timings_ms: TimingsBody


class PoseResults(_Answer):
    """Several photos' people, in order; a problem in the place of one that failed."""

    results: list[PoseBody | ProblemBody]


class Peak(_Answer):
    """Where a channel is highest: its sample, and where that lies in the image."""

    channel: str
    column: int
    row: int
    x: Coordinate
    y: Coordinate
    value: Score


class HeatmapBody(_Answer):
    """Heatmaps as JSON."""

    channels: list[str] = Field(description="keypoint names, or `max`")
    height: int
    width: int
    affine: tuple[float, float, float, float, float, float] = Field(
        description="a..f: x = a*column + b*row + c, y = d*column + e*row + f, image px"
    )
    peaks: list[Peak]
    values: list[list[list[Score]]] = Field(description="(channels, height, width)")


class HeadCard(_Answer):
    """A head that a model has."""

    name: str
    decodes: list[str] = Field(description="the default first")
    resolution: int | None = Field(description="of nerpe: its first decode's own lattice")
    sigma: bool = Field(description="its scores are calibrated, and `sigma` can be asked for")


class ModelCard(_Answer):
    """A pose model."""

    name: str
    kind: Literal["pose"] = "pose"
    default: bool
    heads: list[HeadCard]
    default_head: str
    keypoint_set: str
    keypoints: list[str]
    skeleton: list[tuple[str, str]]
    input: ImageSize
    engine: str
    device: str
    weights: str = Field(description="digest")
    licence: str
    accuracy: dict[str, float]


class DetectorCard(_Answer):
    """A detector; `whole` and weights named by the server's own setting have no bundle."""

    name: str
    kind: Literal["detector"] = "detector"
    default: bool
    min_box_score: float
    device: str
    input: ImageSize | None
    weights: str | None
    licence: str | None
    accuracy: dict[str, float] | None


class CatalogBody(_Answer):
    """Everything that can be asked for."""

    models: list[ModelCard]
    detectors: list[DetectorCard]


class Health(_Answer):
    """A word for a probe."""

    status: str
