"""How well a selector does on questions it does not learn from, and whether it is fit to be saved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gainrag.errors import ModelError
from gainrag.gain import teacher
from gainrag.protocols import FloatArray
from gainrag.training.labels import Example, regret

# Scores of a question that differ by less than this, in parts of the largest, are equal but for rounding.
SAME = 1e-5
# With fewer held-out questions chance decides too much: the selector is not compared with the retriever's order.
JUDGES = 5


class Judgement(NamedTuple):
    """How near a selector's scores are to the labels of some questions.

    cross_entropy: mean cross-entropy of teacher and softmax(scores) over whole candidate lists, in nats. It is the
        list-wise training loss; what is learned point-wise has the same best scores, see gainrag.training.labels.
    regret: by how much the label of the first choice falls short of the best one's, on average, see `regret`.
    """

    cross_entropy: float
    regret: float

    def __str__(self) -> str:
        return f"cross-entropy {self.cross_entropy:.4f}, regret {self.regret:.4f}"


def judge(scores: Sequence[FloatArray], questions: Sequence[Example], temperature: float) -> Judgement:
    """Compare scores with labels.

    Args:
        scores: of each question [passage].
        temperature: of the teacher.
    """
    with np.errstate(invalid="ignore"):  # of scores that are NaN or infinite the cross-entropy is NaN
        losses = [
            -float(teacher(question.own, temperature) @ (own - np.logaddexp.reduce(own)))
            for own, question in zip(scores, questions, strict=True)
        ]
    return Judgement(float(np.mean(losses)), regret(scores, [question.own for question in questions]))


def regret_of_retrieval(questions: Sequence[Example]) -> float:
    """The regret of the retriever's first passage: the first of the list that is not the pseudo-passage."""
    first = [next((i for i, c in enumerate(q.record.ctxs) if c.origin != "generated"), 0) for q in questions]
    return float(np.mean([max(q.own) - q.own[i] for i, q in zip(first, questions, strict=True)]))


def check_numbers(scores: Sequence[FloatArray]) -> None:
    """Refuse a selector whose scores are no numbers.

    Raises:
        ModelError: a score is NaN or infinite.
    """
    if not all(np.isfinite(own).all() for own in scores):
        raise ModelError(
            "the trained selector gives scores that are NaN or infinite; it is not saved",
            where="train",
            hint="lower learning_rate",
        )


def check_order(scores: Sequence[FloatArray]) -> None:
    """Refuse a selector that orders nothing.

    Raises:
        ModelError: within each question all scores are equal.
    """
    if all(np.ptp(own) <= SAME * max(1.0, float(np.abs(own).max())) for own in scores):
        raise ModelError(
            f"the trained selector gives all passages of a question the same score, in all {len(scores)} questions "
            "looked at; it is not saved",
            where="train",
            hint="lower learning_rate, or train for more epochs",
        )
