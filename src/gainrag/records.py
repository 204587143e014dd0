"""The records that flow between stages, and how they are read from and written to JSON lines.

One record is one line. Files may be plain or .gz, and `-` is standard input or output. Unknown keys of the input
are kept in `extra` and written back. A line that does not fit is an error that names file, line and field.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Literal, TypeVar

import msgspec

Origin = Literal["corpus", "generated"]


class Record(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What all records share: keys that this version does not know are kept in `extra`, not dropped."""

    extra: dict[str, Any] = {}


class Passage(Record, kw_only=True):
    """A piece of text a model may read. `origin` "generated" marks the pseudo-passage, whatever its position."""

    id: str
    title: str = ""
    text: str
    origin: Origin = "corpus"


class Scored(Passage, kw_only=True):
    """A passage as a retriever or selector returned it. The pseudo-passage was never retrieved: its score is None."""

    score: float | None = None
    hasanswer: bool | None = None


class Gained(Scored, kw_only=True):
    """A scored passage with its contrastive loss (nats per token, least over the answers) by alpha, and its gain."""

    loss: dict[str, float]
    gain: float


class Question(Record, kw_only=True):
    """A question and its gold answers; `answers` may be empty where nothing is trained or evaluated."""

    id: str
    question: str
    answers: list[str] = []


class Retrieved(Question, kw_only=True):
    """A question with its candidate passages, best first: the DPR/Contriever result format."""

    ctxs: list[Scored]


class GainRecord(Question, kw_only=True):
    """A training label: every candidate's gain, the silver passage's index, whether the question passed the filter.

    loss_without: nats per token of the easiest answer when no passage is read; None in files that do not say.
    """

    kept: bool
    prediction: str
    silver: int
    ctxs: list[Gained]
    loss_without: float | None = None


class Answer(Question, kw_only=True):
    """What a system answered (`prediction`), from which passages (`ctxs`)."""

    prediction: str
    ctxs: list[Scored] = []


R = TypeVar("R", bound=Record)

# Which field of a record holds records in turn, and of what type.
_NESTED: dict[type[Record], type[Record]] = {Retrieved: Scored, GainRecord: Gained, Answer: Scored}


def from_builtins(kind: type[R], value: object) -> R:
    """Make a record from decoded JSON; keys the type does not have go to `extra`.

    Raises:
        msgspec.ValidationError: a field is missing or of the wrong type; the message names its path.
    """
    return msgspec.convert(_with_extra(kind, value), kind)


def _with_extra(kind: type[Record], value: object) -> object:
    if not isinstance(value, dict):
        return value
    known = set(kind.__struct_fields__) - {"extra"}
    lifted = {key: item for key, item in value.items() if key in known}
    extra = {key: item for key, item in value.items() if key not in known}
    if extra:
        lifted["extra"] = extra
    if kind in _NESTED and isinstance(lifted.get("ctxs"), list):
        lifted["ctxs"] = [_foreign_score(_with_extra(_NESTED[kind], ctx)) for ctx in lifted["ctxs"]]
    return lifted


def _foreign_score(ctx: object) -> object:
    """DPR writes scores and ids of another JSON type: the score as a string, the id as a number."""
    if isinstance(ctx, dict):
        if isinstance(ctx.get("score"), str):
            with suppress(ValueError):  # left as it is then: msgspec names the field
                ctx["score"] = float(ctx["score"])
        if isinstance(ctx.get("id"), int):
            ctx["id"] = str(ctx["id"])
    return ctx


def to_builtins(record: Record) -> dict[str, Any]:
    """The record as plain JSON data, `extra` merged back in. Fields without a default are always written."""
    out: dict[str, Any] = {}
    for name in record.__struct_fields__:
        value = getattr(record, name)
        if name == "extra":
            continue
        if isinstance(value, list) and value and isinstance(value[0], Record):
            value = [to_builtins(item) for item in value]
        if value is None or (name == "origin" and value == "corpus"):
            continue
        out[name] = value
    # Struct fields come base class first; a record reads best with its id in front.
    ordered: dict[str, Any] = {key: out[key] for key in ("id", "question", "title", "text") if key in out}
    return {**ordered, **out, **record.extra}


def encode(record: Record) -> bytes:
    """One JSON line, newline included."""
    return msgspec.json.encode(to_builtins(record)) + b"\n"
