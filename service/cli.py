"""`subpose`: serve, predict, models, doctor, config, bench.

Results go to stdout, all else to stderr. Exit codes: 0 all done; 1 something failed, each named;
2 wrong usage or configuration; 130 interrupted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Annotated, Literal

import typer
from pydantic_settings import DotEnvSettingsSource, EnvSettingsSource
from rich.progress import track
from rich.table import Table

from models.bundle import PoseManifest, find_bundles, load_bundle
from models.engines import EngineError
from models.files import write_whole
from service.api.parameters import DecodeName, PoseQuery
from service.bench.cli import bench
from service.catalog import load_catalog
from service.console import complain, flag, one_line_errors, remark, stderr, stdout, stop, words
from service.doctor import examine
from service.ports import try_port
from service.predict import (
    LocalPose,
    Posed,
    find_photos,
    image_ids,
    picture_paths,
    write_picture,
)
from service.problems import Problem
from service.settings import PREFIX, Settings

app = typer.Typer(
    help="Human pose at sub-pixel precision.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Model = Annotated[str | None, typer.Option(help="Name of the pose bundle.")]
Detector = Annotated[
    str | None, typer.Option(help="Name of the detector's bundle, or `whole`: one person a photo.")
]
Device = Annotated[str | None, typer.Option(help="cpu or cuda.", metavar="cpu|cuda")]
Engine = Annotated[
    str | None,
    typer.Option(
        help="Runtime of the pose models.",
        metavar="auto|onnxruntime|openvino|tensorrt|torch|triton",
    ),
]
Bundles = Annotated[list[Path] | None, typer.Option(help="Folder of bundles; may be repeated.")]
Threads = Annotated[int | None, typer.Option(help="Of the engine.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        stdout.print(installed_version("subpose"))
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    """Human pose at sub-pixel precision."""


@app.command()
def serve(
    *,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.")] = None,
    metrics_port: Annotated[int | None, typer.Option(help="Port of /metrics alone.")] = None,
    model: Model = None,
    detector: Detector = None,
    device: Device = None,
    engine: Engine = None,
    bundles: Bundles = None,
    threads: Threads = None,
    latest: Annotated[
        bool | None, typer.Option(help="Let GET /heatmap without id mean the newest photo.")
    ] = None,
) -> None:
    """Run the HTTP service.

    A flag wins over SUBPOSE_* of the environment, that over .env. `subpose config` lists every
    setting, also those without a flag.
    """
    from service import server  # the other commands need none

    with one_line_errors():
        settings = _settings(
            host=host, port=port, metrics_port=metrics_port, model=model, detector=detector,
            device=device, engine=engine, bundles=bundles, threads=threads, latest=latest,
        )  # fmt: skip
        _check_ports(settings)
        raise typer.Exit(server.serve(settings))


@app.command()
def predict(
    photos: Annotated[
        list[str], typer.Argument(help="Files, folders, patterns, or - for standard input.")
    ],
    *,
    json: Annotated[
        Path | None, typer.Option("--json", "--output", "-o", help="Write here, not to stdout.")
    ] = None,
    draw: Annotated[
        Path | None,
        typer.Option(help="Write the photo with skeletons; of several photos, into this folder."),
    ] = None,
    format: Annotated[  # noqa: A002
        Literal["json", "coco", "openpose"],
        typer.Option("--format", "-f", help="json and openpose: a line for each photo."),
    ] = "json",
    head: Annotated[
        str | None, typer.Option(help="simcc, nerpe or heatmap; with commas several.")
    ] = None,
    decode: Annotated[DecodeName | None, typer.Option(help="How the head is read.")] = None,
    resolution: Annotated[int | None, typer.Option(help="Of nerpe's lattice.")] = None,
    boxes: Annotated[
        str | None, typer.Option(help="JSON [[x, y, width, height], ...] instead of a detector.")
    ] = None,
    max_people: Annotated[int, typer.Option(help="Best box scores first.")] = 20,
    min_box_score: Annotated[float | None, typer.Option(help="Of the detector's boxes.")] = None,
    flip: Annotated[bool, typer.Option("--flip", help="Average with the mirrored crop.")] = False,
    sigma: Annotated[
        bool, typer.Option("--sigma", help="Say within how many pixels each joint lies.")
    ] = False,
    model: Model = None,
    detector: Detector = None,
    device: Device = None,
    bundles: Bundles = None,
    threads: Threads = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress, no list of image ids.")
    ] = False,
) -> None:
    """Find people and their joints in photos, without a server.

    Prints what POST /pose answers, one photo a line.
    """
    with one_line_errors():
        files = find_photos(photos)
        if boxes and (detector or len(files) > 1):
            stop("--boxes: they are of one photo, and then there is no --detector")
        pictures = picture_paths(draw, files) if draw else None
        if json and not json.parent.is_dir():
            stop(f"{json}: there is no folder {json.parent}")
        settings = _settings(
            model=model, detector=detector, device=device, bundles=bundles, threads=threads
        )
        query = PoseQuery(
            head=head, decode=decode, resolution=resolution, boxes=boxes, max_people=max_people,
            min_box_score=min_box_score, flip=flip, sigma=sigma, format=format,
        )  # fmt: skip
        local = LocalPose(settings, query)
        ids = image_ids(files)
        if format == "coco" and not quiet:
            for file, image_id in zip(files, ids, strict=True):
                remark(f"{file} -> image_id {image_id}")
        failures: list[Path] = []
        progress = not quiet and len(files) > 1 and stderr.is_terminal
        lines = local.lines(_see_all(local, files, ids, pictures, failures, progress=progress))
        if json is None:
            for line in lines:
                print(line, end="", flush=True)  # whoever reads along has each as it comes
        elif text := "".join(lines):
            write_whole(json, text.encode())
        if failures:
            raise typer.Exit(1)


listing = typer.Typer()
app.add_typer(listing, name="models")


@listing.command()
def export_triton(
    folder: Annotated[Path, typer.Argument(file_okay=False, help="The repository; may exist.")],
    *,
    bundles: Bundles = None,
) -> None:
    """Write the pose bundles as a model repository, for a Triton server and --engine triton."""
    with one_line_errors():
        try:
            from models.engines.triton_repository import export_repository
        except ImportError as error:
            raise EngineError("a Triton repository needs the extra `triton`") from error
        for path in _settings(bundles=bundles).bundles:
            for bundle in map(load_bundle, find_bundles(path).values()):
                if isinstance(bundle.manifest, PoseManifest):
                    stdout.print(*export_repository(bundle, folder), sep="\n")


@listing.callback(invoke_without_command=True)
def models(
    context: typer.Context,
    *,
    device: Device = None,
    bundles: Bundles = None,
) -> None:
    """List the bundles that would be served; * marks the defaults."""
    if context.invoked_subcommand:
        return
    with one_line_errors():
        catalog = load_catalog(_settings(device=device, bundles=bundles))
        table = Table("name", "finds", "by", "input", "engine", "licence", "accuracy", box=None)
        for pose in catalog.models.values():
            size = pose.manifest.input
            heads = ", ".join(
                head + "*" * (head == pose.default_head and len(pose.heads) > 1)
                for head in pose.heads
            )
            table.add_row(
                pose.name + "*" * (pose.name == catalog.default_model),
                pose.keypoints.name,
                heads,
                f"{size.width}x{size.height}",
                f"{pose.engine.name}/{pose.engine.device}",
                pose.manifest.licence,
                _accuracy(pose.manifest.accuracy),
            )
        for served in catalog.detectors.values():
            manifest = served.bundle.detector if served.bundle else None
            table.add_row(
                served.name + "*" * (served.name == catalog.default_detector),
                "people",
                manifest.decoder if manifest else "taking the photo for one person",
                f"{manifest.input.width}x{manifest.input.height}" if manifest else "",
                served.detector.device if manifest else "",
                manifest.licence if manifest else "",
                _accuracy(manifest.accuracy) if manifest else "",
            )
        stdout.print(table)


@app.command()
def doctor(
    *,
    host: Annotated[str | None, typer.Option(help="Where serve would listen.")] = None,
    port: Annotated[int | None, typer.Option(help="Where serve would listen.")] = None,
    device: Device = None,
    bundles: Bundles = None,
) -> None:
    """Check that everything is there and works, down to a photo's poses; say what to mend."""
    with one_line_errors():
        settings = _settings(host=host, port=port, device=device, bundles=bundles)
    failed = False
    for check in examine(settings):
        failed |= check.remedy is not None
        verdict = "[green]ok  [/]" if check.remedy is None else "[bold red]FAIL[/]"
        stdout.print(f"{verdict} [bold]{check.name:<16}[/] ", end="")
        stdout.print(check.found, markup=False, soft_wrap=True)
        if check.remedy is not None:
            stdout.print(f"{'':22}-> {check.remedy}", markup=False, soft_wrap=True)
    if failed:
        raise typer.Exit(1)


@app.command()
def config() -> None:
    """Print every setting, its value and where it comes from, in the form of an .env file."""
    with one_line_errors():
        settings = _settings()
    environment, file = EnvSettingsSource(Settings)(), DotEnvSettingsSource(Settings)()
    for name in Settings.model_fields:
        source = "default"
        if name in environment:
            source = "environment"
        elif name in file:
            source = ".env"
        value = getattr(settings, name)
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        line = f"{PREFIX}{name.upper()}={'' if value is None else text}"
        unset = "# " if value is None else ""
        stdout.print(f"{unset + line:<52} # {source}", markup=False, soft_wrap=True)


app.command()(bench)


def _settings(**flags: object) -> Settings:
    """Flags that were given, over everything else."""
    return Settings(**{name: value for name, value in flags.items() if value is not None})  # type: ignore[arg-type]


def _check_ports(settings: Settings) -> None:
    """Find out before anything is loaded whether its ports are free."""
    for name, port in (("port", settings.port), ("metrics_port", settings.metrics_port)):
        try:
            if port is not None:
                try_port(settings.host, port)
        except OSError as error:
            complain(
                f"cannot listen on {settings.host}:{port} ({error.strerror}): end what listens "
                f"there, or choose another with {flag(name)} ({PREFIX}{name.upper()})"
            )
            raise typer.Exit(1) from error


def _see_all(
    local: LocalPose,
    files: Sequence[Path],
    ids: Sequence[int],
    pictures: Sequence[Path] | None,
    failures: list[Path],
    *,
    progress: bool,
) -> Iterator[Posed]:
    """Each photo's people, drawn too where asked; a photo that fails is named and left out."""
    shown = track(files, console=stderr, disable=not progress, transient=True)
    for number, file in enumerate(shown):
        try:
            posed = local.see(file, ids[number])
            if pictures:
                write_picture(pictures[number], local.draw(posed))
        except (OSError, Problem) as error:
            failures.append(file)
            complain(f"{file}: {words(error)}")
        else:
            yield posed


def _accuracy(figures: dict[str, float]) -> str:
    return "\n".join(f"{name} {figure:.3f}" for name, figure in figures.items())
