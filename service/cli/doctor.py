"""`subpose doctor`."""

from __future__ import annotations

from typing import Annotated

import typer

from service.cli.options import Bundles, Device, settings_of
from service.console import one_line_errors, stdout
from service.doctor import examine


def doctor(
    *,
    host: Annotated[str | None, typer.Option(help="Where serve would listen.")] = None,
    port: Annotated[int | None, typer.Option(help="Where serve would listen.")] = None,
    device: Device = None,
    bundles: Bundles = None,
) -> None:
    """Check that everything is there and works, down to a photo's poses; say what to mend."""
    with one_line_errors():
        settings = settings_of(host=host, port=port, device=device, bundles=bundles)
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
