"""The model writes a question on a passage; its words, retrieval, the gain of its passage and the model's own answer
tell what is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec
import numpy as np

from gainrag.gain import choice_gain
from gainrag.metrics import contains, has_answer, normalise
from gainrag.prompts import Prompts
from gainrag.protocols import (
    FloatArray,
    Retriever,
    ScorerGenerator,
    ScoringRequest,
    continue_with,
    losses_with,
    search_with,
)
from gainrag.records import Passage, Retrieved

YES_NO = ["yes", "no"]
# Words of a short answer.
_LONGEST = 8
# Reasons after which the model's own short answer is tried.
_TOO_LONG, _ELSEWHERE = f"answer of more than {_LONGEST} words", "answer not in the passage"
# Tokens of a question with its answer, and of an answer.
_WRITTEN, _ANSWERED = 80, 16
# What shows a question that nobody would ask who does not see the passage.
_POINTS = re.compile(
    r"\b(?:the|this|these|that|above|following|given|last) "
    r"(?:passage|text|paragraph|section|excerpt|document|article|example)s?\b"
    r"|\baccording to the\b|\bmentioned\b"
    r"|\b(?:this|that|these|those|it|here)\s*\?$",
    re.IGNORECASE,
)
_ANSWER = re.compile(r"^\s*(?:Question:\s*)?(.+?\?)\s*Answer:\s*(.+?)\s*(?:\n|$)", re.DOTALL)
# What a chat model sets off the words of its lines with.
_BOLD = re.compile(r"\*\*")


def parse(text: str) -> tuple[str, str] | None:
    """(question, answer) in what the model wrote behind "Question:"; None where there are no such.

    >>> parse(" Who published Emma?\\nAnswer: John Murray\\n\\nPassage: ..")
    ('Who published Emma?', 'John Murray')
    """
    found = _ANSWER.match(_BOLD.sub("", text))
    if found is None or "\n\n" in found[1].strip():
        return None
    return " ".join(found[1].split()), _bare(found[2])


def _bare(answer: str) -> str:
    """An answer without the quotes around it and the full stop behind it."""
    return answer.strip().strip("\"'").rstrip(".")


def _share_in(some: str, text: str) -> float:
    """The share of some words that stand in a text; 0 of none."""
    words, others = normalise(some).split(), normalise(text).split()
    return sum(word in others for word in words) / len(words) if words else 0.0


class Writer:
    """Writes questions for drawn passages and says of each why it is rejected, if it is."""

    def __init__(self, lm: ScorerGenerator, retriever: Retriever, prompts: Prompts, k: int, least: float) -> None:
        self.lm, self._retriever, self._prompts, self._k, self._least = lm, retriever, prompts, k, least

    def write(self, part: Sequence[Retrieved]) -> list[Retrieved]:
        """The drawn records with their questions; a rejected one has the reason as `rejected`."""
        requests = [self._prompts.to_ask(drawn.extra["kind"], drawn.ctxs, reserve=_WRITTEN) for drawn in part]
        texts = continue_with(self.lm, requests, _WRITTEN)
        made = [_read(drawn, text) for drawn, text in zip(part, texts, strict=True)]
        self._shorten([record for record in made if record.extra.get("rejected") in (_TOO_LONG, _ELSEWHERE)])
        self._must_be_found(_open(made))
        self._must_help(_open(made))
        self._must_be_answered(_open(made))
        return made

    def _shorten(self, records: Sequence[Retrieved]) -> None:
        """Open those again whose passage gives a short answer that says what the written one says."""
        for record, answer in zip(records, self._answers(records), strict=True):
            written, short = record.answers[0], _bare(answer)
            shorter = msgspec.structs.replace(record, answers=[short])
            if short and _share_in(short, written) > 0.5 and _fault(shorter, parsed=True) is None:
                record.answers = [short]
                record.extra["answer_written"] = written
                del record.extra["rejected"]

    def _must_be_found(self, records: Sequence[Retrieved]) -> None:
        found = search_with(self._retriever, [record.question for record in records], self._k) if records else []
        for record, ranked in zip(records, found, strict=True):
            ids = [passage.id for passage in ranked]
            if not all(passage.id in ids for passage in record.ctxs):
                record.extra["rejected"] = f"not found again among the first {self._k}"

    def _must_help(self, records: Sequence[Retrieved]) -> None:
        """Losses with all passages, with each alone where there are two, and with none."""
        requests = []
        for record in records:
            sets = [record.ctxs, *([[ctx] for ctx in record.ctxs] if len(record.ctxs) > 1 else [])]
            nothing = self._prompts.without(record.question)
            requests.append(
                ScoringRequest(
                    with_prompts=[*(self._shown(record, ctxs) for ctxs in sets), nothing],
                    without_prompt=nothing,
                    answers=[self._prompts.scored_answer(answer) for answer in record.choices or record.answers],
                )
            )
        every = losses_with(self.lm, requests, [0.0]) if records else []
        for record, losses in zip(records, every, strict=True):
            own = _loss(record, losses[:, :, 0])
            gain = round(float(own[-1] - own[0]), 6)
            record.extra["gain"] = gain
            if gain < self._least:
                record.extra["rejected"] = "no clear gain over no passage"
            elif len(own) > 2 and float(own[1:-1].min() - own[0]) < self._least / 2:
                record.extra["rejected"] = "one of its two passages is enough"
            elif record.choices and int(np.argmin(losses[0, :, 0])) != record.choices.index(record.answers[0]):
                record.extra["rejected"] = "not answered from its passage"

    def _must_be_answered(self, records: Sequence[Retrieved]) -> None:
        # A short answer that took the written one's place is what the model answered.
        asked = [record for record in records if not record.choices and "answer_written" not in record.extra]
        for record, answer in zip(asked, self._answers(asked), strict=True):
            if not contains(answer, record.answers):
                record.extra["rejected"] = "not answered from its passage"

    def _answers(self, records: Sequence[Retrieved]) -> list[str]:
        """What the model answers from the passages of each record alone."""
        shown = [self._shown(record, record.ctxs) for record in records]
        texts = continue_with(self.lm, shown, _ANSWERED, self._prompts.stop) if shown else []
        return [self._prompts.cut(text) for text in texts]

    def _shown(self, record: Retrieved, ctxs: Sequence[Passage]) -> str:
        return self._prompts.with_passages(record.question, ctxs, reserve=4 * _ANSWERED)


def _open(records: Sequence[Retrieved]) -> list[Retrieved]:
    """Those that are not rejected so far."""
    return [record for record in records if "rejected" not in record.extra]


def _loss(record: Retrieved, losses: FloatArray) -> FloatArray:
    """Nats per token by prompt: the answer's loss; with choices, how unlikely the right one is among them.

    Args:
        losses: [prompt, answer].
    """
    if record.choices:
        return -choice_gain(losses, record.choices.index(record.answers[0]))
    return losses[:, 0]


def _read(drawn: Retrieved, text: str) -> Retrieved:
    """The question in what the model wrote, checked by what it says alone."""
    found = parse(text)
    question, answer = found or (" ".join(text.split())[:200] or "?", "")
    yes_no = drawn.extra["kind"] == "yes_no"
    if yes_no and answer:
        answer = answer.lower().split()[0].strip(",.;")
    record = Retrieved(
        id=drawn.id,
        question=question,
        answers=[answer] if answer else [],
        choices=list(YES_NO) if yes_no and answer in YES_NO else None,
        ctxs=list(drawn.ctxs),
        extra=dict(drawn.extra),
    )
    if reason := _fault(record, found is not None):
        record.extra["rejected"] = reason
        record.choices = None
    return record


def _fault(record: Retrieved, parsed: bool) -> str | None:
    """What is wrong with a question and its answer as texts."""
    if not parsed or not record.answers:
        return "no question and answer as asked for"
    answer = record.answers[0]
    if len(record.question.split()) < 4:
        return "fewer than four words"
    if _POINTS.search(record.question):
        return "names the passage"
    if record.extra["kind"] == "yes_no":
        return None if record.choices else "answer is neither yes nor no"
    if len(answer.split()) > _LONGEST:
        return _TOO_LONG
    if not normalise(answer):
        return "answer without words"
    if _share_in(answer, record.question) > 0.5:
        return "tells its answer"
    if not any(has_answer(f"{passage.title}\n{passage.text}", record.answers) for passage in record.ctxs):
        return _ELSEWHERE
    return None
