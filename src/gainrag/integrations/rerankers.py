"""The rerankers library: a selector, with what it learned beside its weights, as one of its rankers.
`gainrag[rerankers]`.

`Reranker("selector/", model_type="cross-encoder")` opens a plain cross-encoder's folder, too, without its calibration.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rerankers.documents import Document
from rerankers.models.ranker import BaseRanker
from rerankers.results import RankedResults, Result
from rerankers.utils import prep_docs

from gainrag.integrations.ranking import PRIOR, opened, passage, ranking
from gainrag.protocols import Selector


class GainRAGRanker(BaseRanker):
    """Orders documents by how much they help the language model; their scores are the selector's.

    Args:
        selector: a folder, a name, or an opened Selector.
        verbose: rerankers' own.
    """

    def __init__(self, selector: str | Path | Selector = PRIOR, verbose: int = 0) -> None:
        super().__init__(str(selector), verbose=verbose)
        self.ranking_type = "pointwise"
        self._selector = opened(selector)

    def rank(
        self,
        query: str,
        docs: str | list[str] | Document | list[Document],
        doc_ids: list[str] | list[int] | None = None,
        metadata: list[dict[str, Any]] | None = None,
    ) -> RankedResults:
        """All documents, best first; metadata may hold a `title`, a `score` and `scores`."""
        documents = prep_docs(docs, doc_ids, metadata)
        passages = [passage(i, d.text or "", d.metadata or {}) for i, d in enumerate(documents)]
        best = ranking(self._selector, query, passages, None)
        results = [Result(document=documents[i], score=score, rank=place) for place, (i, score) in enumerate(best, 1)]
        return RankedResults(results=results, query=query, has_scores=True)

    def score(self, query: str, doc: str) -> float:
        """The score of one document by itself; a selector that compares documents knows less of it than in `rank`."""
        ((_, score),) = ranking(self._selector, query, [passage(0, doc, {})], None)
        return score
