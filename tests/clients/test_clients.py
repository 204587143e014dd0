"""Every client of others that a rerank service meets, itself: the right order, the right errors, and patience."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.clients.conftest import KEY, Busy

QUERY = "Which river flows through Paris?"
DOCUMENTS = [
    "Bread is baked of flour, water and salt.",
    "The Seine is a river that flows through Paris and into the Channel.",
    "Rain falls on London in winter.",
]
BEST = 1


def cohere_v1(url: str, key: str) -> list[int]:
    import cohere

    client = cohere.Client(key, base_url=url)
    found = client.rerank(query=QUERY, documents=DOCUMENTS, model="rerank-v3.5", top_n=2, return_documents=True)
    assert found.results[0].document is not None
    assert found.results[0].document.text == DOCUMENTS[BEST]
    return [result.index for result in found.results]


def cohere_v2(url: str, key: str) -> list[int]:
    import cohere

    client = cohere.ClientV2(key, base_url=url)
    found = client.rerank(query=QUERY, documents=DOCUMENTS, model="rerank-v3.5", top_n=2)
    assert all(0 <= result.relevance_score <= 1 for result in found.results)
    assert found.meta is not None
    return [result.index for result in found.results]


def langchain_cohere(url: str, key: str) -> list[int]:
    from langchain_cohere import CohereRerank
    from langchain_core.documents import Document

    compressor = CohereRerank(base_url=url, cohere_api_key=key, model="rerank-v3.5", top_n=2)
    documents = [Document(page_content=text, metadata={"n": n}) for n, text in enumerate(DOCUMENTS)]
    found = compressor.compress_documents(documents, QUERY)
    assert found[0].metadata["relevance_score"] > found[1].metadata["relevance_score"]
    return [document.metadata["n"] for document in found]


def llama_nodes() -> list[Any]:
    from llama_index.core.schema import NodeWithScore, TextNode

    return [NodeWithScore(node=TextNode(text=text, id_=str(n)), score=0.5) for n, text in enumerate(DOCUMENTS)]


def llama_cohere(url: str, key: str) -> list[int]:
    from llama_index.postprocessor.cohere_rerank import CohereRerank

    ranker = CohereRerank(top_n=2, api_key=key, base_url=url, max_retries=1)
    return [int(node.node.node_id) for node in ranker.postprocess_nodes(llama_nodes(), query_str=QUERY)]


def llama_jina(url: str, key: str) -> list[int]:
    from llama_index.postprocessor.jinaai_rerank import JinaRerank

    ranker = JinaRerank(top_n=2, api_key=key, base_url=f"{url}/v1")
    return [int(node.node.node_id) for node in ranker.postprocess_nodes(llama_nodes(), query_str=QUERY)]


def llama_tei(url: str, key: str) -> list[int]:
    from llama_index.postprocessor.tei_rerank import TextEmbeddingInference

    ranker = TextEmbeddingInference(top_n=2, base_url=url, auth_token=f"Bearer {key}")
    return [int(node.node.node_id) for node in ranker.postprocess_nodes(llama_nodes(), query_str=QUERY)]


def haystack_documents() -> list[Any]:
    from haystack import Document

    return [Document(id=str(n), content=text, score=0.5) for n, text in enumerate(DOCUMENTS)]


def haystack_cohere(url: str, key: str) -> list[int]:
    from haystack.utils import Secret
    from haystack_integrations.components.rankers.cohere import CohereRanker

    ranker = CohereRanker(api_key=Secret.from_token(key), api_base_url=url, top_k=2)
    return [int(document.id) for document in ranker.run(QUERY, haystack_documents())["documents"]]


def haystack_jina(url: str, key: str) -> list[int]:
    from haystack.utils import Secret
    from haystack_integrations.components.rankers.jina import JinaRanker

    ranker = JinaRanker(api_key=Secret.from_token(key), top_k=2, base_url=f"{url}/v1/rerank")
    found = ranker.run(QUERY, haystack_documents())
    assert found["meta"]["model"] == "gain-features"
    return [int(document.id) for document in found["documents"]]


def haystack_vllm(url: str, key: str) -> list[int]:
    from haystack.utils import Secret
    from haystack_integrations.components.rankers.vllm import VLLMRanker

    ranker = VLLMRanker(model="any", api_key=Secret.from_token(key), api_base_url=f"{url}/v1", top_k=2)
    return [int(document.id) for document in ranker.run(QUERY, haystack_documents())["documents"]]


def haystack_tei(url: str, key: str) -> list[int]:
    from haystack.utils import Secret
    from haystack_integrations.components.rankers.huggingface_api import HuggingFaceTEIRanker

    ranker = HuggingFaceTEIRanker(url=url, top_k=2, token=Secret.from_token(key))
    return [int(document.id) for document in ranker.run(query=QUERY, documents=haystack_documents())["documents"]]


def lite(provider: str, path: str) -> Callable[[str, str], list[int]]:
    def ask(url: str, key: str) -> list[int]:
        import litellm

        found = litellm.rerank(
            model=f"{provider}/any",
            query=QUERY,
            documents=DOCUMENTS,
            top_n=2,
            api_base=f"{url}{path}",
            api_key=key,
            max_retries=3,
        )
        return [result["index"] for result in found.results or []][:2]

    return ask


def rerankers(provider: str, path: str) -> Callable[[str, str], list[int]]:
    def ask(url: str, key: str) -> list[int]:
        from rerankers.models.api_rankers import APIRanker

        ranker = APIRanker("any", key, provider, url=f"{url}{path}")
        return [result.doc_id for result in ranker.rank(QUERY, DOCUMENTS).results][:2]

    return ask


CLIENTS: dict[str, Callable[[str, str], list[int]]] = {
    "cohere v1": cohere_v1,
    "cohere v2": cohere_v2,
    "langchain-cohere": langchain_cohere,
    "LlamaIndex Cohere": llama_cohere,
    "LlamaIndex Jina": llama_jina,
    "LlamaIndex TEI": llama_tei,
    "Haystack Cohere": haystack_cohere,
    "Haystack Jina": haystack_jina,
    "Haystack vLLM": haystack_vllm,
    "Haystack TEI": haystack_tei,
    "LiteLLM cohere": lite("cohere", "/v2/rerank"),
    "LiteLLM jina_ai": lite("jina_ai", "/v1/rerank"),
    "LiteLLM hosted_vllm": lite("hosted_vllm", ""),
    "LiteLLM huggingface": lite("huggingface", ""),
    "rerankers cohere": rerankers("cohere", "/v1/rerank"),
    "rerankers jina": rerankers("jina", "/v1/rerank"),
    "rerankers TEI": rerankers("text-embeddings-inference", "/rerank"),
}


@pytest.mark.parametrize("name", CLIENTS)
def test_the_best_document_comes_first(url: str, name: str) -> None:
    found = CLIENTS[name](url, KEY)
    assert len(found) == 2
    assert found[0] == BEST


# What a client makes of an error where it neither says the sentence nor the status: it looks for results at once.
BLIND = {
    "LlamaIndex TEI": "string indices|^$",
    "rerankers cohere": "results",
    "rerankers jina": "results",
    "rerankers TEI": "string indices",
}


@pytest.mark.parametrize("name", CLIENTS)
def test_a_wrong_key_is_an_error_and_no_result(url: str, name: str) -> None:
    with pytest.raises(Exception, match=BLIND.get(name, "no valid key|401 Unauthorized")):
        CLIENTS[name](url, "another")


# The clients that come back of themselves when they are told that the queue is full.
PATIENT = ["cohere v1", "cohere v2", "langchain-cohere", "LlamaIndex Cohere", "Haystack Cohere", "Haystack TEI"]


@pytest.mark.parametrize("name", CLIENTS)
def test_a_full_queue_is_waited_out_or_said(busy: Busy, name: str) -> None:
    busy.full(1)
    if name in PATIENT:
        assert CLIENTS[name](busy.url, KEY)[0] == BEST
        assert busy.asked == 2
        return
    with pytest.raises(Exception, match=BLIND.get(name, "the queue is full")):
        CLIENTS[name](busy.url, KEY)
    assert busy.asked == 1
