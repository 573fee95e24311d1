"""`subpose predict`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.markup import escape
from rich.progress import track

from models.files import write_whole
from service.api.parameters import DecodeName, PoseQuery
from service.cli.options import Bundles, Detector, Device, Model, Threads, settings_of
from service.console import complain, one_line_errors, remark, stderr, stop, words
from service.predict import (
    LocalPose,
    Posed,
    check_folder,
    find_photos,
    image_ids,
    picture_paths,
    write_picture,
)
from service.problems import Problem


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
        str | None,
        # Escaped: rich takes brackets for its markup.
        typer.Option(help=escape("JSON [[x, y, width, height], ...] instead of a detector.")),
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
        if json:
            check_folder(json)
        settings = settings_of(
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
