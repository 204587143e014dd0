"""What a client is told that gets no result: a status, one sentence, and where it helps, when to come back."""

from __future__ import annotations

from typing import Any

from gainrag.errors import GainragError

# The word by which programs know what happened; people read the sentence.
CODES = {
    400: "bad_request",
    401: "unauthorized",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "too_large",
    422: "invalid",
    429: "full",
    499: "client_gone",
    500: "failed",
    503: "unavailable",
}


class Refused(GainragError):
    """A request that is not served.

    Args:
        status: of HTTP.
        retry_after: seconds after which it is worth another try; None where it is not.
    """

    def __init__(
        self,
        status: int,
        what: str,
        *,
        where: str | None = None,
        hint: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(what, where=where, hint=hint)
        self.http_status, self.retry_after = status, retry_after


def headers_for(error: GainragError) -> dict[str, str]:
    """The headers of an error's response: Retry-After wherever another try may go well."""
    after = error.retry_after if isinstance(error, Refused) else None
    if after is None and error.http_status == 503:
        after = 1
    found = {"Retry-After": str(after)} if after is not None else {}
    if error.http_status == 401:
        found["WWW-Authenticate"] = 'Basic realm="gainrag", charset="UTF-8"'
    return found


def error_body(status: int, sentence: str) -> dict[str, Any]:
    """One sentence in the three places where clients look for it.

    >>> error_body(429, "full")["detail"]
    'full'
    """
    code = CODES.get(status, "failed" if status >= 500 else "bad_request")
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return {"detail": sentence, "message": sentence, "error": {"message": sentence, "type": kind, "code": code}}
