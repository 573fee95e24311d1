"""What the environment and an `.env` file say of settings; what else they say is not ours."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping

from dotenv import dotenv_values

PREFIX = "SUBPOSE_"

# Kubernetes tells each pod of every Service: of one named subpose, or subpose-gpu, in our names.
_SERVICE_LINK = re.compile(
    rf"{PREFIX}(\w+_)?"
    r"(SERVICE_(HOST|PORT(_\w+)?)=|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?=|PORT=(tcp|udp|sctp)://)"
)


def said(settings: Collection[str]) -> dict[str, dict[str, str]]:
    """What each place says, the place that wins first.

    Args:
        settings: the names of all that there are.

    Returns:
        By place the values by setting. A name that is no setting's is there as it is written.
    """
    environment = {
        name: value
        for name, value in os.environ.items()
        if not _SERVICE_LINK.match(f"{name}={value}")
    }
    return {
        "environment": _ours(environment, settings),
        ".env": _ours(dotenv_values(".env"), settings),
    }


def variable(setting: str) -> str:
    """A setting's name in the environment."""
    return PREFIX + setting.upper()


def flag(setting: str) -> str:
    """A setting's or parameter's name as an option is written."""
    return f"--{setting.replace('_', '-')}"


def _ours(values: Mapping[str, str | None], settings: Collection[str]) -> dict[str, str]:
    ours = {}
    for name, value in values.items():
        if not name.upper().startswith(PREFIX):
            continue
        setting = name[len(PREFIX) :].lower()
        if setting not in settings:
            ours[name] = value or ""
        elif value:  # a compose file passes on what is not set as empty
            ours[setting] = value
    return ours
