"""Several retrievers' rankings as one: reciprocal rank fusion."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gainrag.errors import ConfigError
from gainrag.protocols import Retriever
from gainrag.records import Scored
from gainrag.retrievers.bm25 import BM25
from gainrag.retrievers.store import scored

# How deep each retriever is searched at least: passages further down hardly add to the sum.
_DEPTH = 100


class Hybrid:
    """Fuses rankings: score(p) = sum over retrievers of 1 / (k0 + rank of p), ranks from 1.

    A passage a retriever did not return adds nothing there, nor does one that BM25 found no common word in.
    Passages are the same when their ids are. Equal sums: the better rank in the first retriever first, then in the
    second, and so on. What each retriever itself scored a passage with stands in `scores`, by the retriever's name:
    that of its class in lower case ("bm25", "dense"), numbered where one comes again ("dense-2"). For these questions
    one of them may order passages better than their fusion.

    Source: Cormack, Clarke and Buettcher, SIGIR 2009.

    Args:
        retrievers: at least one, all over the same corpus.
        k0: how much a rank counts: the larger, the less the top of a ranking stands out.

    Raises:
        ConfigError: there is no retriever.
    """

    def __init__(self, retrievers: Sequence[Retriever], k0: int = 60) -> None:
        if not retrievers:
            raise ConfigError("a hybrid needs at least one retriever", where="retrievers", hint="give BM25 and Dense")
        self.retrievers = tuple(retrievers)
        self.k0 = k0
        self.names = _names(self.retrievers)

    def search(self, questions: Sequence[str], k: int) -> list[list[Scored]]:
        """The k best passages of each question, best first."""
        depth = max(k, _DEPTH)
        rankings = [retriever.search(questions, depth) for retriever in self.retrievers]
        return [self._fuse([ranking[i] for ranking in rankings], k) for i in range(len(questions))]

    def _fuse(self, rankings: Sequence[Sequence[Scored]], k: int) -> list[Scored]:
        passages: dict[str, Scored] = {}
        scores: dict[str, dict[str, float]] = {}
        ranks: dict[str, list[float]] = {}
        terms: dict[str, list[float]] = {}
        for which, (retriever, ranking) in enumerate(zip(self.retrievers, rankings, strict=True)):
            for rank, passage in enumerate(ranking, 1):
                passages.setdefault(passage.id, passage)
                if passage.score is not None:
                    scores.setdefault(passage.id, {})[self.names[which]] = passage.score
                ranks.setdefault(passage.id, [math.inf] * len(rankings))[which] = rank
                # BM25 fills its ranking up with passages that match no word: their order says nothing.
                if not (isinstance(retriever, BM25) and passage.score == 0):
                    terms.setdefault(passage.id, []).append(1 / (self.k0 + rank))
        # fsum rounds once, so that the same ranks sum to the same score whichever retriever gave them.
        sums = {key: math.fsum(terms.get(key, ())) for key in passages}
        best = sorted(passages, key=lambda key: (-sums[key], ranks[key]))[:k]
        found = [scored(passages[key], sums[key]) for key in best]
        for passage in found:
            passage.scores = scores.get(passage.id)
        return found


def _names(retrievers: Sequence[Retriever]) -> tuple[str, ...]:
    """A name for each retriever, all different."""
    kinds = [type(retriever).__name__.lower() for retriever in retrievers]
    before = [kinds[:i].count(kind) for i, kind in enumerate(kinds)]
    return tuple(f"{kind}-{n + 1}" if n else kind for kind, n in zip(kinds, before, strict=True))
