"""The posted images: the raw body, or the `image` parts of a multipart one."""

from __future__ import annotations

from fastapi import Request

from service.api.multipart import REMEDY, parts_of
from service.problems import BadMultipart

_MOST_IMAGES = 16
_MULTIPART = "multipart/form-data"

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
    content_type = request.headers.get("content-type", "")
    if content_type.split(";")[0].strip().lower() != _MULTIPART:
        return [await request.body()]
    parts = await parts_of(content_type, request.stream(), _MOST_IMAGES)
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
