"""The playground: one page and its script and style, served from the package and nothing else."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response

from gainrag.ingestion import read_passages, read_questions

_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/playground.js": ("playground.js", "text/javascript; charset=utf-8"),
    "/playground.css": ("playground.css", "text/css; charset=utf-8"),
}
_HEADERS = {
    # Nothing from elsewhere is loaded, and no page of others shows this one.
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
# Questions of the demo that show something: what retrieval puts first misleads, or only hints.
EXAMPLES = 5


def add_to(app: FastAPI) -> None:
    """Add the page's routes to an application."""

    def route(path: str, name: str, kind: str) -> None:
        @app.get(path, include_in_schema=False)
        def show() -> Response:
            return Response(_content(name), media_type=kind, headers=_HEADERS)

    for path, (name, kind) in _FILES.items():
        route(path, name, kind)

    @app.get("/examples", include_in_schema=False)
    def examples() -> Response:
        return JSONResponse(_examples(), headers={"Cache-Control": "no-cache"})


@cache
def _content(name: str) -> bytes:
    return (files("gainrag.serving") / "playground" / name).read_bytes()


@cache
def _examples() -> list[dict[str, Any]]:
    """Questions with the passages that tempt, hint and answer, in that order: what a poor retriever might return."""
    folder = files("gainrag") / "demo"
    passages = {passage.id: passage for passage in read_passages(str(folder / "corpus.jsonl"))}
    found = []
    for question in read_questions(str(folder / "test.jsonl"), need_answers=True):
        kinds = [question.extra.get(kind, []) for kind in ("near", "mislead", "hint", "outright")]
        if not all(kinds):
            continue
        ids = list(dict.fromkeys(id for kind in kinds for id in kind))
        shown = [{"title": passages[id].title, "text": passages[id].text} for id in ids]
        found.append({"question": question.question, "answers": question.answers, "passages": shown})
    step = max(1, len(found) // EXAMPLES)
    return list(msgspec.to_builtins(found[::step][:EXAMPLES]))
