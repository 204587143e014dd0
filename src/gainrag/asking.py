"""Passages -> questions: the language model writes them, and those are kept that a passage helps to answer.

A question is kept only if all of this holds; every rejection is counted by the first reason that applies:

| it must | reason of a rejection |
|---|---|
| be one question with a short answer, in its own words | no question and answer, names the passage, tells its answer |
| have its answer in the passage | answer not in the passage |
| be found again: its passages are among the first k of retrieval | not found again |
| be helped: its answer is likelier by `least` nats a token with its passages than without any | no clear gain |
| need both of two passages | one passage is enough |
| be answered: the model answers right from its passages alone | not answered from its passage |
| be a new one | near-duplicate |

Passages are drawn spread over documents, and a document's questions all go to one split: train, tune or test.
"""

from __future__ import annotations

import re
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta

from gainrag.errors import ConfigError, DataError
from gainrag.files.meta import digest, is_current, write_meta
from gainrag.files.progress import say
from gainrag.files.resuming import write_resumable
from gainrag.files.streams import read
from gainrag.gain import choice_gain
from gainrag.metrics import contains, has_answer, normalise
from gainrag.prompts import ASKING, Asked, PromptForm, Prompts, for_model, wording
from gainrag.protocols import (
    FloatArray,
    Retriever,
    ScorerGenerator,
    ScoringRequest,
    chunk_for,
    continue_with,
    losses_with,
    need,
    search_with,
)
from gainrag.records import GOLD, Passage, Question, Retrieved, Scored
from gainrag.settings import Passages, Seed, Share, checked

Wanted = Annotated[int, Meta(ge=1, le=1_000_000)]  # questions
Rounds = Annotated[int, Meta(ge=1, le=100)]
Nats = Annotated[float, Meta(ge=0.0, le=100.0)]  # a token

SPLITS = ("train", "tune", "test")
# Questions written together. Fixed: see gainrag.files.resuming.
CHUNK = {"cpu": 8, "cuda": 256}
YES_NO = ["yes", "no"]
# Words of a passage that a question can be made from, and of a short answer.
_FEWEST, _LONGEST = 12, 8
# Tokens of a question with its answer, and of an answer.
_WRITTEN, _ANSWERED = 80, 16
# Of two questions that are the same one: the share of their words that both have.
_SAME = 0.8
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


@dataclass
class Questions:
    """What was written: the questions of each split, how many were rejected by reason, and how many were tried."""

    splits: dict[str, list[Question]] = field(default_factory=dict)
    rejected: Counter[str] = field(default_factory=Counter)
    tried: int = 0
    wanted: int = 0

    def __str__(self) -> str:
        """One line a figure."""
        kept = sum(len(found) for found in self.splits.values())
        written = sum(bool(q.extra["written"]) for found in self.splits.values() for q in found)
        lines = [f"{written} of {self.tried} written questions kept, {self.wanted} wanted"]
        lines += [f"{count} rejected: {reason}" for reason, count in self.rejected.most_common()]
        lines += [f"{len(found)} in {split}" for split, found in self.splits.items()]
        return "\n".join([*lines, f"{kept - written} of them from people, all in test"] if kept > written else lines)


@checked
def ask(
    passages: Sequence[Passage],
    lm: ScorerGenerator,
    retriever: Retriever,
    out: str | Path | None = None,
    settings: Mapping[str, object] | None = None,
    real: Sequence[Question] = (),
    *,
    n: Wanted = 300,
    rounds: Rounds = 4,
    k: Passages = 20,
    least: Nats = 0.5,
    yes_no: Share = 0.15,
    two: Share = 0.15,
    test: Share = 0.3,
    tune: Share = 0.2,
    prompt: PromptForm | None = None,
    seed: Seed = 0,
) -> Questions:
    """Have the language model write questions on sampled passages, and keep those that a passage helps to answer.

    Args:
        out: a folder for what is written as it is made, with what was rejected and why, in written-1.jsonl and further
            rounds; a run that was stopped continues there.
        settings: what else the questions depend on (model, corpus), checked when a stopped run continues.
        real: questions that people asked; they go to test, and are marked `"written": false`.
        n: questions to keep.
        rounds: as many times n questions are written at most, in rounds, until n are kept.
        k: a question's passage must be among so many of retrieval.
        least: the least gain of a passage, in nats per token of the answer: its loss without a passage less that with.
        yes_no: share of the questions that yes or no answers.
        two: share of the questions that need two passages, both of one document.
        test: share of the questions for the test.
        tune: share of the questions for choosing settings.
        prompt: the prompt form, completion or chat; when left out chat for a model behind an endpoint, else completion.
        seed: of the sampling.

    Raises:
        ConfigError: the model is no scorer and generator, or shares leave nothing for the rest.
        DataError: no passage is long enough, or no question was kept.
        ModelError: the model returns no text, or losses of another number.
    """
    need(lm, ScorerGenerator, what="lm", where="ask", hint="pass open_lm(..), or see gainrag.protocols")
    for name, total in {"test": test + tune, "two": two + yes_no}.items():
        if total >= 1:
            raise ConfigError(
                f"shares of {total:g} leave nothing", where=name, hint="they must be less than 1 together"
            )
    prompts = for_model(prompt, lm)
    plan = draw(passages, n * rounds, {"yes_no": yes_no, "two": two}, seed)
    writer = _Writer(lm, retriever, prompts, k, least)
    _estimate(writer, plan, n)
    form = prompts.form
    own = {**(settings or {}), "k": k, "least": least, "yes_no": yes_no, "two": two, "prompt": form, "seed": seed}
    own["wording"] = digest(repr((ASKING[form], wording(form))))
    found, kept = Questions(wanted=n), list[Question]()
    for number in range(rounds):
        part = plan[number * n : (number + 1) * n]
        if not part or len(kept) >= n:
            break
        file = Path(out) / f"written-{number + 1}.jsonl" if out is not None else None
        made = _round(part, writer, file, own, f"writing questions, round {number + 1} of {rounds}")
        found.tried += len(made)
        for record in made:
            _keep(record, kept, n, found.rejected)
    if not kept:
        reasons = ", ".join(f"{count} {reason}" for reason, count in found.rejected.most_common(3))
        raise DataError(f"no question was kept ({reasons})", where="ask", hint="use a larger model, or lower --least")
    found.splits = split_by_document(kept, test, tune, seed)
    for question in real:
        marked = msgspec.structs.replace(question, extra={**question.extra, "written": False})
        found.splits["test"].append(marked)
    return found


def _round(
    part: Sequence[Retrieved], writer: _Writer, file: Path | None, settings: dict[str, object], what: str
) -> list[Retrieved]:
    """The records of a round, of one that is finished from its file."""
    drawn = "\n".join(passage.id for record in part for passage in record.ctxs)
    own = {**settings, "drawn": digest(drawn)}
    if file is not None and is_current(file, own, {}):
        return list(read(file, Retrieved))
    chunk = chunk_for(writer.lm, CHUNK)
    made = write_resumable(file, part, writer.write, kind=Retrieved, chunk=chunk, settings=own, what=what)
    if file is not None:
        write_meta(file, own, {})
    return made


def document_of(passage: Passage) -> str:
    """What a passage is a part of: the file before the # of its id, else what stands before > in its title."""
    return passage.id.partition("#")[0] if "#" in passage.id else passage.title.partition(" > ")[0] or passage.id


def draw(passages: Sequence[Passage], number: int, shares: Mapping[str, float], seed: int) -> list[Retrieved]:
    """The passages to ask about: one of each document in turn, in an order of chance, before the next of any.

    Args:
        shares: of the kinds yes_no and two; the rest are facts.

    Returns:
        a record for each question to be written, with its passages, and its kind and document as `kind`, `document`.

    Raises:
        DataError: no passage has enough words.
    """
    rng = np.random.default_rng(seed)
    by_document: dict[str, list[int]] = defaultdict(list)
    for row, passage in enumerate(passages):
        if len(passage.text.split()) >= _FEWEST:
            by_document[document_of(passage)].append(row)
    if not by_document:
        raise DataError(f"no passage has {_FEWEST} words", where="ask", hint="give a corpus of texts")
    turns = []
    for name in sorted(by_document):
        rows = rng.permutation(by_document[name]).tolist()
        turns += [(turn, float(rng.random()), name, row) for turn, row in enumerate(rows)]
    found = []
    for at, (_, _, name, row) in enumerate(sorted(turns)[:number]):
        chance, own = float(rng.random()), by_document[name]
        kind: Asked = "fact"
        if chance < shares["yes_no"]:
            kind = "yes_no"
        elif chance < shares["yes_no"] + shares["two"] and len(own) > 1:
            kind = "two"
        rows = [row]
        if kind == "two":  # its neighbour says more of the same than any other
            place = own.index(row)
            rows = [own[place - 1], row] if place else [row, own[1]]
        ctxs = [_scored(passages[i]) for i in rows]
        extra = {"kind": kind, "document": name}
        found.append(Retrieved(id=f"written-{at + 1}", question="?", ctxs=ctxs, extra=extra))
    return found


def _scored(passage: Passage) -> Scored:
    return Scored(id=passage.id, title=passage.title, text=passage.text, extra=passage.extra, gold=True)


def parse(text: str) -> tuple[str, str] | None:
    """(question, answer) in what the model wrote behind "Question:"; None where there are no such.

    >>> parse(" Who published Emma?\\nAnswer: John Murray\\n\\nPassage: ..")
    ('Who published Emma?', 'John Murray')
    """
    found = _ANSWER.match(_BOLD.sub("", text))
    if found is None or "\n\n" in found[1].strip():
        return None
    return " ".join(found[1].split()), found[2].strip().strip("\"'").rstrip(".")


class _Writer:
    """Writes questions for drawn passages and says of each why it is rejected, if it is."""

    def __init__(self, lm: ScorerGenerator, retriever: Retriever, prompts: Prompts, k: int, least: float) -> None:
        self.lm, self._retriever, self._prompts, self._k, self._least = lm, retriever, prompts, k, least

    def write(self, part: Sequence[Retrieved]) -> list[Retrieved]:
        """The drawn records with their questions; a rejected one has the reason as `rejected`."""
        requests = [self._prompts.to_ask(drawn.extra["kind"], drawn.ctxs, reserve=_WRITTEN) for drawn in part]
        texts = continue_with(self.lm, requests, _WRITTEN)
        made = [_read(drawn, text) for drawn, text in zip(part, texts, strict=True)]
        self._must_be_found(_open(made))
        self._must_help(_open(made))
        self._must_be_answered(_open(made))
        return made

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
        open_ended = [record for record in records if not record.choices]
        shown = [self._shown(record, record.ctxs) for record in open_ended]
        texts = continue_with(self.lm, shown, _ANSWERED, self._prompts.stop) if shown else []
        for record, text in zip(open_ended, texts, strict=True):
            if not contains(self._prompts.cut(text), record.answers):
                record.extra["rejected"] = "not answered from its passage"

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
        return f"answer of more than {_LONGEST} words"
    if not normalise(answer):
        return "answer without words"
    told, words = normalise(record.question).split(), normalise(answer).split()
    if 2 * sum(word in told for word in words) > len(words):
        return "tells its answer"
    if not any(has_answer(f"{passage.title}\n{passage.text}", record.answers) for passage in record.ctxs):
        return "answer not in the passage"
    return None


@lru_cache(maxsize=4096)  # each is compared with all that come later
def _words(question: str) -> frozenset[str]:
    return frozenset(normalise(question).split())


def _keep(record: Retrieved, kept: list[Question], n: int, rejected: Counter[str]) -> None:
    """Add a record's question to the kept ones, or count why not."""
    if reason := record.extra.get("rejected"):
        rejected[str(reason)] += 1
        return
    own = _words(record.question)
    for other in kept:
        theirs = _words(other.question)
        # Questions that differ in a name alone have other answers.
        alike = len(own & theirs) >= _SAME * len(own | theirs) and contains(record.answers[0], other.answers)
        if own == theirs or alike:
            rejected["near-duplicate of another question"] += 1
            return
    if len(kept) >= n:
        rejected["more than were wanted"] += 1
        return
    extra = {**record.extra, "written": True, GOLD: [passage.id for passage in record.ctxs]}
    kept.append(
        Question(id=record.id, question=record.question, answers=record.answers, choices=record.choices, extra=extra)
    )


def split_by_document(questions: Sequence[Question], test: float, tune: float, seed: int) -> dict[str, list[Question]]:
    """Questions by split; all of one document in one: to whichever split lacks most of its share, the document with
    most questions first."""
    by_document: dict[str, list[Question]] = defaultdict(list)
    for question in questions:
        by_document[question.extra["document"]].append(question)
    shares = {"train": 1.0 - test - tune, "tune": tune, "test": test}
    found: dict[str, list[Question]] = {split: [] for split in SPLITS}
    order = np.random.default_rng(seed).permutation(sorted(by_document)).tolist()
    for name in sorted(order, key=lambda name: -len(by_document[name])):
        lack = {split: share * len(questions) - len(found[split]) for split, share in shares.items()}
        found[max(lack, key=lambda split: lack[split])] += by_document[name]
    return found


def _estimate(writer: _Writer, plan: Sequence[Retrieved], n: int) -> None:
    """Say what it will take, by one question written now."""
    begun = time.perf_counter()
    writer.write(plan[:1])
    seconds = time.perf_counter() - begun
    low, high = seconds * min(n, len(plan)) / 60, seconds * len(plan) / 60
    say(
        f"{min(n, len(plan))} to {len(plan)} questions to write, {n} to keep: {low:.0f} to {high:.0f} minutes at the "
        "speed of the first one; several at a time are faster"
    )
