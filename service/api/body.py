"""The posted images: the raw body, or the `image` parts of a multipart one."""

from __future__ import annotations

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from service.problems import BadMultipart

MOST_IMAGES = 16
_MULTIPART = "multipart/form-data"
_REMEDY = "send each photo as a file part named `image`: curl -F image=@photo.jpg"

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
                    "image": {"type": "array", "items": _BINARY, "maxItems": MOST_IMAGES}
                },
            }
        },
    },
}
"""What OpenAPI says of it."""


async def posted_images(request: Request) -> list[bytes]:
    """The bytes of each posted image, in order; at least one.

    Raises:
        BadMultipart: a broken body, no `image` part, too many of them, or parts of other names.
    """
    content_type = request.headers.get("content-type", "")
    if content_type.split(";")[0].strip().lower() != _MULTIPART:
        return [await request.body()]
    parser = MultiPartParser(
        request.headers, request.stream(), max_files=MOST_IMAGES, max_fields=MOST_IMAGES
    )
    # The body has a limit of its own; nothing of it is spooled to a disk.
    parser.spool_max_size = 1 << 40
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise BadMultipart(f"{error.message} {_REMEDY}") from error
    try:
        return [await _image(name, part) for name, part in form.multi_items()] or _none()
    finally:
        await form.close()


async def _image(name: str, part: UploadFile | str) -> bytes:
    if name != "image":
        raise BadMultipart(
            f"there is no part {name[:64]!r}; parameters belong into the query, and {_REMEDY}"
        )
    if isinstance(part, str):
        raise BadMultipart(f"`image` is a plain field; {_REMEDY}")
    return await part.read()


def _none() -> list[bytes]:
    raise BadMultipart(f"the body has no parts; {_REMEDY}")
