"""`subpose config`."""

from __future__ import annotations

from service.cli.options import settings_of
from service.console import one_line_errors, stdout
from service.environment import said, variable
from service.settings import Settings


def config() -> None:
    """Print every setting, its value and where it comes from, in the form of an .env file."""
    with one_line_errors():
        settings = settings_of()
    places = said(Settings.model_fields)
    for name in Settings.model_fields:
        source = next((place for place, values in places.items() if name in values), "default")
        value = getattr(settings, name)
        unset = "# " if value is None else ""
        line = f"{unset}{variable(name)}={written(value)}"
        stdout.print(f"{line:<52} # {source}", markup=False, soft_wrap=True)


def written(value: object) -> str:
    """A setting's value as it is written in the environment."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return "" if value is None else str(value)
