"""What people look at: the page on `/` and the API reference on `/docs`.

Static files only, from this server alone: they work without internet. The content security policy
says so to the browser too. All links are relative, so a proxy may serve it all under a prefix.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Final

from fastapi import APIRouter, Request, Response
from starlette.staticfiles import StaticFiles

router = APIRouter(include_in_schema=False)

_OURS: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
# Swagger UI puts style attributes on its elements and pictures into its style sheet.
_SWAGGER: Final = _OURS.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'").replace(
    "img-src 'self' blob:", "img-src 'self' blob: data:"
)

_page: Final = StaticFiles(directory=Path(__file__).parents[1] / "page")
_swagger: Final = StaticFiles(directory=str(files("fastapi_offline") / "static"))


@router.get("/")
@router.head("/")
async def page(request: Request) -> Response:
    """Drop a photo, see skeletons and heatmaps."""
    return await _file(_page, "index.html", request, policy=_OURS)


@router.get("/docs")
@router.head("/docs")
async def docs(request: Request) -> Response:
    """The API reference."""
    return await _file(_page, "docs.html", request, policy=_SWAGGER)


@router.get("/page/{name}")
@router.head("/page/{name}")
async def page_file(name: str, request: Request) -> Response:
    """A part of the page."""
    return await _file(_page, name, request, policy=_OURS)


@router.get("/docs/{name}")
@router.head("/docs/{name}")
async def docs_file(name: str, request: Request) -> Response:
    """A part of Swagger UI."""
    return await _file(_swagger, name, request, policy=_SWAGGER)


async def _file(folder: StaticFiles, name: str, request: Request, *, policy: str) -> Response:
    """A file of a folder, 304 where the caller has it; raises 404 where there is none."""
    response = await folder.get_response(name, request.scope)
    response.headers["Content-Security-Policy"] = policy
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["Cache-Control"] = "no-cache"  # ask again, which costs a 304
    return response
