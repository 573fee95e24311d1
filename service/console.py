"""What the command line says: results on stdout, all else, in one line each, on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from rich.console import Console

from models.bundle import BundleError
from models.engines import EngineError
from service.environment import flag
from service.predict import NoPhotos, NoPlace
from service.problems import InvalidParameter, Problem


class Misconfigured(Exception):  # noqa: N818
    """Settings that cannot be used; the message names each as it was given."""


# Into a pipe nothing is wrapped.
stdout = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
stderr = Console(stderr=True, highlight=False)

_MENDABLE = (
    BundleError, EngineError, Misconfigured, NoPhotos, NoPlace, OSError, Problem, ValidationError,
)  # fmt: skip


@contextmanager
def one_line_errors() -> Iterator[None]:
    """What a user can mend is said without a traceback, with exit code 2."""
    try:
        yield
    except _MENDABLE as error:
        stop(words(error))


def complain(message: str) -> None:
    """Say what is wrong."""
    stderr.print(f"subpose: {message}", style="red", markup=False, soft_wrap=True)


def remark(message: str) -> None:
    """Say what is worth knowing."""
    stderr.print(message, markup=False, soft_wrap=True)


def stop(message: str) -> NoReturn:
    """Say what is wrong with usage or configuration, and end."""
    complain(message)
    raise typer.Exit(2)


def words(error: Exception) -> str:
    """An error as a user would say it: by flag or setting, file, reason."""
    if isinstance(error, InvalidParameter):
        return "; ".join(f"{flag(name)}: {message}" for name, message in error.errors)
    if isinstance(error, ValidationError):
        return "; ".join(_validation(error))
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def _validation(error: ValidationError) -> Iterator[str]:
    for problem in error.errors():
        name = ".".join(map(str, problem["loc"]))
        yield f"{flag(name)}: {problem['input']!r}: {reason(problem)}"


def reason(problem: ErrorDetails) -> str:
    """Why a value cannot be used."""
    return problem["msg"].removeprefix("Value error, ")
