"""The frameworks themselves, with a selector inside: every block of docs/integrations.md, and what it does not show.

test_stores.py has the blocks on vector stores."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gainrag.errors import GainragError
from gainrag.testing import OverlapSelector

PAGE, STORES = (Path(__file__).parents[2] / "docs/integrations.md").read_text("utf-8").split("\n## Vector stores\n")
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
TEXTS = ["Rain falls on Paris.", "The Seine is a river that flows through Paris.", "Nothing."]
QUERY = "Which river flows through Paris?"


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_every_block_of_the_page_runs(number: int) -> None:
    exec(compile(BLOCKS[number], f"docs/integrations.md, block {number}", "exec"), {"__name__": "page"})


def test_langchain_keeps_what_it_is_given() -> None:
    from langchain_classic.retrievers import ContextualCompressionRetriever
    from langchain_core.documents import Document
    from langchain_core.retrievers import BaseRetriever

    from gainrag.integrations.langchain import GainRAGCompressor

    class Fixed(BaseRetriever):
        def _get_relevant_documents(self, query: str, *, run_manager: object) -> list[Document]:
            return documents

    documents = [Document(page_content=text, id=str(n), metadata={"page": n}) for n, text in enumerate(TEXTS)]
    compressor = GainRAGCompressor(selector=OverlapSelector())
    found = compressor.compress_documents(documents, QUERY)
    assert [d.metadata["relevance_score"] for d in found] == [4.0, 1.0, 0.0]
    assert [(d.id, d.metadata["page"]) for d in found] == [("1", 1), ("0", 0), ("2", 2)]
    assert all("relevance_score" not in d.metadata for d in documents)
    whole = ContextualCompressionRetriever(base_compressor=compressor, base_retriever=Fixed())
    assert whole.invoke(QUERY)[0].id == "1"
    assert compressor.compress_documents([], QUERY) == []
    with pytest.raises(GainragError, match="top_n is 0"):
        GainRAGCompressor(selector=OverlapSelector(), top_n=0).compress_documents(documents, QUERY)


def test_llama_index_hands_its_scores_on_and_tells_of_the_reranking() -> None:
    from llama_index.core.instrumentation import get_dispatcher
    from llama_index.core.instrumentation.event_handlers import BaseEventHandler
    from llama_index.core.retrievers import BaseRetriever
    from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

    from gainrag.integrations.llama_index import GainRAGPostprocessor, LlamaIndexRetriever

    nodes = [NodeWithScore(node=TextNode(text=text, id_=str(n)), score=0.1 * n) for n, text in enumerate(TEXTS)]

    class Fixed(BaseRetriever):
        def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
            return nodes

    class Handler(BaseEventHandler):
        @classmethod
        def class_name(cls) -> str:
            return "Handler"

        def handle(self, event: object, **more: object) -> None:
            told.append(type(event).__name__)

    told: list[str] = []
    get_dispatcher().add_event_handler(Handler())
    found = GainRAGPostprocessor(selector=OverlapSelector(), top_n=2).postprocess_nodes(nodes, query_str=QUERY)
    assert [(node.node.node_id, node.score) for node in found] == [("1", 4.0), ("0", 1.0)]
    assert {"ReRankStartEvent", "ReRankEndEvent"} <= set(told)
    (passages,) = LlamaIndexRetriever(Fixed()).search([QUERY], 2)
    assert [(p.id, p.score) for p in passages] == [("0", 0.0), ("1", 0.1)]
    # The title stands apart; other metadata are where LlamaIndex shows them, and what it hides stays hidden.
    metadata = {"title": "Rain", "page": 3, "path": "secret"}
    node = TextNode(text=TEXTS[0], metadata=metadata, excluded_embed_metadata_keys=["path"])
    nodes[:] = [NodeWithScore(node=node, score=0.5)]
    ((found,),) = LlamaIndexRetriever(Fixed()).search([QUERY], 2)
    assert (found.title, found.text) == ("Rain", f"page: 3\n\n{TEXTS[0]}")
    assert node.excluded_embed_metadata_keys == ["path"]


def test_haystack_writes_the_component_and_reads_it_again() -> None:
    from haystack import Document

    from gainrag.integrations.haystack import GainRAGRanker

    ranker = GainRAGRanker(top_k=2)
    again = GainRAGRanker.from_dict(ranker.to_dict())
    assert (again.selector, again.top_k) == (ranker.selector, 2)
    documents = [Document(content=text, score=0.5) for text in TEXTS]
    found = again.run(query=QUERY, documents=documents)["documents"]
    assert found[0].content == TEXTS[1]
    assert len(found) == 2
    assert documents[1].score == 0.5
    assert len(again.run(query=QUERY, documents=documents, top_k=1)["documents"]) == 1


def test_rerankers_scores_one_document_and_many() -> None:
    from gainrag.integrations.rerankers import GainRAGRanker

    ranker = GainRAGRanker(OverlapSelector())
    assert ranker.score(QUERY, TEXTS[1]) == 4.0
    found = ranker.rank(QUERY, TEXTS)
    assert [(r.doc_id, r.score, r.rank) for r in found.results] == [(1, 4.0, 1), (0, 1.0, 2), (2, 0.0, 3)]
