"""The posted images: the raw body, or the `image` parts of a multipart one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import Request

from service.api.multipart import REMEDY, parts_of
from service.problems import BadMultipart, UnreadableImage, UnsupportedImage

_MOST_IMAGES = 16
_MULTIPART = "multipart/form-data"
_FORM = "application/x-www-form-urlencoded"

_RAW = ("image/jpeg", "image/png", "image/webp", "application/octet-stream")
_BINARY = {"type": "string", "format": "binary"}
REQUEST_BODY = {
    "required": True,
    "description": "JPEG, PNG or WebP, judged by the first bytes alone.",
    "content": {
        **{kind: {"schema": _BINARY} for kind in _RAW},
        _MULTIPART: {
            "schema": {
                "type": "object",
                "required": ["image"],
                "properties": {
                    "image": {"type": "array", "items": _BINARY, "maxItems": _MOST_IMAGES}
                },
            }
        },
    },
}
"""What OpenAPI says of it."""


def declared_bytes(length: str | bytes) -> int:
    """Bytes that a body will have, by `Content-Length`; 0 where it comes in chunks without."""
    return int(length) if length.isascii() and length.isdigit() else 0


async def posted_images(request: Request) -> list[bytes]:
    """The bytes of each posted image, in order; at least one.

    Raises:
        BadMultipart: a broken body, no `image` part, too many of them, or parts of other names.
    """
    if _kind(request) != _MULTIPART:
        return [await request.body()]
    parts = await parts_of(request.headers["content-type"], request.stream(), _MOST_IMAGES)
    for part in parts:
        if part.name != "image":
            raise BadMultipart(
                f"there is no part {part.name[:64]!r}; parameters go into the query, and {REMEDY}"
            )
        if not part.is_file:
            raise BadMultipart(f"`image` is a plain field; {REMEDY}")
    if not parts:
        raise BadMultipart(f"the body has no parts; {REMEDY}")
    return [bytes(part.data) for part in parts]


@contextmanager
def advising(request: Request) -> Iterator[None]:
    """Says of an image that cannot be used how it is sent whole, should curl have mangled it.

    `curl -d` leaves out line breaks, and takes a name without @ for the data. Its content type is
    that of `--data-binary` too, so the type alone is no error.
    """
    try:
        yield
    except (UnreadableImage, UnsupportedImage) as problem:
        if _kind(request) == _FORM:
            problem.detail += "; with curl use --data-binary @photo.jpg, for -d changes the bytes"
        raise


def _kind(request: Request) -> str:
    return request.headers.get("content-type", "").split(";")[0].strip().lower()
