"""Weights from elsewhere become a bundle: what a graph says of itself, and what must be told."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from models.adapted import ENCODER, HEAD, write_graphs
from models.bundle import Bundle, BundleError, file_digest
from models.codecs.heatmap import HeatmapDecode
from models.codecs.simcc import SimccDecode
from models.foreign import ForeignNetwork
from models.geometry import CropMatrix, Size
from models.install import drafting, free_place, install
from models.keypoints import KEYPOINT_SETS, KeypointSet
from models.manifest import (
    CropSpec,
    Heads,
    HeatmapSpec,
    InputSpec,
    PoseManifest,
    Provenance,
    SimccSpec,
)
from models.pixels import IMAGENET, Pixels

RTMPOSE_BETA = 10.0
LARGEST_BATCH = 32


@dataclass(frozen=True, slots=True)
class Told:
    """What no graph says of itself. None: as mmpose trains such heads (see `_heads`).

    Attributes:
        name: of the bundle.
        licence: of the weights.
        source: where they come from.
        data: what they learnt from.
        keypoints: name of their set; None where only one has as many.
        size: of the crops, where the graph takes any.
        outputs: those to read, where shapes do not tell.
        pixels: how they are normalised.
        matrix: how boxes become crops, and, of heatmaps, how cells lie on them.
        padding: of the box.
        sigma: of the labels, in bins or cells.
        beta: of SimCC: times the logits before the softmax; 0 where labels were distributions;
            RTMPose's where it is not told.
        blur: DARK's kernel in cells.
        decode: the default.
    """

    name: str
    licence: str
    source: str
    data: str = "not said by who imported it"
    keypoints: str | None = None
    size: Size | None = None
    outputs: Sequence[str] = ()
    pixels: Pixels = IMAGENET
    matrix: CropMatrix = "legacy"
    padding: float = 1.25
    sigma: tuple[float, float] | None = None
    beta: float | None = None
    blur: int | None = None
    decode: HeatmapDecode | SimccDecode | None = None


def import_network(
    file: Path,
    folder: Path,
    told: Told,
    *,
    among: Sequence[Path] = (),
    replace: bool = False,
) -> Bundle:
    """Make a bundle of a SimCC or heatmap network's ONNX file.

    Args:
        file: of the network.
        folder: that the bundle's own folder, of its name, will lie in.
        told: what the file does not say.
        among: the folders that are served together.
        replace: a bundle of that name.

    Raises:
        BundleError: the file is no such network, what was told does not fit it, or the name is
            taken; nothing is written then.
        EngineError: ONNX Runtime does not run it.
    """
    free_place(told.name, folder, among=among, replace=replace)  # before what takes long
    chosen = None if told.keypoints is None else _named(told.keypoints)
    counts = {len(keypoints) for keypoints in ([chosen] if chosen else KEYPOINT_SETS.values())}
    network = ForeignNetwork(file, counts=counts, size=told.size, outputs=told.outputs)
    keypoints = chosen or _counted(network.joints, file.name)
    if len(keypoints) != network.joints:
        raise BundleError(
            f"{file.name} answers {network.joints} keypoints, {keypoints.name} has {len(keypoints)}"
        )
    heads = _heads(network, told)
    with drafting(folder, file.name) as draft:
        open_batch = write_graphs(network, draft, told.pixels)
        manifest = PoseManifest(
            schema_version=1,
            name=told.name,
            kind="pose",
            keypoint_set=keypoints.name,
            input=InputSpec(
                width=network.size[0],
                height=network.size[1],
                largest_batch=LARGEST_BATCH if open_batch else 1,
            ),
            crop=CropSpec(matrix=told.matrix, padding=told.padding),
            encoder=ENCODER,
            feature_shape=network.feature_shape,
            heads=heads,
            default_head=network.kind,
            files={name: file_digest(draft / name) for name in (ENCODER, HEAD)},
            licence=told.licence,
            provenance=Provenance(
                data=told.data,
                start=f"{told.source} ({file.name}, sha256 {file_digest(file)})",
                recipe=_recipe(network, told, open_batch=open_batch),
                date=datetime.now(UTC).date(),
            ),
            accuracy={},
        )
        (draft / "manifest.json").write_text(manifest.model_dump_json(indent=2) + "\n")
        return install(draft, folder, among=among, replace=replace)


def bundle_name(file: Path) -> str:
    """A name for a bundle of a file: the file's, or, of mmdeploy's `end2end.onnx`, its folder's."""
    stem = file.resolve().parent.name if file.stem == "end2end" else file.stem
    return re.sub(r"[^a-z0-9._-]+", "-", stem.lower()).strip("-._")[:64] or "imported"


def _recipe(network: ForeignNetwork, told: Told, *, open_batch: bool) -> str:
    """How it was imported, as far as the rest of the manifest does not say it."""
    batch = "any number of crops a batch"
    if not open_batch:
        batch = "one crop a batch, which is fixed in the graph"
    elif not network.open_batch:
        batch = "a batch fixed at one crop, opened to any number"
    pixels = told.pixels
    return (
        f"imported {network.kind} network of {network.joints} keypoints on "
        f"{network.size[0]}x{network.size[1]} px; {pixels.channels}, mean {pixels.mean}, std "
        f"{pixels.std}; {told.matrix} crops; {batch}"
    )


def _named(name: str) -> KeypointSet:
    try:
        return KEYPOINT_SETS[name]
    except KeyError:
        known = ", ".join(KEYPOINT_SETS)
        raise BundleError(f"--keypoints: {name!r} is not one of {known}") from None


def _counted(joints: int, file: str) -> KeypointSet:
    """The set of so many keypoints."""
    fitting = [each for each in KEYPOINT_SETS.values() if len(each) == joints]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = " or ".join(each.name for each in fitting)
        raise BundleError(f"{file} answers {joints} keypoints: choose --keypoints {names}")
    known = ", ".join(f"{each.name} ({len(each)})" for each in KEYPOINT_SETS.values())
    raise BundleError(f"{file} answers {joints} keypoints, which no set here has: {known}")


def _heads(network: ForeignNetwork, told: Told) -> Heads:
    """The one head, with what mmpose trains it with where nothing else was told.

    SimCC's labels are sqrt(bins)/4 bins wide (4.9 and 5.66 at 192x256, 6 and 6.93 at 288x384),
    heatmaps' 2 cells on 64 rows and 3 on 96, with a DARK kernel of 6 sigma - 1.
    """
    if network.kind == "simcc":
        x, y = (shape[1] for shape in network.shapes)
        if told.blur is not None or told.decode not in (None, "argmax", "expectation"):
            raise BundleError("it is a SimCC head: no --blur; --decode argmax or expectation")
        return Heads(
            simcc=SimccSpec(
                graph=HEAD,
                split=x / network.size[0],
                sigma=told.sigma or (round(x**0.5 / 4, 2), round(y**0.5 / 4, 2)),
                beta=(RTMPOSE_BETA if told.beta is None else told.beta) or None,
                decode=told.decode or "argmax",
            )
        )
    _, rows, columns = network.shapes[0]
    if told.decode not in (None, "dark", "quarter", "argmax"):
        raise BundleError("it is a heatmap head: --decode dark, quarter or argmax")
    if told.beta is not None or (told.sigma and told.sigma[0] != told.sigma[1]):
        raise BundleError("it is a heatmap head: no --beta; --sigma of one number, in cells")
    sigma = told.sigma[0] if told.sigma else max(rows, columns) / 32
    return Heads(
        heatmap=HeatmapSpec(
            graph=HEAD,
            width=columns,
            height=rows,
            grid=told.matrix,
            sigma=sigma,
            blur=told.blur or max(1, 2 * round(3 * sigma) - 1),
            decode=told.decode or "dark",
        )
    )
