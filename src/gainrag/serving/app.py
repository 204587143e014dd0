"""The routes. What they do is in the modules beside this one: bodies, wire, waiting, scoring, answering."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gainrag import __version__
from gainrag.errors import GainragError
from gainrag.protocols import BatchSelector
from gainrag.serving import openapi, page
from gainrag.serving.answering import Answerer, AnswerResponse, Wanted, read_answer_request
from gainrag.serving.bodies import Bodies
from gainrag.serving.keys import OPEN, is_allowed
from gainrag.serving.loaded import PROBE, Served, Shelf
from gainrag.serving.metrics import Metrics
from gainrag.serving.refusals import Refused, error_body, headers_for
from gainrag.serving.scoring import Ranked, score_together
from gainrag.serving.waiting import Job, Worker
from gainrag.serving.wire import Asked, answer_body, read_request

_log = logging.getLogger(__name__)
T = TypeVar("T")

# How long ago the scoring thread may have scored something to count as well without being asked, in seconds.
FRESH = 2.0
# Questions that may wait for an answer.
QUESTIONS = 32


@dataclass(frozen=True)
class Limits:
    """What one request, and all together, may take.

    documents, bytes: of one request.
    held: bytes of all requests that are being served.
    queue: passages that may wait.
    together: passages scored at a time.
    deadline: seconds until a request that got no result is given up.
    body: seconds in which a body must have come.
    """

    documents: int = 1000
    bytes: int = 2 << 20
    held: int = 128 << 20
    queue: int = 4096
    together: int = 256
    deadline: float = 30.0
    body: float = 10.0


def create_app(
    shelf: Shelf,
    answerer: Answerer | None = None,
    *,
    limits: Limits | None = None,
    keys: Sequence[str] = (),
    reload_seconds: float = 2.0,
) -> FastAPI:
    """The application. Its scoring thread starts with it and ends with its lifespan.

    Args:
        shelf: the selectors to serve.
        answerer: what answers questions; /answer says that there is none when it is left out.
        keys: what opens everything but /health and /ready; nothing is locked without any.
        reload_seconds: how often to look for changed selector folders.
    """
    limits = limits or Limits()
    bodies = Bodies(largest=limits.bytes, together=limits.held, within=limits.body)
    metrics = Metrics(lambda: float(scoring.waiting))
    shelf.tell(lambda name, well: metrics.reloads.labels(name, "served" if well else "refused").inc())

    def seen(jobs: Sequence[Job[Any, Any]], waited: Sequence[float]) -> None:
        for seconds in waited:
            metrics.queued.observe(seconds)
        metrics.batched.observe(len(jobs))
        metrics.batch.observe(sum(job.size for job in jobs))

    def score(asked: Sequence[tuple[Served, Asked]]) -> list[Ranked]:
        found = score_together(asked[0][0], [one for _, one in asked])
        metrics.tokenizing.observe(found[0].tokenizing)
        metrics.scoring.observe(found[0].scoring)
        return found

    scoring: Worker[tuple[Served, Asked], Ranked] = Worker(
        score, capacity=limits.queue, together=limits.together, unit="passages", seen=seen
    )
    answering: Worker[Wanted, AnswerResponse] | None = None
    if answerer is not None:
        answering = Worker(answerer.answer_each, capacity=QUESTIONS, together=1, unit="questions")

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        shelf.watch(reload_seconds)
        yield
        shelf.stop()
        for worker in (scoring, answering):
            if worker is not None:
                await asyncio.to_thread(worker.close)

    app = FastAPI(
        title="gainrag",
        version=__version__,
        description=openapi.DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    openapi.complete(app)

    def submit(served: Served, asked: Asked, *, first: bool = False) -> Future[Ranked]:
        # A selector that is not faster with several at a time has nothing to wait for.
        kind = served.name if isinstance(served.selector, BatchSelector) else None
        size = len(asked.passages)
        return scoring.submit((served, asked), kind=kind, size=size, within=limits.deadline, first=first)

    async def rerank(request: Request) -> Response:
        began = time.perf_counter()
        async with bodies.read(request) as body:
            asked = read_request(body, limits.documents)
            served, note = shelf.find(asked.model)
            queued = time.perf_counter()
            ranked = await _result(submit(served, asked), request, limits.deadline)
            metrics.cut.inc(ranked.cut)
            now = time.perf_counter()
            content = answer_body(
                asked,
                ranked.scores,
                model=served.name,
                bounded=ranked.bounded,
                tokens=ranked.tokens,
                notes=[*ranked.notes, *([note] if note else [])],
            )
            headers = {
                "x-truncated-documents": str(ranked.cut),
                "x-batch-passages": str(ranked.batch),
                "x-queue-time": _ms(now - queued - ranked.tokenizing - ranked.scoring),
                "x-tokenization-time": _ms(ranked.tokenizing),
                "x-inference-time": _ms(ranked.scoring),
                "x-total-time": _ms(time.perf_counter() - began),
            }
            return Response(content, media_type="application/json", headers=headers)

    for path in ("/rerank", "/v1/rerank", "/v2/rerank"):
        app.add_api_route(path, rerank, methods=["POST"], **openapi.rerank(path))

    @app.post("/answer", **openapi.answer())
    async def answer(request: Request) -> Response:
        async with bodies.read(request) as body:
            sent = read_answer_request(body)
        if answering is None:
            what = "this server has no index and no language model"
            raise Refused(404, what, hint="start it with --index and --llm")
        served, _ = shelf.find(sent.model)
        if sent.stream:
            return await _stream(answering, Wanted(sent, served), limits.deadline)
        job = answering.submit(Wanted(sent, served), kind=None, size=1, within=limits.deadline)
        # Writing takes as long as it takes; the deadline is for its beginning.
        found = await _result(job, request, None)
        return Response(msgspec.json.encode(found), media_type="application/json")

    @app.get("/health", **openapi.HEALTH)
    async def health() -> dict[str, str]:
        if time.monotonic() - scoring.done_at > FRESH:
            served, _ = shelf.find(None)
            query, passages = PROBE
            job = submit(served, _probe(query, passages), first=True)
            await _result(job, None, limits.deadline)
        if answering is not None and not answering.alive:
            raise Refused(503, "the answering thread has ended", hint="restart the server")
        return {"status": "ok"}

    @app.get("/ready", **openapi.READY)
    async def ready() -> dict[str, Any]:
        models = {
            served.name: {"loaded_at": served.loaded_at, **({"failure": served.failure} if served.failure else {})}
            for served in shelf.served.values()
        }
        return {"status": "ready", "models": models, "answers": answering is not None}

    @app.get("/metrics", **openapi.METRICS)
    async def show_metrics() -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    page.add_to(app)

    @app.exception_handler(GainragError)
    async def known(request: Request, error: GainragError) -> Response:
        if error.http_status in (408, 413, 429, 503):
            metrics.refused.labels(error_body(error.http_status, "")["error"]["code"]).inc()
        return _error(error)

    @app.exception_handler(HTTPException)
    async def of_http(request: Request, error: HTTPException) -> Response:
        refused = Refused(error.status_code, f"{request.method} {request.url.path}: {error.detail}")
        return _error(refused, dict(error.headers or {}))

    app.add_middleware(_Gate, keys=keys, metrics=metrics)
    return app


def _probe(query: str, passages: Any) -> Asked:
    return Asked(query, list(passages), None, len(passages), False, None, False, False, True)


async def _result(job: Future[T], request: Request | None, within: float | None) -> T:
    """A job's result; given up where the client goes away, or none is there in time.

    Raises:
        Refused: 499 or 503; 500 for what nobody foresaw.
        GainragError: the job's own.
    """
    future = asyncio.wrap_future(job)
    gone = asyncio.create_task(_gone(request)) if request is not None else None
    try:
        waited: set[asyncio.Future[Any]] = {future, gone} if gone is not None else {future}
        await asyncio.wait(waited, timeout=within, return_when=asyncio.FIRST_COMPLETED)
        if future.done():
            return _outcome(future)
        if gone is not None and gone.done():
            raise Refused(499, "the client went away")
        raise Refused(503, f"no result within {within:g} s", hint="send fewer documents", retry_after=1)
    finally:
        future.cancel()
        if gone is not None:
            gone.cancel()


def _outcome(future: asyncio.Future[T]) -> T:
    try:
        return future.result()
    except GainragError:
        raise
    except MemoryError:
        raise Refused(503, "out of memory", hint="send fewer or shorter documents", retry_after=5) from None
    except Exception as error:
        _log.error("a request failed", exc_info=error)
        if "out of memory" in str(error).lower():
            raise Refused(503, "out of memory", hint="send fewer or shorter documents", retry_after=5) from None
        raise Refused(500, f"the request failed: {type(error).__name__}") from None


async def _gone(request: Request) -> None:
    """Ends when the client goes away; the body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _stream(worker: Worker[Wanted, AnswerResponse], wanted: Wanted, within: float) -> StreamingResponse:
    """Server-sent events: a step's name with its passages as each is done, and `result`, or `error`, as the last."""
    loop, events = asyncio.get_running_loop(), asyncio.Queue[tuple[str, Any] | None]()

    def put(event: str, data: Any) -> None:
        loop.call_soon_threadsafe(events.put_nowait, (event, data))

    job = worker.submit(Wanted(wanted.request, wanted.served, put), kind=None, size=1, within=within)
    future = asyncio.wrap_future(job)
    future.add_done_callback(lambda _: events.put_nowait(None))

    async def send() -> AsyncIterator[bytes]:
        try:
            while (event := await events.get()) is not None:
                yield _event(*event)
            try:
                yield _event("result", _outcome(future))
            except GainragError as error:
                yield _event("error", error_body(error.http_status, str(error)))
        finally:
            future.cancel()

    return StreamingResponse(send(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})


def _event(name: str, data: Any) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + msgspec.json.encode(data) + b"\n\n"


def _ms(seconds: float) -> str:
    return f"{1000 * max(0.0, seconds):.2f}"


def _error(error: GainragError, more: dict[str, str] | None = None) -> JSONResponse:
    body = error_body(error.http_status, str(error))
    return JSONResponse(body, error.http_status, headers={**(more or {}), **headers_for(error)})


class _Gate:
    """What every request passes: the key; it is counted and timed; and what nobody foresaw becomes an answer."""

    def __init__(self, app: ASGIApp, keys: Sequence[str], metrics: Metrics) -> None:
        self.app, self.keys, self.metrics = app, list(keys), metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.perf_counter(), 0

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            if scope["path"] not in OPEN and not is_allowed(_header(scope, b"authorization"), self.keys):
                refused = Refused(401, "no valid key", hint="send it as `Authorization: Bearer KEY`")
                await _error(refused)(scope, receive, noted)
                return
            try:
                await self.app(scope, receive, noted)
            except Exception as error:
                _log.error("%s %s failed", scope["method"], scope["path"], exc_info=error)
                if not status:
                    await _error(Refused(500, f"the request failed: {type(error).__name__}"))(scope, receive, noted)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self.metrics.requests.labels(route, str(status)).inc()
            self.metrics.seconds.labels(route).observe(time.perf_counter() - began)


def _header(scope: Scope, name: bytes) -> str | None:
    for key, value in scope["headers"]:
        if key == name:
            with suppress(UnicodeDecodeError):
                return str(value.decode("utf-8"))
    return None


