"""LlamaIndex: a selector as a node postprocessor, and any LlamaIndex retriever as gainrag's. `gainrag[llama-index]`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle

from gainrag.errors import DataError
from gainrag.integrations.ranking import PRIOR, opened, passage, ranking
from gainrag.protocols import Selector, name_of
from gainrag.records import Scored

_dispatcher = get_dispatcher(__name__)


class GainRAGPostprocessor(BaseNodePostprocessor):
    """Keeps the nodes that help the language model most, best first; their scores are the selector's.

    selector: a folder, a name, or an opened Selector.
    top_n: how many to keep; all when left out.
    """

    selector: Any = Field(default=PRIOR, description="A selector folder, a name, or an opened Selector.")
    top_n: int | None = Field(default=None, description="How many nodes to keep; all when left out.")
    _selector: Selector = PrivateAttr()

    def __init__(self, selector: Any = PRIOR, top_n: int | None = None, **more: Any) -> None:
        super().__init__(selector=selector, top_n=top_n, **more)
        self._selector = opened(selector)

    @classmethod
    def class_name(cls) -> str:
        """What LlamaIndex calls it."""
        return "GainRAGPostprocessor"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if query_bundle is None:
            raise DataError("no query", where="GainRAGPostprocessor", hint="pass query_str or query_bundle")
        count = len(nodes) if self.top_n is None else self.top_n
        model = name_of(self._selector)
        _dispatcher.event(ReRankStartEvent(query=query_bundle, nodes=nodes, top_n=count, model_name=model))
        passages = [_passage(i, node) for i, node in enumerate(nodes)]
        found = [
            NodeWithScore(node=nodes[i].node, score=score)
            for i, score in ranking(self._selector, query_bundle.query_str, passages, self.top_n)
        ]
        _dispatcher.event(ReRankEndEvent(nodes=found))
        return found


class LlamaIndexRetriever:
    """Any LlamaIndex retriever as a gainrag Retriever, for `GainRAG(..)` and `retrieve(..)`.

    It returns as many passages as it is set to: set its own `similarity_top_k` high enough.
    """

    def __init__(self, retriever: BaseRetriever) -> None:
        self.retriever = retriever

    def search(self, questions: Sequence[str], k: int) -> list[list[Scored]]:
        """The first k nodes of each question, with LlamaIndex's ids and scores."""
        found = []
        for question in questions:
            passages = []
            for place, node in enumerate(self.retriever.retrieve(question)[:k]):
                own = _passage(place, node)
                own.id = node.node.node_id
                passages.append(own)
            found.append(passages)
        return found


def _passage(place: int, node: NodeWithScore) -> Scored:
    # What LlamaIndex shows to a model that compares texts: with the metadata that it says belong to them. The title
    # stands apart from the text here, as selectors learned to read it.
    shown, hidden = node.node, node.node.excluded_embed_metadata_keys
    about = {k: v for k, v in shown.metadata.items() if k not in hidden or k in ("score", "scores")}
    if "title" in about:
        shown = shown.model_copy(update={"excluded_embed_metadata_keys": [*hidden, "title"]})
    return passage(place, shown.get_content(metadata_mode=MetadataMode.EMBED), about, node.score)
