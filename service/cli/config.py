"""`subpose config`."""

from __future__ import annotations

from service.cli.options import settings_of
from service.console import one_line_errors, stdout
from service.environment import said, variable
from service.settings import Settings


def config() -> None:
    """Print every setting: what it means, its value and where that comes from, as an .env file."""
    with one_line_errors():
        settings = settings_of()
    places = said(Settings.model_fields)
    for name, field in Settings.model_fields.items():
        source = next((place for place, values in places.items() if name in values), "default")
        value = getattr(settings, name)
        unset = "# " if value is None else ""
        line = f"{unset}{variable(name)}={written(value)}"
        stdout.print(f"# {field.description}", markup=False, soft_wrap=True)
        stdout.print(f"{line:<52} # {source}\n", markup=False, soft_wrap=True)


def written(value: object) -> str:
    """A setting's value as it is written in the environment."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return "" if value is None else str(value)
