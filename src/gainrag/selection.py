"""Candidates -> the K best by a selector. Sorting, ties and top-k live here and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import msgspec
import numpy as np
import numpy.typing as npt

from gainrag.errors import ConfigError, DataError, unknown
from gainrag.files.progress import progress
from gainrag.files.resuming import chunks
from gainrag.prompts import question_with_choices
from gainrag.protocols import FloatArray, Selector, is_listwise, scores_with
from gainrag.records import Retrieved, Scored, gold_ranks
from gainrag.selectors.lazy import SKIPPED, is_enough, threshold_of
from gainrag.settings import Passages, checked

Pseudo = Literal["eager", "lazy", "never"]

# Questions whose pairs are sorted by length together.
CHUNK = 32


def top(scores: npt.ArrayLike, k: int) -> list[int]:
    """Where the k highest scores are, best first; of equals the earlier one, so that retrieval order breaks ties.

    >>> top([1.0, 3.0, 3.0], 2)
    [1, 2]
    """
    return [int(i) for i in np.argsort(-np.asarray(scores, dtype=np.float64), kind="stable")[:k]]


def rescored(passages: Sequence[Scored], scores: npt.ArrayLike, k: int) -> list[Scored]:
    """The k best passages, by scores [passage], as copies that carry these."""
    values = np.asarray(scores, dtype=np.float64)
    return [msgspec.structs.replace(passages[i], score=float(values[i])) for i in top(values, k)]


def as_pseudo(pseudo: Pseudo | bool) -> Pseudo:
    """The choice in words: True is eager, False never.

    Raises:
        ConfigError: there is no such choice.
    """
    if isinstance(pseudo, bool):
        return "eager" if pseudo else "never"
    if pseudo not in get_args(Pseudo):
        raise ConfigError(unknown("choice", pseudo, get_args(Pseudo)), where="pseudo")
    return pseudo


@checked
def select(
    candidates: Sequence[Retrieved], selector: Selector, *, k: Passages = 1, pseudo: Pseudo | bool = "eager"
) -> list[Retrieved]:
    """The k candidates of each question that the selector scores highest, best first, with its scores.

    Args:
        k: how many passages the language model will read.
        pseudo: when the pseudo-passage may be chosen: eager, always; lazy, where no retrieved passage reaches the
            selector's threshold (the records say it under "pseudo_skipped"); never.

    Raises:
        ConfigError: k is below 1, no such choice of `pseudo`, or it is lazy and the selector has no threshold.
        DataError: a question has fewer than k candidates.
        ModelError: the selector's scores are NaN, or not one for each passage.
    """
    pseudo = as_pseudo(pseudo)
    threshold = threshold_of(selector) if pseudo == "lazy" else None
    eligible = [[c for c in record.ctxs if pseudo != "never" or c.origin != "generated"] for record in candidates]
    _check_enough(candidates, eligible, k)
    selected = []
    pairs = list(zip(candidates, eligible, strict=True))
    for part in progress(list(chunks(pairs, CHUNK)), "selecting", unit="batches"):
        without = _without_pseudo(selector, part) if threshold is not None else None
        for n, ((record, passages), scores) in enumerate(zip(part, score_all(selector, part), strict=True)):
            extra = record.extra
            if threshold is not None:
                kept = [i for i, c in enumerate(passages) if c.origin != "generated"]
                retrieved, own = [passages[i] for i in kept], scores[kept] if without is None else without[n]
                skipped = is_enough(retrieved, own, threshold, k)
                extra = {**extra, SKIPPED: skipped}
                if skipped:
                    passages, scores = retrieved, own
            selected.append(
                Retrieved(
                    id=record.id,
                    question=record.question,
                    answers=record.answers,
                    choices=record.choices,
                    extra=extra,
                    ctxs=(ranked := rescored(passages, scores, len(passages)))[:k],
                    gold_ranks=gold_ranks(ranked),
                )
            )
    return selected


def _without_pseudo(selector: Selector, part: Sequence[tuple[Retrieved, list[Scored]]]) -> list[FloatArray] | None:
    """The scores of the retrieved passages as if there were no pseudo-passage; None where these do not differ."""
    if not is_listwise(selector):
        return None
    return score_all(selector, [(r, [c for c in passages if c.origin != "generated"]) for r, passages in part])


def skipped_share(selected: Sequence[Retrieved]) -> float | None:
    """Share of lazily selected questions that skipped the pseudo-passage; None where the choice was not lazy."""
    flags = [bool(record.extra[SKIPPED]) for record in selected if SKIPPED in record.extra]
    return sum(flags) / len(flags) if flags else None


def rank(candidates: Sequence[Retrieved], selector: Selector) -> list[Retrieved]:
    """Every candidate of each question with the selector's score, best first: what `cut` takes the first k of."""
    pairs = [(record, record.ctxs) for record in candidates]
    return [
        msgspec.structs.replace(record, ctxs=rescored(passages, scores, len(passages)))
        for part in progress(list(chunks(pairs, CHUNK)), "scoring candidates", unit="batches")
        for (record, passages), scores in zip(part, score_all(selector, part), strict=True)
    ]


def cut(ranked: Sequence[Retrieved], k: int, *, pseudo: bool = True) -> list[Retrieved]:
    """The first k candidates of each ranked question: `cut(rank(c, s), k)` is `select(c, s, k=k)`.

    Args:
        ranked: what `rank` returned.
        pseudo: whether the pseudo-passage may be among them.

    Raises:
        ConfigError: k is below 1.
        DataError: a question has fewer than k candidates.
    """
    eligible = [[c for c in record.ctxs if pseudo or c.origin != "generated"] for record in ranked]
    _check_enough(ranked, eligible, k)
    return [
        msgspec.structs.replace(r, ctxs=passages[:k], gold_ranks=gold_ranks(passages))
        for r, passages in zip(ranked, eligible, strict=True)
    ]


def _check_enough(records: Sequence[Retrieved], eligible: Sequence[Sequence[Scored]], k: int) -> None:
    if k < 1:
        raise ConfigError(f"k is {k}", where="select", hint="give the language model one passage or more")
    for record, passages in zip(records, eligible, strict=True):
        if len(passages) < k:
            raise DataError(
                f"{k} passages are wanted of {len(passages)} candidates",
                where=f"question {record.id}",
                hint="lower k, or retrieve more",
            )


def score_all(selector: Selector, part: Sequence[tuple[Retrieved, list[Scored]]]) -> list[FloatArray]:
    """Scores [passage] of each question's passages; it is read with its choices."""
    return scores_with(selector, [(question_with_choices(r.question, r.choices), passages) for r, passages in part])
