"""docs/settings.md, made from the settings: `python -m tests.settings_page` writes it."""

from pathlib import Path

from service.cli.config import written
from service.environment import variable
from service.settings import Settings

PAGE = Path(__file__).parents[1] / "docs" / "settings.md"

_HEAD = """# Settings

Each is an environment variable, or a line of a file `.env` in the folder where the command runs. A
flag of the command wins over the environment, that over `.env`, that over the default. Lists have
commas; empty is as good as not set. Another name with the prefix `SUBPOSE_` stops the command,
unless it is one that Kubernetes gives its pods for a Service named `subpose` or `subpose-…`; names
without the prefix are not looked at. `subpose config` prints what holds, and where it comes from.

Written by `python -m tests.settings_page` from `service/settings.py`.

| setting | default | meaning |
|---|---|---|
"""


def page() -> str:
    """The page as it has to be."""
    rows = []
    for name, field in Settings.model_fields.items():
        # What is computed differs between machines; its description says what it is.
        default = written(None if field.default_factory else field.default)
        shown = f"`{default}`" if default else ""
        rows.append(f"| `{variable(name)}` | {shown} | {field.description} |\n")
    return _HEAD + "".join(rows)


if __name__ == "__main__":
    PAGE.write_text(page())
