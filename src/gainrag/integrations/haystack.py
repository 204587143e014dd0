"""Haystack: a selector as a ranker component. `gainrag[haystack]`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from haystack import Document, component, default_from_dict, default_to_dict

from gainrag.integrations.ranking import PRIOR, opened, passage, ranking
from gainrag.protocols import Selector


@component
class GainRAGRanker:
    """Keeps the documents that help the language model most, best first; their scores are the selector's.

    Args:
        selector: a folder or a name; it is opened by `warm_up`, or when it is first needed.
        top_k: how many to keep; all when left out.
    """

    def __init__(self, selector: str = PRIOR, top_k: int | None = None) -> None:
        self.selector, self.top_k = selector, top_k
        self._selector: Selector | None = None

    def to_dict(self) -> dict[str, Any]:
        """The component as Haystack writes it into a pipeline."""
        return dict(default_to_dict(self, selector=self.selector, top_k=self.top_k))

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> GainRAGRanker:
        """The component of a written pipeline."""
        return default_from_dict(cls, data)  # type: ignore[no-any-return]

    def warm_up(self) -> None:
        """Open the selector."""
        if self._selector is None:
            self._selector = opened(self.selector)

    @component.output_types(documents=list[Document])
    def run(self, query: str, documents: list[Document], top_k: int | None = None) -> dict[str, list[Document]]:
        """Rank documents.

        Args:
            top_k: how many to keep of this query, instead of the component's own.
        """
        self.warm_up()
        assert self._selector is not None
        passages = [passage(i, d.content or "", d.meta, d.score) for i, d in enumerate(documents)]
        best = ranking(self._selector, query, passages, self.top_k if top_k is None else top_k)
        return {"documents": [replace(documents[i], score=score) for i, score in best]}
