"""What goes over the wire: the bodies that clients send, and the answers that they understand.

One shape of request serves the clients of Cohere, Jina, vLLM and the frameworks; `texts` in place of `documents` is
Text Embeddings Inference's. Keys that are not named here are ignored, as every one of those services does.
"""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from gainrag.protocols import FloatArray
from gainrag.records import Origin, Scored
from gainrag.selection import top
from gainrag.serving.refusals import Refused

# The longest query that is read, in characters; what follows is cut. Far above all questions, and far below what would
# make the features of a thousand documents slow.
QUERY = 4096


class Document(msgspec.Struct):
    """A document to rank; the retrievers' scores make a selector that was trained with them whole.

    score: what the retriever gave it.
    scores: what each of several retrievers gave it, by name.
    origin: "generated" marks a passage that the language model wrote itself.
    """

    text: str
    title: str | None = None
    id: str | int | None = None
    score: float | None = None
    scores: dict[str, float] | None = None
    origin: Origin | None = None


class RerankRequest(msgspec.Struct):
    """A query and documents to rank.

    model: the name of a served selector; the only one, or the first, when left out.
    top_n: how many results to return; all when left out.
    return_documents: whether results carry their text.
    max_tokens_per_doc: cut every document to so many tokens.
    raw_scores: give the selector's own score in place of its sigmoid.
    texts: in place of documents, as Text Embeddings Inference has it; `truncate` and `return_text` are of that form.
    """

    query: str
    documents: list[str | Document] | None = None
    model: str | None = None
    top_n: int | None = None
    return_documents: bool | str | None = None
    max_tokens_per_doc: int | None = None
    raw_scores: bool | None = None
    texts: list[str] | None = None
    truncate: bool | None = None
    return_text: bool | None = None


class ResultDocument(msgspec.Struct):
    """The document of a result."""

    text: str


class Result(msgspec.Struct, omit_defaults=True):
    """A document's place in the ranking.

    index: where it stands in the request, from 0.
    relevance_score: from 0 to 1, higher is better; with raw_scores the selector's own.
    """

    index: int
    relevance_score: float
    document: ResultDocument | msgspec.UnsetType = msgspec.UNSET


class Usage(msgspec.Struct):
    """How many tokens were read."""

    prompt_tokens: int
    total_tokens: int


class RerankResponse(msgspec.Struct):
    """Every document, or the top_n best, best first."""

    id: str
    object: str
    created: int
    model: str
    results: list[Result]
    usage: Usage
    meta: dict[str, Any]


class TextResult(msgspec.Struct, omit_defaults=True):
    """A text's place in the ranking, as Text Embeddings Inference has it."""

    index: int
    score: float
    text: str | msgspec.UnsetType = msgspec.UNSET


class Asked(msgspec.Struct, frozen=True):
    """What a request asks for, checked.

    plain: whether `texts` were sent, which are answered by a plain list.
    truncate: whether texts that are too long are cut; else they are refused.
    notes: what was done to the request that its sender may not expect.
    """

    query: str
    passages: list[Scored]
    model: str | None
    top_n: int
    with_text: bool
    max_tokens: int | None
    raw: bool
    plain: bool
    truncate: bool
    notes: tuple[str, ...] = ()


def decode(body: bytes, kind: type[Any]) -> Any:
    """A body as a type.

    Raises:
        Refused: 400 where it is no JSON in UTF-8, 422 where it is of another shape.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise Refused(422, str(error).replace(" - at `$.", " at `")) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(400, f"the body is no JSON in UTF-8: {error}") from None


def read_request(body: bytes, max_documents: int) -> Asked:
    """What a body asks for.

    Raises:
        Refused: 400, 413 (too many documents) or 422.
    """
    sent: RerankRequest = decode(body, RerankRequest)
    given = sent.documents if sent.documents is not None else sent.texts
    if given is None:
        raise Refused(422, "the request has no `documents`", hint="send a list of strings or of objects with `text`")
    if not given:
        raise Refused(422, "`documents` is empty", hint="send at least one")
    if len(given) > max_documents:
        what = f"{len(given)} documents are more than the {max_documents} that one request may have"
        raise Refused(413, what, hint="send fewer, or in several requests")
    if not sent.query.strip():
        raise Refused(422, "`query` is blank", hint="send the question")
    for name, number in (("top_n", sent.top_n), ("max_tokens_per_doc", sent.max_tokens_per_doc)):
        if number is not None and number < 1:
            raise Refused(422, f"`{name}` is {number}, not 1 or more", hint="leave it out for all")
    notes = []
    if len(sent.query) > QUERY:
        notes.append(f"the query was cut to its first {QUERY} characters")
    plain = sent.documents is None
    return Asked(
        query=sent.query[:QUERY],
        passages=[_passage(i, document) for i, document in enumerate(given)],
        model=sent.model or None,
        top_n=min(sent.top_n or len(given), len(given)),
        with_text=bool(sent.return_text) if plain else _flag("return_documents", sent.return_documents),
        max_tokens=sent.max_tokens_per_doc,
        raw=bool(sent.raw_scores),
        plain=plain,
        truncate=sent.truncate is not False,
        notes=tuple(notes),
    )


def _flag(name: str, value: bool | str | None) -> bool:
    """A truth value that some clients send as a word."""
    if not isinstance(value, str):
        return bool(value)
    if value.lower() not in ("true", "false"):
        raise Refused(422, f"`{name}` is {value!r:.40}, not true or false")
    return value.lower() == "true"


def _passage(index: int, document: str | Document) -> Scored:
    if isinstance(document, str):
        return Scored(id=str(index), text=document)
    scores = [document.score, *(document.scores or {}).values()]
    if not all(math.isfinite(score) for score in scores if score is not None):
        raise Refused(422, "a score is not finite", where=f"documents[{index}]")
    return Scored(
        id=str(index) if document.id is None else str(document.id),
        title=document.title or "",
        text=document.text,
        origin=document.origin or "corpus",
        score=document.score,
        scores=document.scores,
    )


def sigmoid(scores: FloatArray) -> FloatArray:
    """1 / (1 + exp(-score)) in float64, without overflow."""
    return np.exp(-np.logaddexp(0.0, -np.asarray(scores, dtype=np.float64)))


def answer_body(
    asked: Asked, scores: FloatArray, *, model: str, bounded: bool, tokens: int, notes: Sequence[str]
) -> bytes:
    """The response: results best first, of equals the earlier one.

    Args:
        scores: the selector's own, one a passage.
        bounded: they lie between 0 and 1 already.
        tokens: how many were read.
        notes: what the sender may not expect.
    """
    shown = scores if asked.raw or bounded else sigmoid(scores)
    order = top(scores, asked.top_n)
    if asked.plain:
        texts = [TextResult(index=i, score=float(shown[i])) for i in order]
        for result in texts if asked.with_text else ():
            result.text = asked.passages[result.index].text
        return msgspec.json.encode(texts)
    results = [Result(index=i, relevance_score=float(shown[i])) for i in order]
    for found in results if asked.with_text else ():
        found.document = ResultDocument(text=asked.passages[found.index].text)
    meta: dict[str, Any] = {
        "api_version": {"version": "2"},
        "billed_units": {"search_units": 1},
        "tokens": {"input_tokens": tokens, "output_tokens": 0},
    }
    if said := [*asked.notes, *notes]:
        meta["warnings"] = said
    return msgspec.json.encode(
        RerankResponse(
            id=f"rerank-{uuid.uuid4()}",
            object="list",
            created=int(time.time()),
            model=model,
            results=results,
            usage=Usage(prompt_tokens=tokens, total_tokens=tokens),
            meta=meta,
        )
    )
