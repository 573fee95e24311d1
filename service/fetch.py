"""A file from a URL: bounded, and the one that was meant, or none at all."""

from __future__ import annotations

import hashlib
import re
import urllib.request
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import BinaryIO
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit

from rich.console import Console
from rich.progress import wrap_file

from models.bundle import BundleError

CHUNK = 1 << 20
TIMEOUT_S = 30
"""Without a byte."""

_HANDLERS = (
    urllib.request.ProxyHandler,
    urllib.request.UnknownHandler,
    urllib.request.HTTPHandler,
    urllib.request.HTTPSHandler,
    urllib.request.HTTPDefaultErrorHandler,
    urllib.request.HTTPRedirectHandler,
    urllib.request.HTTPErrorProcessor,
)
"""No others: a redirect leads to no file of this machine, and to no other protocol."""


def is_url(source: str) -> bool:
    """Whether it is one that `fetch` takes."""
    try:
        parts = urlsplit(source)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def path_of(url: str) -> Path:
    """What it calls its file."""
    return Path(unquote(urlsplit(url).path))


def without_secrets(url: str) -> str:
    """Where it leads, less what only who fetches it may know: a password, a signed query."""
    return re.sub(r"//[^/?#]*@", "//", re.split(r"[?#]", url)[0])


def fetch(
    url: str, folder: Path, *, sha256: str, largest_bytes: int, console: Console | None = None
) -> Path:
    """Download a file and compare its digest; what differs is deleted.

    Args:
        url: http or https: the digest says whether it is the right file, however it came.
        folder: that it is written into.
        sha256: expected, in hexadecimal.
        largest_bytes: that are read.
        console: for the progress; None for none.

    Returns:
        The file, named as the URL's path ends.

    Raises:
        BundleError: it cannot be had, is too large, or is another file.
    """
    shown = without_secrets(url)
    if "@" in urlsplit(url).netloc:
        raise BundleError(f"{shown}: no user or password is sent; download it and import the file")
    opener = urllib.request.OpenerDirector()
    for handler in _HANDLERS:
        opener.add_handler(handler())
    name = re.sub(r"[^\w.+-]+", "_", path_of(url).name)
    target = folder / (name.lstrip(".") or "download")
    draft = folder / f".{target.name}.part"
    try:
        with opener.open(url, timeout=TIMEOUT_S) as response, draft.open("wb") as written:
            total = int(response.headers.get("Content-Length") or 0)
            if total > largest_bytes:
                raise BundleError(f"{shown} has {total} bytes, over --largest-mb")
            found = _copy(response, written, shown, total, largest_bytes, console)
        if found != sha256.lower():
            raise BundleError(f"{shown} has sha256 {found}, not {sha256}: it is another file")
        return draft.rename(target)
    except HTTPError as error:
        error.close()
        said = str(error.reason).partition("\n")[0]  # a loop's goes on
        raise BundleError(f"{shown}: {error.code} {said}") from error
    except (URLError, HTTPException, ValueError, TimeoutError, ConnectionError) as error:
        reason = error.reason if isinstance(error, URLError) else error
        raise BundleError(f"{shown} cannot be fetched: {reason}") from error
    finally:
        draft.unlink(missing_ok=True)


def _copy(
    response: HTTPResponse,
    written: BinaryIO,
    shown: str,
    total: int,
    largest_bytes: int,
    console: Console | None,
) -> str:
    """Copy all of it; returns its sha256."""
    digest, size = hashlib.sha256(), 0
    with wrap_file(
        response, total, description="fetching", console=console, disable=console is None,
        transient=True,
    ) as source:  # fmt: skip
        while chunk := source.read(CHUNK):
            size += len(chunk)
            if size > largest_bytes:
                raise BundleError(f"{shown} goes on beyond --largest-mb")
            digest.update(chunk)
            written.write(chunk)
    if total and size != total:
        raise BundleError(f"{shown} ends after {size} of {total} bytes")
    return digest.hexdigest()
