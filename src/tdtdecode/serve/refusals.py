"""Errors in the form of OpenAI's interface."""

from __future__ import annotations

from typing import Any

from ..errors import InputError, TdtDecodeError


class Refusal(Exception):
    """A request that is not answered with what it asked for.

    Attributes
    ----------
    status:
        Of the HTTP response.
    param:
        The field of the request that is wrong, if it is one.
    code:
        What programs tell errors apart by.
    retry_after:
        After how many seconds to try again, if that may help.
    """

    def __init__(
        self, status: int, message: str, *, code: str, param: str | None = None, retry_after: int | None = None
    ):
        super().__init__(message)
        self.status, self.message, self.code, self.param, self.retry_after = status, message, code, param, retry_after

    @property
    def kind(self) -> str:
        """The interface's class of errors."""
        if self.status == 429:
            return "rate_limit_error"
        return "server_error" if self.status >= 500 else "invalid_request_error"

    @property
    def error(self) -> dict[str, Any]:
        """The error as the interface's object."""
        return {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}


def wrong(param: str | None, message: str, code: str = "invalid_value", status: int = 400) -> Refusal:
    """The refusal of a request in which a field is wrong."""
    return Refusal(status, message, code=code, param=param)


def busy(what: str, retry_after: int) -> Refusal:
    """The refusal where too much is under way."""
    return Refusal(429, f"{what}: try again later", code="too_many_requests", retry_after=retry_after)


def too_large(most: int) -> Refusal:
    """The refusal of a body that is too large."""
    message = f"the request is larger than {most} bytes, the most that is taken here"
    return Refusal(413, message, code="request_too_large", param="file")


def too_slow(what: str, status: int) -> Refusal:
    """The refusal of what took too long: 408 where the client sent too slowly, 504 where the model took too long."""
    return Refusal(status, what, code="timeout")


def ending() -> Refusal:
    """The refusal of a server that ends."""
    return Refusal(503, "the server is being shut down", code="shutting_down", retry_after=5)


def refusal_of(error: BaseException) -> Refusal:
    """The refusal that an error of the model amounts to: the client's fault or the server's."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, InputError):
        return wrong("file", str(error), "invalid_audio")
    if isinstance(error, TdtDecodeError):
        return Refusal(500, str(error), code="model_error")
    return Refusal(500, "the server failed; its log says more", code="internal_error")
