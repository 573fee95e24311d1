"""`subpose bench`: what can be asked for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from service.console import complain, one_line_errors, stdout, stop
from service.doctor import SAMPLE
from service.predict import check_folder, find_photos


def bench(
    photos: Annotated[
        list[str] | None,
        typer.Argument(help="Files, folders or patterns; by default the page's sample."),
    ] = None,
    *,
    url: Annotated[
        str | None, typer.Option(help="Of a running server; without it one is started.")
    ] = None,
    clients: Annotated[
        str, typer.Option(help="Closed loops: so many who each wait for their answer.")
    ] = "1,4,16",
    rate: Annotated[
        str,
        typer.Option(
            help="Open loops: photos that arrive a second, whatever the server does; 2x is twice "
            "the best closed loop's."
        ),
    ] = "",
    seconds: Annotated[float, typer.Option(min=0.1, help="Of each.")] = 5,
    within: Annotated[
        int, typer.Option(min=1, help="Milliseconds that an open loop's client waits.")
    ] = 1000,
    query: Annotated[str, typer.Option(help="Of POST /pose.", metavar="head=nerpe&…")] = "",
    key: Annotated[str | None, typer.Option(help="Of a server that asks for one.")] = None,
    profile: Annotated[
        Path | None,
        typer.Option(help="Write where the started server spends its time: .svg, .json, .txt."),
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write the figures here.")] = None,
) -> None:
    """Measure a server under load, from clients in a process of their own.

    Latency, people a second, goodput, refusals and what they cost, health under load, and how
    long the server needs to be itself again after too much.
    """
    from service.bench.command import Wish, write_json
    from service.bench.command import bench as measure
    from service.bench.connection import Address
    from service.bench.process import BenchError, UnreachableError

    with one_line_errors():
        wish = Wish(
            photos=find_photos(photos) if photos else [SAMPLE],
            url=url.rstrip("/") if url else None,
            clients=[int(number) for number in _comma_list("--clients", clients, r"[1-9]\d*")],
            rates=_comma_list("--rate", rate, r"(?=.*[1-9])\d*\.?\d+x?"),
            seconds=seconds,
            within_ms=within,
            query=query,
            key=key,
            profile=profile,
        )
        if url:
            try:
                Address(url)
            except ValueError as error:
                stop(f"--url: {error}")
        if url and profile:
            stop("--profile: a running server is not this command's to profile; leave out --url")
        if json:
            check_folder(json)
        try:
            result = measure(wish, stdout)
        except BenchError as error:
            complain(str(error))
            raise typer.Exit(3 if isinstance(error, UnreachableError) else 1) from error
        if json:
            write_json(json, result)


def _comma_list(name: str, text: str, form: str) -> list[str]:
    values = [part.strip() for part in text.split(",") if part.strip()]
    for value in values:
        if not re.fullmatch(form, value):
            stop(f"{name}: {value!r} is not a number that it could take")
    return values
