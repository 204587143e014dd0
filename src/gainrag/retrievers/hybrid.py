"""Several retrievers' rankings as one: by their scores, or by reciprocal ranks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from gainrag.errors import ConfigError
from gainrag.metrics import holds_answer
from gainrag.protocols import FloatArray, Retriever, search_with
from gainrag.records import Question, Scored
from gainrag.retrievers.bm25 import BM25
from gainrag.retrievers.store import scored
from gainrag.statistics import least_cross_entropy, standardise

Fusion = Literal["scores", "ranks"]

# How deep each retriever is searched at least, and what its scores are standardised over: passages further down hardly
# add to the sum.
_DEPTH = 100
# Single-precision scores differ in their sixth place with the batch, and are divided by spreads near 0.1: sums equal to
# four places are equal.
_PLACES = 4
# Weights to two places: a run made again on another machine comes to the same, and so to the same rankings.
_WEIGHT_PLACES = 2
# Questions searched at a time when weights are fitted: their passages' texts are held in memory.
_BATCH = 64


class Hybrid:
    """Fuses rankings.

    | fusion | score(p), a sum over retrievers | from a retriever that did not return p |
    |---|---|---|
    | scores | weight * z(p) | z of the last passage it returned |
    | ranks | 1 / (k0 + rank of p), ranks from 1 | 0; likewise where BM25 found no common word |

    z(p): the retriever's score of p, less the mean of its first 100 for this question, divided by their standard
    deviation, since scores of different questions and retrievers are not alike.

    Passages are the same when their ids are. Equal sums: the better rank in the first retriever first, then in the
    second, and so on. What each retriever itself scored a passage with stands in `scores`, by the retriever's name:
    that of its class in lower case ("bm25", "dense"), numbered where one comes again ("dense-2"). A retriever that
    gives no scores has minus the logarithm of its ranks for them.

    Source of ranks: Cormack, Clarke and Buettcher, SIGIR 2009.

    Args:
        retrievers: at least one, all over the same corpus.
        k0: of ranks, how much a rank counts: the larger, the less the top of a ranking stands out.
        fusion: scores or ranks.
        weights: of scores, by the retrievers' names; alike when None. See `fit_weights`.

    Raises:
        ConfigError: there is no retriever, or the weights are not of these retrievers, below 0 or all 0.
    """

    def __init__(
        self,
        retrievers: Sequence[Retriever],
        k0: int = 60,
        *,
        fusion: Fusion = "scores",
        weights: Mapping[str, float] | None = None,
    ) -> None:
        if not retrievers:
            raise ConfigError("a hybrid needs at least one retriever", where="retrievers", hint="give BM25 and Dense")
        if fusion not in ("scores", "ranks"):
            raise ConfigError(f"unknown fusion {fusion!r}", where="fusion", hint="choose scores or ranks")
        self.retrievers = tuple(retrievers)
        self.k0 = k0
        self.fusion: Fusion = fusion
        self.names = _names(self.retrievers)
        self.weights = equal_weights(self.names) if weights is None else dict(weights)
        check_weights(self.weights, self.names)

    def search(self, questions: Sequence[str], k: int) -> list[list[Scored]]:
        """The k best passages of each question, best first."""
        return [self._best(pool, k) for pool in self.pools(questions, k)]

    def pools(self, questions: Sequence[str], k: int = _DEPTH) -> list[Pool]:
        """What all retrievers together found for each question, before it is fused."""
        depth = max(k, _DEPTH)
        rankings = [search_with(retriever, questions, depth) for retriever in self.retrievers]
        return [self._pool([ranking[i] for ranking in rankings]) for i in range(len(questions))]

    def _pool(self, rankings: Sequence[Sequence[Scored]]) -> Pool:
        passages: dict[str, Scored] = {}
        for passage in (passage for ranking in rankings for passage in ranking):
            passages.setdefault(passage.id, passage)
        ranks = np.full((len(passages), len(rankings)), np.inf)
        given: list[dict[str, float]] = [{} for _ in passages]
        rows = {key: row for row, key in enumerate(passages)}
        columns = []
        for which, (name, ranking) in enumerate(zip(self.names, rankings, strict=True)):
            at = [rows[passage.id] for passage in ranking]
            ranks[at, which] = np.arange(1, len(ranking) + 1)
            for row, passage in zip(at, ranking, strict=True):
                if passage.score is not None:
                    given[row][name] = passage.score
            own = _scores(ranking)
            # Over as many passages however many are asked for: a passage's score must not depend on k.
            column = np.full(len(passages), own.min(initial=np.inf) if len(own) else 0.0)
            column[at] = own
            columns.append(standardise(column, own[:_DEPTH]))
        return Pool(list(passages.values()), given, np.stack(columns, axis=1), ranks)

    def _best(self, pool: Pool, k: int) -> list[Scored]:
        if self.fusion == "scores":
            shares = [self.weights[name] for name in self.names]
            sums = [round(math.fsum(w * z for w, z in zip(shares, row, strict=True)), _PLACES) for row in pool.z]
        else:
            sums = [self._reciprocal(given, ranks) for given, ranks in zip(pool.given, pool.ranks, strict=True)]
        best = sorted(range(len(sums)), key=lambda row: (-sums[row], tuple(pool.ranks[row])))[:k]
        found = [scored(pool.passages[row], sums[row]) for row in best]
        for passage, row in zip(found, best, strict=True):
            passage.scores = pool.given[row] or None
        return found

    def _reciprocal(self, given: Mapping[str, float], ranks: FloatArray) -> float:
        """The sum of reciprocal ranks. fsum rounds once, so that the same ranks sum to the same score whichever
        retriever gave them."""
        terms = []
        for name, retriever, rank in zip(self.names, self.retrievers, ranks, strict=True):
            # BM25 fills its ranking up with passages that match no word: their order says nothing.
            if not (isinstance(retriever, BM25) and given.get(name) == 0):
                terms.append(1 / (self.k0 + float(rank)))
        return math.fsum(terms)


class Pool(NamedTuple):
    """What several retrievers found for one question.

    passages: each once, in the order in which they were found.
    given: of each passage the retrievers' scores, by name.
    z: [passage, retriever], standardised scores.
    ranks: [passage, retriever], from 1; infinite where it was not returned.
    """

    passages: list[Scored]
    given: list[dict[str, float]]
    z: FloatArray
    ranks: FloatArray


def fit_weights(asked: Iterable[tuple[Hybrid, Sequence[Question]]]) -> dict[str, float]:
    """The weights by which passages that contain an answer come first, as shares of 1, to two places.

    They are those of least cross-entropy between softmax(sum of weight * z) and an even distribution over the passages
    that contain an answer, over all that the retrievers found.

    Args:
        asked: hybrids of the same parts, each over its corpus, with training questions for it. A question without
            answers teaches nothing, nor does one that no passage answers, or every one.

    Returns:
        By the retrievers' names; alike where no question teaches anything.
    """
    names: tuple[str, ...] = ()
    columns: list[FloatArray] = []
    teachers: list[FloatArray] = []
    for hybrid, questions in asked:
        names = hybrid.names
        with_answers = [question for question in questions if question.answers]
        for start in range(0, len(with_answers), _BATCH):
            batch = with_answers[start : start + _BATCH]
            for question, pool in zip(batch, hybrid.pools([q.question for q in batch]), strict=True):
                marks = np.array([float(holds_answer(passage, question.answers)) for passage in pool.passages])
                if 0 < marks.sum() < len(marks):
                    columns.append(pool.z)
                    teachers.append(marks / marks.sum())
    found, _ = least_cross_entropy(columns, teachers, free=0) if columns else ((), 0.0)
    if (total := sum(found)) <= 0:
        return equal_weights(names)
    return {name: round(weight / total, _WEIGHT_PLACES) for name, weight in zip(names, found, strict=True)}


def equal_weights(names: Sequence[str]) -> dict[str, float]:
    """The weights where no questions were there to fit them on: all alike."""
    return {name: round(1 / len(names), _WEIGHT_PLACES) for name in names}


def check_weights(weights: Mapping[str, float], names: Sequence[str]) -> None:
    """Whether weights are those of retrievers.

    Raises:
        ConfigError: a name is missing or too many, a weight is below 0 or no number, or all are 0.
    """
    hint = "give each retriever a weight from 0 up"
    if set(weights) != set(names):
        what = f"weights of {', '.join(weights) or 'nothing'}, but the retrievers are {', '.join(names)}"
        raise ConfigError(what, where="weights", hint=hint)
    if not all(0 <= weight < math.inf for weight in weights.values()) or not any(weights.values()):
        raise ConfigError(f"weights are {dict(weights)}", where="weights", hint=hint)


def _scores(ranking: Sequence[Scored]) -> FloatArray:
    """A retriever's scores of the passages it returned, best first."""
    given = [passage.score for passage in ranking]
    if any(score is None for score in given):
        return -np.log1p(np.arange(len(ranking)))
    return np.array(given, dtype=np.float64)


def _names(retrievers: Sequence[Retriever]) -> tuple[str, ...]:
    """A name for each retriever, all different."""
    kinds = [type(retriever).__name__.lower() for retriever in retrievers]
    before = [kinds[:i].count(kind) for i, kind in enumerate(kinds)]
    return tuple(f"{kind}-{n + 1}" if n else kind for kind, n in zip(kinds, before, strict=True))
