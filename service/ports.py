"""Whether an address can be listened on, found out before the work that comes first."""

from __future__ import annotations

import errno
import socket

from service.environment import flag, variable


def try_port(host: str, port: int) -> None:
    """Take an address for a moment.

    Raises:
        OSError: it is taken, not this machine's, or no address at all.
    """
    try:
        ((family, kind, protocol, _, address), *_) = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except UnicodeError as error:  # what Python calls a name with an empty or endless part
        raise socket.gaierror(socket.EAI_NONAME, "no name that a host could have") from error
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)


def remedy(error: OSError, setting: str) -> str:
    """What helps where `try_port` failed.

    Args:
        error: as it was raised.
        setting: that names the port.
    """
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return "name an address of this machine with --host (SUBPOSE_HOST)"
    other = f"choose another with {flag(setting)} ({variable(setting)})"
    return f"end what listens there, or {other}" if error.errno == errno.EADDRINUSE else other
