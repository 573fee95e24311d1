"""What routes ask for besides their parameters: the application's state, and who is calling."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from fastapi.security.utils import get_authorization_scheme_param

from service.problems import NO_SUCH_PARAMETER, InvalidParameter, Unauthorized
from service.state import State

_bearer = HTTPBearer(
    auto_error=False, description="asked for where the server has keys (SUBPOSE_API_KEYS)"
)


def state_of(request: Request) -> State:
    """The state of the application that serves the request."""
    return cast(State, request.app.state.subpose)


async def _state_of(request: Request) -> State:
    return state_of(request)  # a plain function would be called in a thread


AppState = Annotated[State, Depends(_state_of)]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. What is kept for one owner is nobody else's; without keys all are one owner."""

    owner: str


def authorise(request: Request, state: State) -> Caller:
    """Let in who has a key, where keys are set; count the request against the caller's limit.

    Raises:
        Unauthorized: no key, or none of ours.
        ClientLimit: too many requests.
    """
    keys = state.settings.api_keys
    if not keys:
        state.clients.take(request.client.host if request.client else "")
        return Caller("")
    scheme, credentials = get_authorization_scheme_param(request.headers.get("authorization"))
    given = hashlib.sha256((credentials if scheme.lower() == "bearer" else "").encode()).digest()
    # Every key is compared, digests in constant time: how long it takes tells nothing.
    matches = [
        hmac.compare_digest(given, hashlib.sha256(key.get_secret_value().encode()).digest())
        for key in keys
    ]
    if not any(matches):
        raise Unauthorized("send one of the server's keys as `Authorization: Bearer <key>`")
    owner = given.hex()
    state.clients.take(owner)
    return Caller(owner)


async def authorised(
    request: Request,
    state: AppState,
    _: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> Caller:
    """`authorise`, for routes that FastAPI runs, and how the schema knows of keys."""
    return authorise(request, state)


Authorised = Annotated[Caller, Depends(authorised)]


async def no_query(request: Request) -> None:
    """For routes without parameters.

    Raises:
        InvalidParameter: naming those that were given.
    """
    given = [(name, NO_SUCH_PARAMETER) for name in request.query_params]
    if given:
        raise InvalidParameter(*given)
