"""Others' names for what a record of gainrag has: one table for all readers, and what was read by it is said once.

| others | their names |
|---|---|
| BEIR | `_id` |
| Pyserini, FlashRAG | `docid`, `contents` (title and text in one: it is the text), `golden_answers` |
| DPR | `positive_ctxs`, `passage_id`, `psg_id`, `has_answer`, scores as strings |
| question files | `query`, `answer`, `context`, integer ids, answers as one string or in nested lists |

A record's own name wins: where `id` is there, `_id` is a key like any other unknown one, and kept.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

from gainrag.records import Passage, Question, Record, Retrieved, Scored

logger = logging.getLogger(__name__)

# By record: our name -> others' names for it, the first that is there is taken.
_IN_PASSAGE = {"id": ("_id", "docid", "passage_id", "psg_id"), "text": ("contents", "context")}
_IN_QUESTION = {"id": ("_id", "docid"), "question": ("query",), "answers": ("golden_answers", "answer")}
NAMES: dict[type[Record], dict[str, tuple[str, ...]]] = {
    Passage: _IN_PASSAGE,
    Scored: {**_IN_PASSAGE, "hasanswer": ("has_answer",)},
    Question: _IN_QUESTION,
    Retrieved: {**_IN_QUESTION, "ctxs": ("positive_ctxs",)},
}
_FOREIGN = {kind: frozenset(other for others in names.values() for other in others) for kind, names in NAMES.items()}


def ours(path: object, values: Iterable[tuple[str, object]], kind: type[Record]) -> Iterator[tuple[str, object]]:
    """Decoded JSON under our names, with its places. What was read by others' is logged, each once."""
    said: set[str] = set()
    for where, value in values:
        notes: list[str] = []
        named = _ours(value, kind, notes)
        if new := [note for note in dict.fromkeys(notes) if note not in said]:
            said.update(new)
            logger.warning("%s: read %s", path, ", ".join(new))
        yield where, named


def _ours(value: object, kind: type[Record], notes: list[str]) -> object:
    if not isinstance(value, dict):
        return value
    if not _FOREIGN[kind].isdisjoint(value):
        value = _renamed(value, kind, notes)
    if type(value.get("id")) is int:  # true is no id
        value["id"] = str(value["id"])
        notes.append("integer ids as strings")
    if kind in (Question, Retrieved):
        _one_list(value, notes)
    if kind is Scored and isinstance(value.get("score"), str):
        with suppress(ValueError):  # left as it is then: the error names the field
            value["score"] = float(value["score"])
            notes.append("scores given as strings as numbers")
    if kind is Retrieved and isinstance(value.get("ctxs"), list):
        value["ctxs"] = [_ours(ctx, Scored, notes) for ctx in value["ctxs"]]
    return value


def _renamed(value: dict[str, Any], kind: type[Record], notes: list[str]) -> dict[str, Any]:
    """The same object with its keys under our names, in their order."""
    taken: dict[str, str] = {}
    for own, others in NAMES[kind].items():
        found = next((other for other in others if other in value), None)
        if own not in value and found is not None:
            taken[found] = own
            notes.append(f"`{found}` as {own}")
    return {taken.get(key, key): item for key, item in value.items()}


def _one_list(value: dict[str, Any], notes: list[str]) -> None:
    """Make answers that are one string, or lists in a list, a list."""
    answers = value.get("answers")
    if isinstance(answers, str):
        value["answers"] = [answers]
        notes.append("answers of one string as a list")
    elif isinstance(answers, list) and any(isinstance(answer, list) for answer in answers):
        value["answers"] = [one for answer in answers for one in (answer if isinstance(answer, list) else [answer])]
        notes.append("answers in nested lists as one list")
