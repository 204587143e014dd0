"""POST /answer: retrieve, select, answer; and, where asked for, the answer without a passage, and true gains."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from gainrag.answering import generate_answers
from gainrag.gain import best_loss, gain_from_loss
from gainrag.inference import GainRAG
from gainrag.protocols import Generator, Retriever, Scorer, losses_with, name_of
from gainrag.records import Origin, Retrieved, Scored
from gainrag.serving.loaded import Served
from gainrag.serving.refusals import Refused
from gainrag.serving.wire import QUERY, decode
from gainrag.synthesis.labelling import scoring_request, with_nothing_last

# Candidates whose true gain is measured where an answer is known, the best ones: each costs a pass of the model.
MEASURED = 10


class AnswerRequest(msgspec.Struct):
    """A question to answer from the served index.

    answers: gold answers, where they are known: the best candidates' true gains are then measured.
    without: also answer without a passage, to compare.
    stream: send server-sent events, one a step, and the whole response as the last.
    model: the name of a served selector.
    """

    question: str
    answers: list[str] | None = None
    without: bool | None = None
    stream: bool | None = None
    model: str | None = None


class Candidate(msgspec.Struct):
    """A passage that may have been read.

    score: the selector's, higher is better.
    retrieval_score, retrieval_rank: the retriever's, the rank from 1; null of the pseudo-passage.
    gain: how much it helps the language model to the right answer, where that was measured.
    """

    id: str
    title: str
    text: str
    origin: Origin
    score: float | None
    retrieval_score: float | None = None
    retrieval_rank: int | None = None
    gain: float | None = None


class AnswerResponse(msgspec.Struct):
    """An answer with what it rests on.

    model, llm: the selector and the language model.
    passages: what was read, best first.
    candidates: what might have been read, best first.
    pseudo_skipped: the model's own passage was not written, as a retrieved one scored high enough.
    answer_without: what the model answers without a passage.
    gain_without: the gain of no passage: where a candidate's is higher, the passage helps.
    timings: seconds by step.
    """

    id: str
    created: int
    model: str
    llm: str
    answer: str
    passages: list[Candidate]
    candidates: list[Candidate]
    pseudo_skipped: bool
    timings: dict[str, float]
    answer_without: str | None = None
    gain_without: float | None = None
    warnings: list[str] = msgspec.field(default_factory=list)


@dataclass(frozen=True)
class Wanted:
    """A request that waits for its answer: with whose selector, and whom to tell of each step."""

    request: AnswerRequest
    served: Served
    tell: Callable[[str, Any], None] | None = None


def read_answer_request(body: bytes) -> AnswerRequest:
    """What a body asks for.

    Raises:
        Refused: 400 or 422.
    """
    sent: AnswerRequest = decode(body, AnswerRequest)
    if not sent.question.strip():
        raise Refused(422, "`question` is blank", hint="send a question")
    if len(sent.question) > QUERY:
        raise Refused(422, f"`question` has {len(sent.question)} characters, {QUERY} may be", hint="shorten it")
    if sent.answers is not None and not all(answer.strip() for answer in sent.answers):
        raise Refused(422, "an answer is blank", where="answers", hint="leave it out")
    return sent


class Answerer:
    """Answers questions from one index with one language model, by whatever selector is served.

    Args:
        settings: of `GainRAG`.
    """

    def __init__(self, retriever: Retriever, llm: Generator, **settings: Any) -> None:
        self.retriever, self.llm, self.settings = retriever, llm, settings

    def answer_each(self, wanted: Sequence[Wanted]) -> list[AnswerResponse]:
        """One response for each request."""
        return [self.answer(one) for one in wanted]

    def answer(self, wanted: Wanted) -> AnswerResponse:
        """Answer one request.

        Raises:
            GainragError: as `GainRAG.answer`.
        """
        request, served = wanted.request, wanted.served
        rag = GainRAG(self.retriever, served.selector, self.llm, **self.settings)

        def tell(step: str, passages: Sequence[Scored]) -> None:
            if wanted.tell is not None:
                wanted.tell(step, [_candidate(p, {}) for p in passages])

        found = rag.answer(request.question, tell=tell)
        places = {p.id: (place, p.score) for place, p in enumerate(found.retrieved, 1)}
        candidates = [_candidate(passage, places) for passage in found.candidates]
        response = AnswerResponse(
            id=f"answer-{uuid.uuid4()}",
            created=int(time.time()),
            model=served.name,
            llm=name_of(self.llm),
            answer=found.answer,
            passages=candidates[: len(found.passages)],
            candidates=candidates,
            pseudo_skipped=found.pseudo_skipped,
            timings=found.seconds,
        )
        if request.without:
            began = time.perf_counter()
            prompt = rag.prompts.without(request.question)
            response.answer_without = generate_answers(self.llm, rag.prompts, [prompt], rag.max_new_tokens)[0]
            response.timings["answered_without"] = time.perf_counter() - began
        if request.answers:
            began = time.perf_counter()
            self._measure(rag, request, found.candidates, response)
            response.timings["measured"] = time.perf_counter() - began
        return response

    def _measure(
        self, rag: GainRAG, request: AnswerRequest, passages: Sequence[Scored], response: AnswerResponse
    ) -> None:
        """Put the true gains of the best candidates into a response."""
        if not isinstance(self.llm, Scorer):
            response.warnings.append(f"{response.llm} gives no probabilities, so gains cannot be measured")
            return
        record = Retrieved(
            id="question", question=request.question, answers=request.answers or [], ctxs=list(passages[:MEASURED])
        )
        asked = with_nothing_last(scoring_request(rag.prompts, record))
        losses = losses_with(self.llm, [asked], [0.0])[0]
        gains = gain_from_loss(best_loss(losses)[:, 0])
        for candidate, gain in zip(response.candidates, gains[:-1], strict=False):
            candidate.gain = float(gain)
        response.gain_without = float(gains[-1])


def _candidate(passage: Scored, places: dict[str, tuple[int, float | None]]) -> Candidate:
    place, score = places.get(passage.id, (None, None))
    return Candidate(
        id=passage.id,
        title=passage.title,
        text=passage.text,
        origin=passage.origin,
        score=passage.score,
        retrieval_score=score,
        retrieval_rank=place,
    )
