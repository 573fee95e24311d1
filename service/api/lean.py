"""Routes that FastAPI describes and does not run.

For a small photo its solver of dependencies costs the event loop more than all that we do
ourselves, and its router and middleware a quarter of it. What they would find out is said here in
a few lines, from the same signature and the same pydantic models that the schema is made of.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar, get_type_hints

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.dependencies import Caller, authorise, state_of
from service.api.errors import invalid_parameter, problem_response
from service.api.parameters import Query
from service.problems import InvalidParameter, Problem
from service.state import State

Q = TypeVar("Q", bound=Query)

Endpoint = Callable[[Request, Query, Caller, State], Awaitable[Response]]
"""What such a route calls: its parameters are named `request, query, caller, state`."""


class LeanRoute(APIRoute):
    """Its endpoint is called directly, once the caller is let in and the query is read."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """From the endpoint's signature."""
        endpoint: Endpoint = self.endpoint
        model: type[Query] = get_type_hints(endpoint)["query"]

        async def handle(request: Request) -> Response:
            state = state_of(request)
            # Whoever has no key learns nothing of parameters.
            caller = authorise(request, state)
            return await endpoint(request, read_query(request, model), caller, state)

        return handle


class ProbeRoute(LeanRoute):
    """Its endpoint is called with the state alone: anybody may ask, with any parameters."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """From the endpoint."""

        async def handle(request: Request) -> Response:
            answer: BaseModel = await self.endpoint(state_of(request))
            return Response(answer.model_dump_json(), media_type="application/json")

        return handle


class Shortcut:
    """Takes requests straight to their lean route; all others go on to FastAPI.

    Args:
        app: the next application.
        routes: with a path that is no pattern.
    """

    def __init__(self, app: ASGIApp, routes: Sequence[BaseRoute]) -> None:
        self._app = app
        self._routes = {
            (method, route.path): (route, route.get_route_handler())
            for route in routes
            if isinstance(route, LeanRoute)
            for method in route.methods or ()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        found = scope["type"] == "http" and self._routes.get((scope["method"], scope["path"]))
        if not found:
            await self._app(scope, receive, send)
            return
        scope["route"], handle = found
        try:
            response = await handle(Request(scope, receive))
        except Problem as problem:
            response = problem_response(problem, scope)
        await response(scope, receive, send)


def read_query(request: Request, model: type[Q]) -> Q:
    """A request's parameters.

    Raises:
        InvalidParameter: one is unknown, is given twice, or has a value that it cannot have.
    """
    pairs = request.query_params.multi_items()
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = [name for name in values if names.count(name) > 1]
        raise InvalidParameter(*((name, "given more than once") for name in repeated))
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise invalid_parameter(error.errors()) from error
