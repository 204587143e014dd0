"""What can be labelled, which candidates of it are measured, and which questions are kept."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Literal

import msgspec

from gainrag import metrics
from gainrag.errors import DataError
from gainrag.protocols import Selector
from gainrag.records import Question, Retrieved, right_choice
from gainrag.selection import score_all, top
from gainrag.selectors import PRIOR, open_selector

# An answer of more words no model repeats word for word: of such an answer the keep-filter asks for the gain.
LONG = 10

Keep = Literal["contains", "exact_match", "gain"]
FILTERS = {"contains": metrics.contains, "exact_match": metrics.exact_match}


def check_candidates(record: Retrieved) -> None:
    """Whether a question can be labelled at all.

    Raises:
        DataError: it has no answers, an empty one, no passages, or choices of which the first answer is none.
    """
    where = f"question {record.id}"
    if not record.answers or not all(answer.strip() for answer in record.answers):
        raise DataError("no answers, or an empty one", where=where, hint="gains need gold answers; remove the question")
    if not record.ctxs:
        raise DataError("no passages", where=where, hint="retrieve or augment first")
    if record.choices is not None:
        right_choice(record, where)


def by_gain(record: Question) -> bool:
    """Whether the keep-filter asks for a question's gain whatever `keep` says. With choices, a small model may choose
    one and the same always, and whoever asks for right answers keeps that class alone; a long answer is never
    contained in what a model writes."""
    return bool(record.choices) or is_long(record)


def is_long(record: Question) -> bool:
    """Whether all answers of a question are so long that no model repeats one word for word."""
    return all(len(answer.split()) > LONG for answer in record.answers)


@cache
def _thinner() -> Selector:
    """The selector that thins, which is read once and not for every part of a file."""
    return open_selector(PRIOR)


def thin(records: Sequence[Retrieved], at_most: int) -> tuple[list[Retrieved], list[list[str]]]:
    """Of each question the candidates that the shipped selector scores highest, in the order they had. The
    pseudo-passage is always among them.

    Args:
        at_most: how many are kept.

    Returns:
        The records with these candidates alone, and the ids of the others.
    """
    scores = score_all(_thinner(), [(record, record.ctxs) for record in records])
    found, others = [], []
    for record, own in zip(records, scores, strict=True):
        first = [float("inf") if c.origin == "generated" else score for c, score in zip(record.ctxs, own, strict=True)]
        kept = set(top(first, at_most))
        found.append(msgspec.structs.replace(record, ctxs=[c for i, c in enumerate(record.ctxs) if i in kept]))
        others.append([c.id for i, c in enumerate(record.ctxs) if i not in kept])
    return found, others
