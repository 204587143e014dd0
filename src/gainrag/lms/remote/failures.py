"""What can go wrong with a request, and what it means: whether to try again, and what a person can do."""

from __future__ import annotations

import email.utils
import time
from collections.abc import Mapping
from typing import Any

import msgspec

from gainrag.errors import ModelError
from gainrag.lms.remote.address import Address

# Statuses of failures that may pass; every other one from 400 on is the request's own fault.
PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})


class BadAnswer(Exception):
    """An answer that is none: raised by `read`, in words that complete "the engine returned ..."."""


class Failure(Exception):
    """A try that failed.

    what: in a few words, without the request's headers.
    passing: whether another try may succeed.
    status: the HTTP status, where there was one.
    wait: seconds that the server asked to wait.
    unreachable: no connection came about.
    hint: what to do about it, where that is known.
    """

    def __init__(
        self,
        what: str,
        *,
        passing: bool = True,
        status: int | None = None,
        wait: float | None = None,
        unreachable: bool = False,
    ) -> None:
        super().__init__(what)
        self.what, self.passing, self.status, self.wait, self.unreachable = what, passing, status, wait, unreachable
        self.hint: str | None = None

    @classmethod
    def of_connection(cls, error: BaseException) -> Failure:
        """That of a connection, by what the HTTP library raised."""
        import httpx2

        words = str(error)[:100] or type(error).__name__
        if isinstance(error, httpx2.ConnectError):
            return cls(f"no connection ({words})", unreachable=True)
        return cls(f"the connection broke ({words})")


class EngineError(ModelError):
    """An engine answered nothing, or no. `status` is the HTTP status, None where there was none."""

    def __init__(self, what: str, *, where: str, hint: str | None = None, status: int | None = None) -> None:
        super().__init__(what, where=where, hint=hint)
        self.status = status


def hint_of(failure: Failure, address: Address, *, has_key: bool) -> str:
    """What to do about a failure that stays."""
    if failure.hint is not None:
        return failure.hint
    if failure.unreachable:
        return f"is the engine running? try: curl {address.base}/models"
    if failure.status in (401, 403):
        given = "the key was refused" if has_key else "no key was sent"
        return f"{given}: put it into an environment variable, and name that in api_key_env"
    if failure.status == 404:
        return f"is the model's name right? try: curl {address.base}/models"
    if failure.status == 429:
        return "lower concurrency, or wait; all that came back is kept"
    if failure.passing:
        return "see the engine's log; all that came back is kept, and the same command goes on from there"
    return "see the engine's documentation, or its log"


def check_status(status: int, headers: Mapping[str, str], content: bytes) -> None:
    """Whether an answer is one by its HTTP status.

    Raises:
        Failure: it is not.
    """
    if status < 300:
        return
    message = " ".join(_message(content).split())[:200]
    what = f"HTTP {status}" + (f": {message}" if message else "")
    raise Failure(what, passing=status in PASSING, status=status, wait=_retry_after(headers.get("retry-after")))


def decode(content: bytes) -> Any:
    """Decoded JSON.

    Raises:
        BadAnswer: it is none.
    """
    try:
        return msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadAnswer(f"what is no JSON ({str(error)[:80]}, {len(content)} bytes)") from None


def _message(content: bytes) -> str:
    """What an engine says of an error: OpenAI's {"error": {"message": ..}}, FastAPI's {"detail": ..}, or text."""
    try:
        found = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return content[:200].decode(errors="replace")
    for name in ("error", "message", "detail"):
        if isinstance(found, dict) and name in found:
            found = found[name]
    return found if isinstance(found, str) else msgspec.json.encode(found)[:200].decode(errors="replace")


def _retry_after(value: str | None) -> float | None:
    """Seconds to wait, from a number or a date; None where it is neither.

    >>> _retry_after("2"), _retry_after("soon")
    (2.0, None)
    """
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None
