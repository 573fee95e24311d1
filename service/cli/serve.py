"""`subpose serve`."""

from __future__ import annotations

from typing import Annotated

import typer

from service.cli.options import Bundles, Detector, Device, Engine, Model, Threads, settings_of
from service.console import complain, one_line_errors
from service.ports import remedy, try_port
from service.settings import Settings


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
        settings = settings_of(
            host=host, port=port, metrics_port=metrics_port, model=model, detector=detector,
            device=device, engine=engine, bundles=bundles, threads=threads, latest=latest,
        )  # fmt: skip
        _check_ports(settings)
        raise typer.Exit(server.serve(settings))


def _check_ports(settings: Settings) -> None:
    """Find out before anything is loaded whether its ports are free."""
    for name, port in (("port", settings.port), ("metrics_port", settings.metrics_port)):
        try:
            if port is not None:
                try_port(settings.host, port)
        except OSError as error:
            where = f"{settings.host}:{port}"
            complain(f"cannot listen on {where} ({error.strerror}): {remedy(error, name)}")
            raise typer.Exit(1) from error
