"""Every way a request can fail: one class a code.

Raised anywhere in the service; `service/api/errors.py` turns them into answers. A detail names the
bad value and the remedy, and holds no path and no traceback.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

NO_SUCH_PARAMETER = "there is no such parameter on this route"


class Problem(Exception):  # noqa: N818
    """An answer that is an error."""

    status: ClassVar[int]
    code: ClassVar[str]
    title: ClassVar[str]

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail

    @property
    def headers(self) -> dict[str, str]:
        """What the answer carries besides its body."""
        return {}

    @property
    def members(self) -> dict[str, object]:
        """What the body carries besides the members that every problem has."""
        return {}


class RetryLater(Problem):
    """One that passes with time.

    Args:
        detail: what is wrong.
        retry_after: seconds until another try may succeed.
    """

    def __init__(self, detail: str, retry_after: float = 1) -> None:
        super().__init__(detail)
        self.retry_after = retry_after

    @property
    def headers(self) -> dict[str, str]:
        """Whole seconds, as HTTP wants them."""
        return {"Retry-After": str(max(1, math.ceil(self.retry_after)))}


class BadRequest(Problem):
    """Not HTTP."""

    status, code, title = 400, "bad_request", "The request is not HTTP"


class UnreadableImage(Problem):
    """Truncated or corrupt bytes."""

    status, code, title = 400, "unreadable_image", "The image cannot be read"


class BadMultipart(Problem):
    """No `image` part, or a body that is no multipart/form-data."""

    status, code, title = 400, "bad_multipart", "The multipart body cannot be used"


class Unauthorized(Problem):
    """Keys are set and none fits."""

    status, code, title = 401, "unauthorized", "An API key is needed"

    @property
    def headers(self) -> dict[str, str]:
        """The scheme that is asked for."""
        return {"WWW-Authenticate": 'Bearer realm="subpose"'}


class NotFound(Problem):
    """No such route."""

    status, code, title = 404, "not_found", "There is nothing here"


class UnknownId(Problem):
    """Never given out, expired, evicted or another key's."""

    status, code, title = 404, "unknown_id", "Nothing is kept under this id"


class UnknownPerson(Problem):
    """Fewer people were found."""

    status, code, title = 404, "unknown_person", "There is no such person in the photo"


class UnknownKeypoint(Problem):
    """Not in the model's keypoint set."""

    status, code, title = 404, "unknown_keypoint", "The keypoint set has no such keypoint"


class UnknownModel(Problem):
    """Not among /models."""

    status, code, title = 404, "unknown_model", "There is no such model"


class UnknownDetector(Problem):
    """Not among /models."""

    status, code, title = 404, "unknown_detector", "There is no such detector"


class MethodNotAllowed(Problem):
    """The route exists, its method does not.

    Args:
        detail: what is wrong.
        allow: the methods that the route has.
    """

    status, code, title = 405, "method_not_allowed", "The route does not have this method"

    def __init__(self, detail: str, allow: str) -> None:
        super().__init__(detail)
        self._allow = allow

    @property
    def headers(self) -> dict[str, str]:
        """The methods that the route has."""
        return {"Allow": self._allow}


class NotAcceptable(Problem):
    """`Accept` has none of the route's formats."""

    status, code, title = 406, "not_acceptable", "None of the accepted formats can be given"


class SlowBody(Problem):
    """The body was not here in time."""

    status, code, title = 408, "slow_body", "The body came too slowly"


class BodyTooLarge(Problem):
    """Over the limit of a body, declared or counted."""

    status, code, title = 413, "body_too_large", "The body is too large"


class TooManyPixels(Problem):
    """Judged from the image's header, before decoding."""

    status, code, title = 413, "too_many_pixels", "The image has too many pixels"


class UnsupportedImage(Problem):
    """Not a JPEG, PNG or WebP."""

    status, code, title = 415, "unsupported_image", "The image's kind is not supported"


class UnknownHost(Problem):
    """Host names another server."""

    status, code, title = 421, "unknown_host", "This server does not go by that name"


class InvalidParameter(Problem):
    """An unknown parameter, or a value that it cannot have.

    Args:
        errors: pairs of a parameter and what is wrong with it.
    """

    status, code, title = 422, "invalid_parameter", "A parameter cannot be used"

    def __init__(self, *errors: tuple[str, str]) -> None:
        super().__init__("; ".join(f"{parameter}: {message}" for parameter, message in errors))
        self.errors: Sequence[tuple[str, str]] = errors

    @property
    def members(self) -> dict[str, object]:
        """The parameters by name."""
        return {
            "errors": [
                {"parameter": parameter, "message": message} for parameter, message in self.errors
            ]
        }


class AnswerTooLarge(InvalidParameter):
    """Known before any work is done; the message says what would fit."""

    code, title = "answer_too_large", "The answer would be too large"


class HeadersTooLarge(Problem):
    """Request line and headers over their limit."""

    status, code, title = 431, "headers_too_large", "The request's headers are too large"


class ClientLimit(RetryLater):
    """This caller asks too often."""

    status, code, title = 429, "client_limit", "Too many requests from this client"


class EngineFailed(Problem):
    """This item failed, and no other."""

    status, code, title = 500, "engine_failed", "The engine failed"


class Overloaded(RetryLater):
    """The queue is full, or its wait is longer than the deadline."""

    status, code, title = 503, "overloaded", "The server is busy"


class Starting(RetryLater):
    """Weights are being loaded."""

    status, code, title = 503, "starting", "The server is starting"

    def __init__(self) -> None:
        super().__init__("weights are being loaded; try again in a moment")


class Draining(RetryLater):
    """The server is on its way out."""

    status, code, title = 503, "draining", "The server is shutting down"

    def __init__(self) -> None:
        super().__init__("the server is shutting down; ask another replica")


class DeadlineExceeded(Problem):
    """Too late; the work is dropped."""

    status, code, title = 504, "deadline", "The deadline passed"


PROBLEMS: tuple[type[Problem], ...] = (
    BadRequest, UnreadableImage, BadMultipart, Unauthorized, UnknownId, UnknownPerson,
    UnknownKeypoint, UnknownModel, UnknownDetector, NotFound, MethodNotAllowed, NotAcceptable,
    SlowBody, HeadersTooLarge, BodyTooLarge, TooManyPixels, UnsupportedImage, UnknownHost,
    InvalidParameter, AnswerTooLarge, ClientLimit, EngineFailed, Overloaded, Starting, Draining,
    DeadlineExceeded,
)  # fmt: skip
"""All of them."""
