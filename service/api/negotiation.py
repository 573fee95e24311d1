"""Which format an answer has: `format` wins over `Accept`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from fastapi import Request

from service.problems import NotAcceptable

F = TypeVar("F", bound=str)

MEDIA_TYPES: Mapping[str, str] = {
    "json": "application/json",
    "coco": "application/json",
    "openpose": "application/json",
    "png": "image/png",
    "npy": "application/x-npy",
}


def accept_of(request: Request) -> str:
    """The header, all its fields joined."""
    return ",".join(request.headers.getlist("accept"))


def negotiate(asked: F | None, accept: str | None, offers: Sequence[F]) -> F:
    """The format of an answer.

    Args:
        asked: the `format` parameter.
        accept: the header, by `accept_of`.
        offers: formats that `Accept` chooses among, the default first.

    Raises:
        NotAcceptable: the header excludes them all.
    """
    if asked is not None:
        return asked
    if not accept:
        return offers[0]
    ranges = [_range(part) for part in accept.split(",") if part.strip()]
    best = max(offers, key=lambda offer: _quality(MEDIA_TYPES[offer], ranges))
    if _quality(MEDIA_TYPES[best], ranges) <= 0:
        raise NotAcceptable(
            f"Accept: {accept[:100]!r} has none of "
            f"{', '.join(MEDIA_TYPES[offer] for offer in offers)}"
        )
    return best


def _range(part: str) -> tuple[str, float]:
    """A media range and its quality."""
    media, *parameters = (piece.strip().lower() for piece in part.split(";"))
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return media, min(1.0, max(0.0, float(value)))
            except ValueError:
                return media, 0.0
    return media, 1.0


def _quality(media: str, ranges: Sequence[tuple[str, float]]) -> float:
    """By the most specific range that fits (RFC 9110, 12.5.1)."""
    for pattern in (media, f"{media.split('/')[0]}/*", "*/*"):
        matching = [quality for name, quality in ranges if name == pattern]
        if matching:
            return max(matching)
    return 0.0
