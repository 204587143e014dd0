"""A record as one line of JSON, and back. Unknown keys are kept."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any, get_args

import msgspec

from gainrag.records.fields import Answer, Gained, GainRecord, Level, R, Record, Retrieved, Scored

_LEVELS = get_args(Level)
# The key of a question, no field, that lists the ids of its gold passages before any were retrieved.
GOLD = "gold_passages"
# The key of a question that says who asked it, and what it may say.
ASKED_BY, BY_MODEL, BY_PEOPLE = "asked_by", "model", "people"

# Which field of a record holds records in turn, and of what type.
_NESTED: dict[type[Record], type[Record]] = {Retrieved: Scored, GainRecord: Gained, Answer: Scored}


# Written behind the other fields, where files made before these were fields have them.
_LAST = (
    *("choices", "scores", "gold", "level", "choice_losses", "choice_losses_without", "threshold", "gold_ranks"),
    *("loss_low", "loss_high", "said", "right", "interval", "thinned", "said_without", "right_without"),
)
# A field with this value is left out of the file.
_UNSAID = {"origin": "corpus", "level": "exact"}
# Unknown keys are kept as they are, and so nested values must be such that they can be written again.
_DEEPEST = 64


def from_builtins(kind: type[R], value: object) -> R:
    """Make a record from decoded JSON; keys the type does not have go to `extra`.

    Raises:
        msgspec.ValidationError: a field is missing or of the wrong type; the message names its path.
    """
    return msgspec.convert(_with_extra(kind, value), kind)


def _with_extra(kind: type[Record], value: object) -> object:
    if not isinstance(value, dict):
        return value
    known = _known(kind)
    if "level" in value and value["level"] not in _LEVELS:
        known = known - {"level"}  # HotpotQA's questions have a level, too: of how hard they are
    extra = {key: item for key, item in value.items() if key not in known}
    lifted = {key: item for key, item in value.items() if key in known} if extra else dict(value)
    if extra:
        for key, item in extra.items():
            if isinstance(item, dict | list) and _deeper(item, _DEEPEST):
                raise msgspec.ValidationError(f"Value nested deeper than {_DEEPEST} - at `$.{key}`")
        lifted["extra"] = extra
    if kind in _NESTED and isinstance(lifted.get("ctxs"), list):
        lifted["ctxs"] = [_with_extra(_NESTED[kind], ctx) for ctx in lifted["ctxs"]]
    return lifted


@cache
def _known(kind: type[Record]) -> frozenset[str]:
    """The keys of a record in JSON."""
    return frozenset(kind.__struct_fields__) - {"extra"}


def _deeper(value: object, levels: int) -> bool:
    """Whether a value is nested deeper than so many levels."""
    inner: Iterable[object] = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels == 0 or any(_deeper(item, levels - 1) for item in inner if isinstance(item, dict | list))


def to_builtins(record: Record) -> dict[str, Any]:
    """The record as plain JSON data, `extra` merged back in. Fields without a default are always written.

    A field is never hidden by a key of the same name that came with the question: whoever answers a file of answers
    anew wants the new ones.
    """
    out: dict[str, Any] = {}
    for name in record.__struct_fields__:
        value = getattr(record, name)
        if name == "extra" or value is None or _UNSAID.get(name) == value:
            continue
        if isinstance(value, list) and value and isinstance(value[0], Record):
            value = [to_builtins(item) for item in value]
        out[name] = value
    # Struct fields come base class first; a record reads best with its id in front.
    ordered: dict[str, Any] = {key: out[key] for key in ("id", "question", "title", "text") if key in out}
    last = {key: out.pop(key) for key in _LAST if key in out}
    own = {**ordered, **out, **last}
    return {**own, **{key: value for key, value in record.extra.items() if key not in own}}


def encode(record: Record) -> bytes:
    """One JSON line, newline included."""
    return msgspec.json.encode(to_builtins(record)) + b"\n"
