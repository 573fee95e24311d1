"""`subpose models import` and `pull`: weights from elsewhere become bundles that are served."""

from __future__ import annotations

import math
import shlex
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from models.archive import Archive
from models.bundle import Bundle, BundleError, file_digest
from models.install import drafting, free_place, install
from models.manifest import PoseManifest
from models.pixels import Pixels
from service.cli.options import settings_of
from service.console import one_line_errors, remark, stderr, stdout, stop
from service.fetch import fetch, is_url, path_of, without_secrets

_NETWORK = "Of an ONNX network"


def _network(help: str, *names: str, **more: Any) -> Any:  # noqa: A002, ANN401 - typer's own
    return typer.Option(*names, help=help, rich_help_panel=_NETWORK, **more)


Source = Annotated[
    str,
    typer.Argument(
        help="A file or a URL: an ONNX network, a zip file with one, or one with a bundle."
    ),
]
Sha256 = Annotated[str | None, typer.Option(help="Of the file; a URL needs it.", metavar="HEX")]
To = Annotated[Path | None, typer.Option(help="Folder of bundles; the last that are served.")]
Replace = Annotated[bool, typer.Option("--replace", help="A bundle of the same name.")]
Largest = Annotated[int, typer.Option(min=1, help="Of a download.")]
Name = Annotated[
    str | None,
    typer.Option(help="Of the bundle; by default a network's file's, or a bundle's own."),
]
Licence = Annotated[str | None, _network("Of the weights; asked for.")]
Origin = Annotated[str | None, _network("Where they come from; the URL, or asked for.", "--source")]
Keypoints = Annotated[str | None, _network("Their set; by their number.")]
Matrix = Annotated[
    Literal["legacy", "udp"], _network("How boxes become crops; udp: UDP, ViTPose, PP-TinyPose.")
]
Padding = Annotated[float, _network("Of boxes.", min=1, max=2)]
Mean = Annotated[str, _network("On 0 to 255.")]
Std = Annotated[str, _network("On 0 to 255.")]
Channels = Annotated[Literal["RGB", "BGR"], _network("Their order.")]
Decode = Annotated[
    Literal["argmax", "expectation", "dark", "quarter"] | None,
    _network("The default; argmax of SimCC, dark of heatmaps."),
]
Sigma = Annotated[str | None, _network("Of the labels; mmpose's.", metavar="X,Y bins or CELLS")]
Beta = Annotated[
    float | None, _network("Of SimCC's softmax, 10 by default; 0: labels that sum to 1.", min=0)
]
Blur = Annotated[int | None, _network("DARK's kernel in cells; by sigma.", min=1)]
CropSize = Annotated[
    str | None, _network("Of crops, where the graph takes any.", metavar="WIDTHxHEIGHT")
]
Outputs = Annotated[list[str] | None, _network("To read, where shapes do not tell.")]


def bring(
    context: typer.Context,
    source: Source,
    *,
    sha256: Sha256 = None,
    to: To = None,
    replace: Replace = False,
    largest_mb: Largest = 1000,
    name: Name = None,
    licence: Licence = None,
    origin: Origin = None,
    keypoints: Keypoints = None,
    matrix: Matrix = "legacy",
    padding: Padding = 1.25,
    mean: Mean = "123.675,116.28,103.53",
    std: Std = "58.395,57.12,57.375",
    channels: Channels = "RGB",
    decode: Decode = None,
    sigma: Sigma = None,
    beta: Beta = None,
    blur: Blur = None,
    size: CropSize = None,
    output: Outputs = None,
) -> None:
    """Add a model to those that are served, from a file or a URL.

    Networks may be SimCC ones as mmdeploy exports them (RTMPose, DWPose, RTMW: 17, 26 or 133
    keypoints) or have one output of heatmaps. Sizes, keypoints and kind are read from the graph.
    """
    with one_line_errors(), tempfile.TemporaryDirectory(prefix="subpose-") as temporary:
        served = [each.resolve() for each in settings_of().bundles]
        folder = to.resolve() if to else served[-1]
        among = served if folder in served else [*served, folder]
        if name:
            free_place(name, folder, among=among, replace=replace)  # before anything is fetched
        file = _here(source, Path(temporary), sha256, largest_mb)
        is_zip = file.suffix.lower() == ".zip" or zipfile.is_zipfile(file)
        archive = Archive(file) if is_zip else None
        if archive and archive.manifest:
            if given := _given(context):
                stop(f"{', '.join(given)}: {file.name} holds a bundle, which says it itself")
            with drafting(folder, file.name) as draft:
                archive.unpack_bundle(draft, name=name)
                bundle = install(draft, folder, among=among, replace=replace)
        else:
            try:
                from models.imports import Told, bundle_name, import_network
            except ImportError as error:
                raise BundleError(
                    "an ONNX network needs the extra `import`: pip install -e '.[cpu,import]'"
                ) from error
            told = Told(
                name=name or bundle_name(path_of(source) if is_url(source) else file),
                licence=licence or _asked("Licence of the weights", "--licence"),
                source=origin
                or (without_secrets(source) if is_url(source) else None)
                or _asked("Where they come from", "--source"),
                keypoints=keypoints,
                size=_size(size),
                outputs=output or (),
                pixels=_pixels(mean, std, channels),
                matrix=matrix,
                padding=padding,
                sigma=_sigma(sigma),
                beta=None if beta is None else _finite("beta", beta),
                blur=blur,
                decode=decode,
            )
            network = archive.unpack_network(Path(temporary)) if archive else file
            bundle = import_network(network, folder, told, among=among, replace=replace)
        _tell(bundle, among, is_served=folder in served)


def _given(context: typer.Context) -> list[str]:
    """Options on the command line that bear on ONNX networks alone."""
    return [
        option.opts[0]
        for option in context.command.params
        if getattr(option, "rich_help_panel", None) == _NETWORK
        and getattr(context.get_parameter_source(str(option.name)), "name", "") == "COMMANDLINE"
    ]


def _here(source: str, folder: Path, sha256: str | None, largest_mb: int) -> Path:
    """The file, downloaded if need be, and the one that was meant."""
    if sha256 and not (len(sha256) == 64 and set(sha256.lower()) <= set("0123456789abcdef")):
        stop(f"--sha256: {sha256!r} is no sha256 in 64 hexadecimal digits")
    if "://" in source:
        if not is_url(source):
            stop(f"{without_secrets(source)}: only http and https are fetched")
        if not sha256:
            stop("--sha256: what comes from a URL is only taken if it is the file you mean")
        progress = stderr if stderr.is_terminal else None
        return fetch(
            source,
            folder,
            sha256=sha256,
            largest_bytes=largest_mb * 1_000_000,
            console=progress,
        )
    file = Path(source)
    if file.is_dir():
        stop(f"{file} is a folder: give a file, such as a zip of it")
    if not file.is_file():
        stop(f"{file}: there is no such file")
    if sha256 and (found := file_digest(file)) != sha256.lower():
        stop(f"{file} has sha256 {found}, not {sha256}: it is another file")
    return file


def _asked(question: str, option: str) -> str:
    """What a manifest must say, from whoever sits at the terminal."""
    if not sys.stdin.isatty():
        stop(f"{option}: {question.lower()}? A bundle says it to whoever uses it")
    return str(typer.prompt(question, err=True))


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    try:
        width, height = map(int, text.lower().split("x"))
    except ValueError:
        stop(f"--size: {text!r} is not like 192x256, width first")
    return width, height


def _pixels(mean: str, std: str, channels: Literal["RGB", "BGR"]) -> Pixels:
    pixels = Pixels(_triple("mean", mean), _triple("std", std), channels)
    if min(pixels.std) <= 0:
        stop(f"--std: {std!r} is not above 0")
    return pixels


def _triple(option: str, text: str) -> tuple[float, float, float]:
    try:
        a, b, c = map(float, text.split(","))
    except ValueError:
        stop(f"--{option}: {text!r} is not three numbers such as 123.675,116.28,103.53")
    return _finite(option, a), _finite(option, b), _finite(option, c)


def _sigma(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        x, y = map(float, text.split(",")) if "," in text else (float(text),) * 2
    except ValueError:
        stop(f"--sigma: {text!r} is not one number, nor two such as 4.9,5.66")
    if min(_finite("sigma", x), _finite("sigma", y)) <= 0:
        stop(f"--sigma: {text!r} is not above 0")
    return x, y


def _finite(option: str, number: float) -> float:
    if not math.isfinite(number):
        stop(f"--{option}: {number} is no finite number")
    return number


def _tell(bundle: Bundle, among: Sequence[Path], *, is_served: bool) -> None:
    """The new bundle's folder, what was found of it, and what comes next."""
    manifest = bundle.manifest
    stdout.print(bundle.path, soft_wrap=True)
    remark(f"{manifest.name}: {manifest.provenance.recipe}")
    kind = "--model" if isinstance(manifest, PoseManifest) else "--detector"
    command = ["subpose", "serve", kind, manifest.name]
    if not is_served:  # what is told replaces what is served by default
        command += [word for folder in among for word in ("--bundles", str(folder))]
    remark(f"Serve it: {shlex.join(command)}")
