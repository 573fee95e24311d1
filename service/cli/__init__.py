"""`subpose`: serve, predict, models, doctor, config, bench.

Results go to stdout, all else to stderr. Exit codes: 0 all done; 1 something failed, each named;
2 wrong usage or configuration; 3 a server that cannot be reached or is not ready; 130 interrupted.
"""

from __future__ import annotations

from importlib.metadata import version as installed_version
from typing import Annotated

import typer

from service.cli import models
from service.cli.bench import bench
from service.cli.config import config
from service.cli.doctor import doctor
from service.cli.predict import predict
from service.cli.serve import serve
from service.console import stdout

app = typer.Typer(
    help="Human pose at sub-pixel precision.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


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


app.command()(serve)
app.command()(predict)
app.add_typer(models.app, name="models")
app.command()(doctor)
app.command()(config)
app.command()(bench)
