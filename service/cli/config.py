"""`subpose config`."""

from __future__ import annotations

from pydantic_settings import DotEnvSettingsSource, EnvSettingsSource

from service.console import one_line_errors, stdout
from service.settings import PREFIX, Settings


def config() -> None:
    """Print every setting, its value and where it comes from, in the form of an .env file."""
    with one_line_errors():
        settings = Settings()
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
