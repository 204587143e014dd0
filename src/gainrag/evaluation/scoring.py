"""One answer -> its scores: what is measured of it and of the passages it was given from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from gainrag import metrics
from gainrag.errors import DataError
from gainrag.records import Answer, gold_ranks

_OF_TEXT: dict[str, Callable[[str, Sequence[str]], float]] = {
    "contains": metrics.contains,
    "exact_match": metrics.exact_match,
    "f1": metrics.f1,
    "paper_em": metrics.paper_em,
}

# What systems are compared by; `mean` is (contains + f1) / 2.
METRICS = (*_OF_TEXT, "mean")

# A question with choices has a right answer and wrong ones, and nothing between: each of METRICS is its accuracy there,
# so that such questions can be averaged with others. Where all questions have choices, it is called by its name.
ACCURACY = "accuracy"

# Where it is known which passages are gold: the share of them in the first k, by the metric's name.
GOLD_RECALL = {"gold@1": 1, "gold@5": 5}

# What is measured of the passages an answer was given from, beside the answer's own scores.
_OF_PASSAGES = ("generated", "recall")


# The columns of the scores. Systems are compared by the first.
COMPARED = (*METRICS, *GOLD_RECALL)
MEASURES = (*COMPARED, *_OF_PASSAGES)


def score_questions(answers: Mapping[str, Sequence[Answer]]) -> list[dict[str, Any]]:
    """Every score of every answer, one plain dictionary each, ready to be written as JSON lines.

    Keys: system, id, prediction, each of METRICS (0 to 1), `generated` (1.0 when its first passage is the
    pseudo-passage), `recall` (1.0 when one of its passages holds an answer) and each of GOLD_RECALL where it is known.
    Systems and answers stay in order.

    Raises:
        DataError: a system has no answers, or an id twice; a question has no or empty gold answers.
    """
    return [
        {"system": name, "id": record.id, "prediction": record.prediction, **_score(record)}
        for name, records in answers.items()
        for record in answers_by_id(name, records).values()
    ]


def _score(record: Answer) -> dict[str, float]:
    """All scores of one answer: METRICS, _OF_PASSAGES, and of GOLD_RECALL those that are known."""
    if record.choices:
        scores = dict.fromkeys(_OF_TEXT, metrics.accuracy(record.prediction, record.answers))
    else:
        scores = {name: metric(record.prediction, record.answers) for name, metric in _OF_TEXT.items()}
    scores["mean"] = (scores["contains"] + scores["f1"]) / 2
    scores["generated"] = float(bool(record.ctxs) and record.ctxs[0].origin == "generated")
    # Not ctx.hasanswer: what came with foreign results may have been marked by another rule.
    scores["recall"] = float(any(metrics.holds_answer(ctx, record.answers) for ctx in record.ctxs))
    if (ranks := gold_ranks(record.ctxs) if record.gold_ranks is None else record.gold_ranks) is not None:
        scores |= {name: metrics.gold_recall(ranks, k) for name, k in GOLD_RECALL.items()}
    return scores


def measures(record: Answer) -> list[float]:
    """The scores of one answer in the order of MEASURES; NaN where it is not known which passages are gold."""
    scores = _score(record)
    return [scores.get(name, np.nan) for name in MEASURES]


def answers_by_id(system: str, records: Sequence[Answer]) -> dict[str, Answer]:
    """The answers of a system by question id, checked one by one."""
    if not records:
        raise DataError("the system has no answers", where=f"system {system!r}", hint="answer the questions first")
    found: dict[str, Answer] = {}
    for record in records:
        where = f"system {system!r}, question {record.id!r}"
        if record.id in found:
            raise DataError("the question is answered twice", where=where, hint="give each question its own id")
        if not record.answers:
            raise DataError("the question has no gold answers", where=where, hint="evaluation needs field answers")
        if not all(gold.strip() for gold in record.answers):
            raise DataError("a gold answer is empty", where=where, hint="remove it from field answers")
        found[record.id] = record
    return found
