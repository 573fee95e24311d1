"""A pose bundle on an engine: crops in, joints or fields out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from models.arrays import Array, namespace, to_numpy
from models.bundle import Bundle, weights_digest
from models.calibration import Calibration
from models.codecs import Decoded, HeatmapCodec, NerpeCodec, SimccCodec
from models.codecs.nerpe import LATTICES
from models.engines import Engine, Floats
from models.features import Features
from models.geometry import Box, CropGeometry
from models.keypoints import KEYPOINT_SETS
from models.lattice import Sample, within_crop
from models.manifest import HeatmapSpec, NerpeSpec, SimccSpec
from models.nerpe_field import NerpeField
from models.nerpe_lattice import sample_lattice


class PoseModel:
    """Encoder, heads and codecs of one bundle."""

    def __init__(self, bundle: Bundle, engine: Engine) -> None:
        """Join a verified pose bundle and the engine that has loaded it."""
        self.bundle = bundle
        self.engine = engine
        self.manifest = manifest = bundle.pose
        self.name = manifest.name
        self.keypoints = KEYPOINT_SETS[manifest.keypoint_set]
        self.size = manifest.input.width, manifest.input.height
        self.heads = manifest.heads.names
        self.default_head: str = manifest.default_head

    def with_heads(self, changes: Mapping[str, Mapping[str, object]]) -> PoseModel:
        """The model as it were with other values in its manifest, on the same engine.

        Args:
            changes: by head, the fields of its part of the manifest and their values.
        """
        heads = self.manifest.heads
        specs = {
            head: getattr(heads, head).model_copy(update=dict(values))
            for head, values in changes.items()
        }
        manifest = self.manifest.model_copy(update={"heads": heads.model_copy(update=specs)})
        digest = weights_digest(manifest)
        return PoseModel(replace(self.bundle, manifest=manifest, digest=digest), self.engine)

    @cached_property
    def _simcc(self) -> SimccCodec:
        spec = self.manifest.heads.simcc
        assert spec is not None
        return SimccCodec(self.size, spec.split, spec.sigma, beta=spec.beta)

    @cached_property
    def _heatmap(self) -> HeatmapCodec:
        spec = self.manifest.heads.heatmap
        assert spec is not None
        return HeatmapCodec(self.size, (spec.width, spec.height), spec.sigma, spec.grid, spec.blur)

    @cached_property
    def _nerpe(self) -> NerpeCodec:
        spec = self.manifest.heads.nerpe
        assert spec is not None
        return NerpeCodec(self.size, spec.sigma)

    @cached_property
    def decodes(self) -> dict[str, tuple[str, ...]]:
        """By head the decodes it knows, the manifest's choice first."""
        known: dict[str, tuple[str, ...]] = {
            "simcc": SimccCodec.decodes,
            "nerpe": NerpeCodec.decodes,
            "heatmap": HeatmapCodec.decodes,
        }
        result = {}
        for head in self.heads:
            default: str = getattr(self.manifest.heads, head).decode
            result[head] = (default, *(d for d in known[head] if d != default))
        return result

    def geometry(self, box: Box) -> CropGeometry:
        """Of the crop of a person.

        Raises:
            ValueError: the box has no area.
        """
        crop = self.manifest.crop
        return CropGeometry.from_box(box, self.size, matrix=crop.matrix, padding=crop.padding)

    def cut(
        self, image: NDArray[np.uint8], boxes: Sequence[Box]
    ) -> tuple[list[CropGeometry], Sequence[Array]]:
        """The crops of people: geometries, and pixels (H, W, 3) of the engine's kind.

        Raises:
            ValueError: a box has no area.
        """
        geometries = [self.geometry(box) for box in boxes]
        return geometries, self.engine.cut(image, geometries)

    def encode(self, crops: Array, *, flip: bool = False) -> Features:
        """(B, H, W, 3) uint8 RGB to features; `flip` encodes the mirrored crops too."""
        plain = self.engine.encode(crops)
        if not flip:
            return Features(plain)
        xp = namespace(crops)
        # A copy: runtimes want pixels in order.
        mirrored = xp.asarray(xp.flip(crops, axis=2), copy=True)
        return Features(plain, self.engine.encode(mirrored))

    def decode(
        self,
        features: Features,
        head: str,
        decode: str | None = None,
        resolution: int | None = None,
        *,
        sigma: bool = False,
        check: Callable[[], None] = lambda: None,
    ) -> Decoded:
        """Joints of a batch.

        It is done where the engine's arrays are; only the joints come to the host.

        Args:
            features: of B crops.
            head: one of `heads`.
            decode: one of `decodes[head]`; None for the manifest's choice.
            resolution: of NerPE's lattice along the crop's longer side; None for `lattice`'s.
            sigma: also how far off each joint may be.
            check: called now and then in long work, which it ends by raising.

        Raises:
            ValueError: as `checked` says.
        """
        decode = self.checked(head, decode, resolution, sigma=sigma)
        calibration = self.calibration(head)
        spread: Callable[[Array], Array]
        if head == "simcc":
            simcc = self.manifest.heads.simcc
            assert simcc is not None
            logits = self._simcc_logits(features)
            decoded = self._simcc.decode(*logits, decode, window=simcc.window)  # type: ignore[arg-type]
            spread = partial(self._simcc.spread, *logits)
        elif head == "heatmap":
            maps = self._heatmaps(features)
            decoded = self._heatmap.decode(maps, decode)  # type: ignore[arg-type]
            spread = partial(self._heatmap.spread, maps)
        else:
            field = self._field(features, check)
            resolution = resolution or self.lattice(decode)
            decoded = self._nerpe.decode(field, field.cells, decode, resolution)  # type: ignore[arg-type]
            spread = partial(self._nerpe.spread, field)
        if calibration is None:
            return decoded.on_host()
        return replace(
            decoded,
            scores=calibration.score(decoded.scores),
            sigmas=calibration.sigma(spread(decoded.points)) if sigma else None,
        ).on_host()

    def lattice(self, decode: str) -> int:
        """NerPE's resolution where nobody says: the manifest's for its own decode."""
        spec = self.manifest.heads.nerpe
        assert spec is not None
        return spec.resolution if decode == spec.decode else LATTICES[decode]  # type: ignore[index]

    def calibration(self, head: str) -> Calibration | None:
        """What a head's scores and spreads are worth; None where that was not measured."""
        spec: SimccSpec | NerpeSpec | HeatmapSpec = getattr(self.manifest.heads, head)
        return spec.calibration

    def checked(
        self,
        head: str,
        decode: str | None = None,
        resolution: int | None = None,
        *,
        sigma: bool = False,
    ) -> str:
        """The decode to use, with the arguments of `decode`.

        Raises:
            ValueError: a head or a decode that is not there; a resolution out of range, or for a
                head without one; a sigma of a head that is not calibrated.
        """
        if head not in self.heads:
            raise ValueError(f"head {head!r} is not one of {', '.join(self.heads)}")
        if decode is not None and decode not in self.decodes[head]:
            known = ", ".join(self.decodes[head])
            raise ValueError(f"decode {decode!r} of head {head!r} is not one of {known}")
        if resolution is not None and head != "nerpe":
            raise ValueError(f"head {head!r} is decoded without a resolution; only nerpe takes one")
        if resolution is not None and not 16 <= resolution <= 2048:
            raise ValueError(f"resolution {resolution} is not between 16 and 2048")
        if sigma and self.calibration(head) is None:
            raise ValueError(f"head {head!r} of {self.name} is not calibrated: it has no sigma")
        return decode or self.decodes[head][0]

    def field(
        self,
        features: Features,
        head: str,
        columns: NDArray[np.floating],
        rows: NDArray[np.floating],
        *,
        keypoints: Sequence[int] | None = None,
        exact: bool = False,
        check: Callable[[], None] = lambda: None,
    ) -> Floats:
        """A head's heatmaps on a lattice: `sampler`'s, drawn at once.

        Args:
            features: of B crops.
            head: one of `heads`.
            columns: (w,) where the samples lie, crop px, ascending and evenly spaced.
            rows: (h,) likewise.
            keypoints: indices of the joints wanted; None for all.
            exact: evaluate NerPE at every sample, rather than refine where it matters.
            check: called now and then in long work, which it ends by raising.

        Returns:
            (B, joints, h, w) float32 in [0, 1]; 0 outside the crop.

        Raises:
            ValueError: a head that is not there.
        """
        sampler = self.sampler(features, head, keypoints=keypoints, exact=exact, check=check)
        return sampler(columns, rows)

    def sampler(
        self,
        features: Features,
        head: str,
        *,
        keypoints: Sequence[int] | None = None,
        exact: bool = False,
        check: Callable[[], None] = lambda: None,
    ) -> Sample:
        """What draws a head's heatmaps, in parts if need be: the head itself has run by then.

        Returns:
            From columns and rows to heatmaps, as `field` has them.

        Raises:
            ValueError: a head that is not there.
        """
        self.checked(head)
        chosen = list(range(len(self.keypoints))) if keypoints is None else list(keypoints)
        sample: Sample
        if head == "simcc":
            x, y = (to_numpy(part)[:, chosen] for part in self._simcc_logits(features))
            calibration = self.calibration(head)
            scores = self._simcc.decode(x, y, "argmax").scores
            scores = scores if calibration is None else calibration.score(scores)
            sample = partial(self._simcc.field, x, y, scores=scores)
        elif head == "heatmap":
            sample = partial(self._heatmap.field, to_numpy(self._heatmaps(features))[:, chosen])
        else:
            sample = partial(
                sample_lattice,
                self._field(features, check),
                self.size,
                joints=chosen,
                exact=exact,
            )
        return partial(within_crop, sample, self.size, (len(features), len(chosen)))

    def _simcc_logits(self, features: Features) -> tuple[Array, Array]:
        x, y = self.engine.head("simcc", _single(features.plain))
        if features.mirrored is None:
            return x, y
        mirrored_x, mirrored_y = self.engine.head("simcc", _single(features.mirrored))
        mirrored = self._simcc.unmirror(mirrored_x, mirrored_y, self.keypoints.mirror)
        return self._simcc.merge((x, y), mirrored)

    def _heatmaps(self, features: Features) -> Array:
        (maps,) = self.engine.head("heatmap", _single(features.plain))
        if features.mirrored is None:
            return maps
        (mirrored,) = self.engine.head("heatmap", _single(features.mirrored))
        return (maps + self._heatmap.unmirror(mirrored, self.keypoints.mirror)) / 2

    def _field(self, features: Features, check: Callable[[], None]) -> NerpeField:
        (cells,) = self.engine.head("nerpe", _single(features.plain))
        mirrored = None
        if features.mirrored is not None:
            (mirrored,) = self.engine.head("nerpe", _single(features.mirrored))
        return NerpeField(self.engine, cells, mirrored, self.keypoints.mirror, check)


def _single(features: Array) -> Array:
    xp = namespace(features)
    return xp.astype(features, xp.float32, copy=False)
