"""What heatmap a caller wishes for, common to both /heatmap routes."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.draw import Colormap
from models.features import Features
from models.geometry import CropGeometry, Size
from models.pose import PoseModel
from service.api.negotiation import negotiate
from service.api.parameters import HeatmapQuery
from service.api.tasks import head_of, keypoints_of
from service.heatmaps import Format, Frame, Heatmap, Lattice, answer_bytes, largest_fit, shape
from service.problems import AnswerTooLarge, InvalidParameter
from service.work import FieldQuery


@dataclass(frozen=True, slots=True)
class Wish:
    """A heatmap, every default filled in.

    Attributes:
        model: whose features will be asked.
        head: that answers.
        keypoints: indices, None for all.
        merged: their maximum rather than each.
        resolution: samples along the frame's longer side.
        frame: what the samples cover.
        kind: the answer's format.
        colormap: of a png.
        alpha: of a png.
        exact: evaluate every sample.
    """

    model: PoseModel
    head: str
    keypoints: tuple[int, ...] | None
    merged: bool
    resolution: int
    frame: Frame
    kind: Format
    colormap: Colormap
    alpha: bool
    exact: bool

    @classmethod
    def of(cls, query: HeatmapQuery, model: PoseModel, accept: str | None) -> Wish:
        """From a route's parameters.

        Args:
            query: the parameters.
            model: whose features will be asked.
            accept: the request's header.

        Raises:
            Problem: a head or keypoint that the model does not have, or a format that cannot be.
        """
        every = query.keypoint == "all"
        if every and query.format == "png":
            message = "all of them do not fit into one png; ask for npy or json, max or one name"
            raise InvalidParameter(("keypoint", message))
        offers: tuple[Format, ...] = ("npy", "json") if every else ("png", "npy", "json")
        return cls(
            model=model,
            head=head_of(model, query.head),
            keypoints=keypoints_of(model, query.keypoint),
            merged=query.keypoint == "max",
            resolution=query.resolution,
            frame=query.frame,
            kind=negotiate(query.format, accept, offers),
            colormap=query.colormap,
            alpha=query.alpha,
            exact=query.exact,
        )

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of what is answered."""
        names = self.model.keypoints.names
        if self.merged:
            return ("max",)
        return names if self.keypoints is None else tuple(names[i] for i in self.keypoints)

    def check_size(self, image: Size, most: int) -> None:
        """Refuse an answer over the limit, before any work on it.

        Args:
            image: (width, height) of the photo.
            most: bytes.

        Raises:
            AnswerTooLarge: saying what would fit.
        """
        size = self._framed(image)
        count, coloured = len(self.channels), self.alpha or self.colormap != "grey"
        needed = answer_bytes(size, self.resolution, count, self.kind, coloured=coloured)
        if needed > most:
            fit = largest_fit(most, size, count, self.kind, coloured=coloured)
            remedy = f"at most {fit} fits" if fit else "none fits"
            fewer = "; or ask for one keypoint" if count > 1 else ""
            raise AnswerTooLarge(
                (
                    "resolution",
                    f"{self.resolution} makes up to {needed} bytes of {self.kind} and an answer "
                    f"may have {most}: {remedy}{fewer}",
                )
            )

    def etag(self, photo: str, person: int) -> str:
        """Of this heatmap of a kept photo's person: weights, engine and every parameter."""
        engine = self.model.engine
        parts = (
            self.model.bundle.digest, engine.name, engine.device, photo, person, self.head,
            self.keypoints, self.merged, self.resolution, self.frame, self.kind, self.colormap,
            self.alpha, self.exact,
        )  # fmt: skip
        return f'"{hashlib.sha256(repr(parts).encode()).hexdigest()[:32]}"'

    def samples(self, image: Size | None) -> int:
        """How many there will be for each joint; 0 where that is up to a photo not here yet.

        Args:
            image: (width, height) of the photo; None before its header is here.
        """
        if image is None and self.frame == "image":
            return 0
        return math.prod(shape(self._framed(image or (1, 1)), self.resolution))

    def lattice(self, geometry: CropGeometry, image: Size) -> Lattice:
        """Where the samples are."""
        return Lattice.over(self.frame, self.resolution, geometry, image)

    def query(self, features: Features, lattice: Lattice) -> FieldQuery:
        """What the device is asked."""
        return FieldQuery(
            features,
            self.head,
            lattice.columns,
            lattice.rows,
            self.keypoints,
            self.merged,
            self.exact,
        )

    def render(self, values: NDArray[np.float32], lattice: Lattice) -> bytes:
        """The answer's bytes.

        Args:
            values: (channels, rows, columns), as the device gave them.
            lattice: where the samples are.
        """
        heatmap = Heatmap(values, self.channels, lattice)
        if self.kind == "npy":
            return heatmap.npy()
        if self.kind == "json":
            return heatmap.json()
        return heatmap.png(self.colormap, alpha=self.alpha)

    def _framed(self, image: Size) -> Size:
        crop = self.model.manifest.input
        return image if self.frame == "image" else (crop.width, crop.height)
