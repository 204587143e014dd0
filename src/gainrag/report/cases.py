"""A test question with everything a run knows of it, and what analyses of many of them share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np

from gainrag.records import Answer, Gained, Passage, Scored
from gainrag.statistics import share_interval

Plain = dict[str, Any]

# What stands for all questions beside the names of data sets.
ALL = "all"


class Seed(msgspec.Struct, frozen=True):
    """What a system chose and answered with a further seed: `answered`, `scores`, `scored` of a case."""

    answered: Answer
    scores: dict[str, float]
    scored: list[float]


class Case(msgspec.Struct, frozen=True):
    """A test question with everything a run knows of it.

    candidates: in retrieval order, the pseudo-passage among them; with their true gains where the run measured them.
    scored: by system that has a selector, its score of each candidate, in the same order.
    answered: by system, its answer; all cases have the same systems.
    scores: by system, `contains`, `f1`, `mean`, `recall` .. of its answer (see `gainrag.evaluation.score_questions`).
    further: by system that was trained with several seeds, all but the first, which the other fields are of.
    """

    id: str
    question: str
    answers: list[str]
    dataset: str
    candidates: list[Gained] | list[Scored]
    answered: dict[str, Answer]
    scores: dict[str, dict[str, float]]
    scored: dict[str, list[float]] = {}
    extra: dict[str, Any] = {}
    further: dict[str, list[Seed]] = {}

    def mean(self, system: str, what: str = "mean") -> float:
        """mean(contains, F1) of a system's answer, or another of its scores; of several seeds the mean over them."""
        own = [self.scores[system], *(seed.scores for seed in self.further.get(system, ()))]
        return own[0][what] if len(own) == 1 else sum(scores[what] for scores in own) / len(own)

    def seeds(self, system: str) -> int:
        """With how many seeds a system was trained."""
        return 1 + len(self.further.get(system, ()))

    def with_seed(self, system: str, n: int) -> Case:
        """The case with what a system chose and answered with its n-th further seed; 0 is the first seed."""
        if n == 0:
            return self
        own = self.further[system][n - 1]
        return msgspec.structs.replace(
            self,
            answered={**self.answered, system: own.answered},
            scores={**self.scores, system: own.scores},
            scored={**self.scored, system: own.scored},
            further={},
        )

    def pseudo(self) -> int | None:
        """Where the pseudo-passage is among the candidates."""
        return next((i for i, c in enumerate(self.candidates) if c.origin == "generated"), None)

    def gains(self) -> list[float]:
        """The true gain of each candidate; nothing where the run measured none."""
        return [c.gain for c in self.candidates if isinstance(c, Gained)]

    def gain(self, passage: Passage) -> float | None:
        """The true gain of a passage; None for one that is no candidate, and where the run measured none."""
        return next((c.gain for c in self.candidates if isinstance(c, Gained) and same(c, passage)), None)


def same(one: Passage, other: Passage) -> bool:
    """Whether two records are the same passage: pseudo-passages of several questions may share an id."""
    return one.id == other.id and one.text == other.text


def share(k: int, n: int, confidence: float = 0.95) -> Plain:
    """k of n with Wilson's interval; no value where n is 0.

    >>> share(1, 2)
    {'k': 1, 'n': 2, 'value': 0.5, 'low': 0.094531, 'high': 0.905469}
    >>> share(0, 0)["value"] is None
    True
    """
    if n == 0:
        return {"k": 0, "n": 0, "value": None, "low": None, "high": None}
    low, high = share_interval(k, n, confidence)
    return {"k": k, "n": n, "value": k / n, "low": round(low, 6), "high": round(high, 6)}


def mean_of(values: Sequence[float]) -> Plain:
    """The mean and how many it is of; no value where there are none.

    >>> mean_of([1.0, 0.0]), mean_of([])
    ({'n': 2, 'value': 0.5}, {'n': 0, 'value': None})
    """
    return {"n": len(values), "value": float(np.mean(values)) if values else None}


def by_dataset(cases: Sequence[Case], analyse: Callable[[Sequence[Case]], Any]) -> Plain:
    """An analysis of all questions and, where there are several data sets, of each."""
    names = sorted({case.dataset for case in cases})
    found = {ALL: analyse(cases)}
    if len(names) > 1:
        found |= {name: analyse([case for case in cases if case.dataset == name]) for name in names}
    return found
