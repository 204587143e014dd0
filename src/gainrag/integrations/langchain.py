"""LangChain: a selector as a document compressor, and any LangChain retriever as gainrag's. `gainrag[langchain]`.

A document's title is read from metadata["title"]; what a retriever scored it with from metadata["score"] (and
["scores"], by retriever), where LangChain's own retrievers leave nothing, so put it there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.runnables import Runnable
from pydantic import ConfigDict, PrivateAttr

from gainrag.integrations.ranking import PRIOR, opened, passage, ranking
from gainrag.protocols import Selector
from gainrag.records import Scored


class GainRAGCompressor(BaseDocumentCompressor):
    """Keeps the documents that help the language model most, best first, as copies with metadata["relevance_score"].

    selector: a folder, a name, or an opened Selector.
    top_n: how many to keep; all when left out.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    selector: Any = PRIOR
    top_n: int | None = None
    _selector: Selector = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        """Open the selector."""
        self._selector = opened(self.selector)

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """The best documents; their `relevance_score` is the selector's score, higher is better."""
        passages = [passage(i, document.page_content, document.metadata) for i, document in enumerate(documents)]
        return [
            documents[i].model_copy(update={"metadata": {**documents[i].metadata, "relevance_score": score}})
            for i, score in ranking(self._selector, query, passages, self.top_n)
        ]


class LangChainRetriever:
    """Any LangChain retriever as a gainrag Retriever, for `GainRAG(..)` and `retrieve(..)`; or any Runnable that makes
    documents of a question.

    It returns as many passages as it is set to: set its own `k` high enough.
    """

    def __init__(self, retriever: Runnable[str, list[Document]]) -> None:
        self.retriever = retriever

    def search(self, questions: Sequence[str], k: int) -> list[list[Scored]]:
        """The first k documents of each question; their ids are LangChain's, else their places."""
        return [[_scored(i, document) for i, document in enumerate(found[:k])] for found in self._found(questions)]

    def _found(self, questions: Sequence[str]) -> list[list[Document]]:
        return list(self.retriever.batch(list(questions)))


def _scored(place: int, document: Document) -> Scored:
    found = passage(place, document.page_content, document.metadata)
    about = document.metadata
    # Qdrant's store, for one, leaves the id as _id.
    found.id = str(next((id for id in (document.id, about.get("id"), about.get("_id")) if id is not None), place))
    return found
