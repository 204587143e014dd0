"""What /openapi.json says of the routes: the wire's own types, and examples that can be sent as they are."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import FastAPI

from gainrag.serving.answering import AnswerRequest, AnswerResponse
from gainrag.serving.wire import RerankRequest, RerankResponse, TextResult

DESCRIPTION = (
    "Ranks passages by how much they help a language model to the right answer. The rerank routes are those that "
    "clients of Cohere, Jina, vLLM and Text Embeddings Inference call."
)
_REF = "#/components/schemas/{name}"
_TYPES = (RerankRequest, RerankResponse, TextResult, AnswerRequest, AnswerResponse)

_RERANK = {
    "strings": {
        "summary": "Documents as strings",
        "value": {
            "query": "Which river flows through Paris?",
            "documents": ["Rain falls on Paris in winter.", "The Seine is a river that flows through Paris."],
            "top_n": 1,
            "return_documents": True,
        },
    },
    "scores": {
        "summary": "Documents with what the retriever gave them",
        "value": {
            "query": "Which river flows through Paris?",
            "documents": [
                {"text": "Rain falls on Paris in winter.", "title": "Weather", "score": 11.2},
                {"text": "The Seine flows through Paris.", "title": "Seine", "score": 10.9},
            ],
        },
    },
    "texts": {
        "summary": "As Text Embeddings Inference has it",
        "value": {"query": "Which river?", "texts": ["Rain falls.", "The Seine is a river."], "raw_scores": False},
    },
}
_ANSWER = {
    "question": {"summary": "A question", "value": {"question": "Which river flows through Paris?"}},
    "compare": {
        "summary": "With what shows whether the passage helped",
        "value": {"question": "Which river flows through Paris?", "answers": ["Seine"], "without": True},
    },
}
_ERRORS = {
    400: "The body is no JSON in UTF-8.",
    401: "There is no valid key.",
    404: "There is no such model, or no such route here.",
    408: "The body did not come in time.",
    413: "The body, or the number of documents, is too large; or a text is, and `truncate` is false.",
    422: "The body is of another shape.",
    429: "The queue is full. Retry-After says when to come back.",
    500: "The request failed.",
    503: "No result in time, or the server is stopping. Retry-After says when to come back.",
}


def rerank(path: str) -> dict[str, Any]:
    """Of a rerank route."""
    either = {"oneOf": [_ref("RerankResponse"), {"type": "array", "items": _ref("TextResult")}]}
    return _post(
        "Rank documents by how much they help",
        "Every document comes back, or the top_n best, best first. `texts` in place of `documents` is answered by a "
        "plain list.",
        operation=path.strip("/").replace("/", "_"),
        request=("RerankRequest", _RERANK),
        success={"application/json": {"schema": either}},
    )


def answer() -> dict[str, Any]:
    """Of the answering route."""
    events = "Server-sent events: retrieved, written, selected, answered, then result or error."
    return _post(
        "Answer a question from the index",
        "With `stream` the steps come as server-sent events, and the response as the last.",
        operation="answer",
        request=("AnswerRequest", _ANSWER),
        success={
            "application/json": {"schema": _ref("AnswerResponse")},
            "text/event-stream": {"schema": {"type": "string", "description": events}},
        },
    )


def _ref(name: str) -> dict[str, str]:
    return {"$ref": _REF.format(name=name)}


def _post(
    summary: str, description: str, *, operation: str, request: tuple[str, dict[str, Any]], success: dict[str, Any]
) -> dict[str, Any]:
    kind, examples = request
    body = {"required": True, "content": {"application/json": {"schema": _ref(kind), "examples": examples}}}
    return {
        "summary": summary,
        "description": description,
        "operation_id": operation,
        "response_model": None,
        "responses": {200: {"description": "Done.", "content": success}, **_errors()},
        "openapi_extra": {"requestBody": body},
    }


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {
        status: {"description": text, "content": {"application/json": {"schema": _ref("Error")}}}
        for status, text in _ERRORS.items()
        if not statuses or status in statuses
    }


def _get(summary: str, kind: str, *errors: int) -> dict[str, Any]:
    content = {kind: {"schema": {"type": "object" if kind.endswith("json") else "string"}}}
    responses = {200: {"description": "Done.", "content": content}, **_errors(*errors)}
    return {"summary": summary, "response_model": None, "responses": responses}


HEALTH = _get("Whether the model works: it is tried", "application/json", 503)
READY = _get("Which selectors are served", "application/json", 503)
METRICS = _get("Figures for Prometheus", "text/plain", 401)

_ERROR = {
    "type": "object",
    "description": "One sentence, where every client looks for it.",
    "required": ["detail", "message", "error"],
    "properties": {
        "detail": {"type": "string"},
        "message": {"type": "string"},
        "error": {
            "type": "object",
            "properties": {name: {"type": "string"} for name in ("message", "type", "code")},
        },
    },
}


def complete(app: FastAPI) -> None:
    """Put the types of the wire, and the key, into an application's OpenAPI."""
    plain = app.openapi

    def whole() -> dict[str, Any]:
        if app.openapi_schema is None:
            found = plain()
            _, schemas = msgspec.json.schema_components(_TYPES, ref_template=_REF)
            components = found.setdefault("components", {})
            components.setdefault("schemas", {}).update({**schemas, "Error": _ERROR})
            components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            found["security"] = [{"key": []}, {}]
        return dict(app.openapi_schema or {})

    app.openapi = whole  # type: ignore[method-assign]  # FastAPI's documented way
