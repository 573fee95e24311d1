"""Problems -> answers: application/problem+json, whatever went wrong."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import Scope

from service.api.schemas import ProblemBody
from service.problems import (
    NO_SUCH_PARAMETER,
    PROBLEMS,
    InvalidParameter,
    MethodNotAllowed,
    NotFound,
    Problem,
)

MEDIA_TYPE = "application/problem+json"


def problem_body(problem: Problem, request_id: str) -> dict[str, object]:
    """A problem as RFC 9457 has it."""
    return {
        **_of_all(type(problem)),
        "detail": problem.detail,
        "request_id": request_id,
        **problem.members,
    }


def plain_problem_json(problem: Problem, request_id: str) -> str:
    """The same as JSON, of one without members of its own, in a fifth of the time."""
    detail, number = json.dumps(problem.detail), json.dumps(request_id)
    return f'{_OPENED[type(problem)]}, "detail": {detail}, "request_id": {number}}}'


def _of_all(problem: type[Problem]) -> dict[str, object]:
    """What all problems of a class have."""
    return {
        # A name, not an address: there is nothing to look up that the answer does not say.
        "type": f"urn:subpose:problem:{problem.code}",
        "title": problem.title,
        "status": problem.status,
        "code": problem.code,
    }


_OPENED = {problem: json.dumps(_of_all(problem)).removesuffix("}") for problem in PROBLEMS}


def problem_response(problem: Problem, scope: Scope) -> Response:
    """The answer that a problem is. Notes the problem's code for the metrics."""
    state = scope.setdefault("state", {})
    state["problem"] = problem.code
    return Response(
        json.dumps(problem_body(problem, state.get("request_id", ""))),
        problem.status,
        dict(problem.headers),
        MEDIA_TYPE,
    )


def invalid_parameter(errors: Iterable[Mapping[str, object]]) -> InvalidParameter:
    """The problem that pydantic's errors are."""
    return InvalidParameter(*map(_parameter_error, errors))


def install(app: FastAPI) -> None:
    """Make every error of the application a problem."""

    @app.exception_handler(Problem)
    async def _ours(request: Request, error: Problem) -> Response:
        return problem_response(error, request.scope)

    @app.exception_handler(RequestValidationError)
    async def _fastapis(request: Request, error: RequestValidationError) -> Response:
        return problem_response(invalid_parameter(error.errors()), request.scope)

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        if error.status_code == 405:
            allow = ", ".join(_methods(request))
            detail = f"{request.method} is not among {allow}"
            return problem_response(MethodNotAllowed(detail, allow), request.scope)
        return problem_response(NotFound("no such route; /docs lists them"), request.scope)


def problem_responses(*problems: type[Problem]) -> dict[int | str, dict[str, object]]:
    """For a route's `responses`: what it can answer besides success, with the codes of each."""
    statuses: dict[int, list[type[Problem]]] = {}
    for problem in PROBLEMS:
        if problem in problems:
            statuses.setdefault(problem.status, []).append(problem)
    return {
        status: {
            "description": ", ".join(f"`{problem.code}`" for problem in group),
            "content": {
                MEDIA_TYPE: {
                    "schema": {"$ref": f"#/components/schemas/{ProblemBody.__name__}"},
                    "examples": {problem.code: {"value": _example(problem)} for problem in group},
                }
            },
        }
        for status, group in statuses.items()
    }


def _methods(request: Request) -> list[str]:
    """Of all routes of the request's path; each by itself knows only its own."""
    return [
        method
        for method in ("DELETE", "GET", "HEAD", "POST")
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL
            for route in request.app.routes
        )
    ]


def _example(problem: type[Problem]) -> dict[str, object]:
    example = {
        **_of_all(problem),
        "detail": (problem.__doc__ or "").split("\n")[0],
        "request_id": "7f2c9d04",
    }
    if issubclass(problem, InvalidParameter):
        example["errors"] = [{"parameter": "resolution", "message": "at most 2048"}]
    return example


def _parameter_error(entry: Mapping[str, object]) -> tuple[str, str]:
    location = entry.get("loc")
    parameter = str(location[-1]) if isinstance(location, tuple) and location else "?"
    if entry.get("type") == "extra_forbidden":
        return parameter, NO_SUCH_PARAMETER
    value = entry.get("input")
    given = f" (given: {str(value)[:80]!r})" if isinstance(value, (str, int, float)) else ""
    return parameter, f"{entry.get('msg')}{given}"
