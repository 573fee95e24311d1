"""multipart/form-data, read in memory: a body has a limit of its own, and nothing goes to disk."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from service.problems import BadMultipart

# It warns of broken bodies, which whoever sent them is told of: not the server's log.
logging.getLogger(MultipartParser.__module__).setLevel(logging.ERROR)

REMEDY = "send each photo as a file part named `image`: curl -F image=@photo.jpg"


@dataclass(slots=True)
class Part:
    """One part of a body.

    Attributes:
        name: of the form's field.
        is_file: whether it came with a file name.
        data: its content.
    """

    name: str = ""
    is_file: bool = False
    data: bytearray = field(default_factory=bytearray)


class _Collector:
    """What the parser calls; its methods are named as the parser's callbacks."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._header = self._value = b""
        self.parts: list[Part] = []
        self.complete = False

    def on_part_begin(self) -> None:
        if len(self.parts) == self._most:
            raise FormParserError(f"more than {self._most} parts")
        self.parts.append(Part())

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            _, options = parse_options_header(self._value)
            self.parts[-1].name = options.get(b"name", b"").decode(errors="replace")
            self.parts[-1].is_file = b"filename" in options
        self._header = self._value = b""

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1].data += memoryview(data)[start:end]

    def on_end(self) -> None:
        self.complete = True


async def parts_of(content_type: str, body: AsyncIterator[bytes], most: int) -> list[Part]:
    """The parts of a body.

    Args:
        content_type: the request's header.
        body: as it comes.
        most: parts that are taken.

    Raises:
        BadMultipart: it is broken, ends early or has too many parts.
    """
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise BadMultipart(f"Content-Type names no boundary; {REMEDY}")
    collector = _Collector(most)
    callbacks = {name: getattr(collector, name) for name in dir(collector) if name[:3] == "on_"}
    try:
        parser = MultipartParser(boundary, callbacks)  # type: ignore[arg-type]
        async for chunk in body:
            parser.write(chunk)
    except FormParserError as error:
        raise BadMultipart(f"the body is broken ({error}); {REMEDY}") from error
    if not collector.complete:
        raise BadMultipart(f"the body ends before its last boundary; {REMEDY}")
    return collector.parts
