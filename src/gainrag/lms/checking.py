"""What every model that scores asks of a request, on this machine or behind an endpoint."""

from __future__ import annotations

from gainrag.errors import DataError
from gainrag.protocols import ScoringRequest


def check_request(request: ScoringRequest) -> None:
    """Whether there is something to score.

    Raises:
        DataError: there is not.
    """
    where = where_of(request)
    if not request.with_prompts:
        raise DataError("no passages to score", where=where, hint="retrieve first")
    if not request.answers:
        raise DataError("no answers to score", where=where, hint="gains need gold answers")
    for text in request.answers:
        if not text.strip():
            raise no_tokens(request, text)


def no_tokens(request: ScoringRequest, answer: str) -> DataError:
    """The error of an answer that has no tokens."""
    return DataError(f"the answer {answer!r} has no tokens", where=where_of(request), hint="remove empty answers")


def where_of(request: ScoringRequest) -> str:
    """What errors call a request: the end of its prompt without a passage."""
    return f"prompt {request.without_prompt[-60:]!r}"
