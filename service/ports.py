"""Whether an address can be listened on, found out before the work that comes first."""

from __future__ import annotations

import socket


def try_port(host: str, port: int) -> None:
    """Take an address for a moment.

    Raises:
        OSError: it is taken, or not this machine's.
    """
    ((family, kind, protocol, _, address), *_) = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
