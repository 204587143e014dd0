"""Candidates -> Probe: what better selection, retrieval and reading could each bring, before anything is trained.

Some questions are answered from what each of these would read:

| system      | reads                                                                                                |
|-------------|------------------------------------------------------------------------------------------------------|
| `NOTHING`   | no passage                                                                                           |
| `FIRST`     | the retriever's first passage: what the others are compared with                                     |
| `SHIPPED`   | the first choice of the selector that ships with the package, which has learned nothing here         |
| `HOLDING`   | the first candidate that holds an answer; where none does, the retriever's first                     |
| `BEST`      | the candidate of highest gain: perfect selection by one who knows the answers                        |
| `RETRIEVED` | an estimate: as `BEST`, and questions of which no candidate holds an answer score as the others do   |

A passage holds an answer by `gainrag.metrics.holds_answer`. Where the answer is a choice or long, a text that contains
it means nothing: there gold marks say it, and where there are none it is not known.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta
from msgspec.structs import replace

from gainrag.answering import answer, check_question, generate_answers
from gainrag.errors import DataError
from gainrag.evaluation import evaluate, score_questions
from gainrag.evaluation.lost import part, place
from gainrag.files.meta import digest, is_current, write_meta
from gainrag.files.progress import say
from gainrag.files.streams import read
from gainrag.gain import silver_index
from gainrag.metrics import holds_answer, recall_at_k
from gainrag.prompts import PromptForm, Prompts, for_model, wording
from gainrag.protocols import FloatArray, Generator, Hardware, Scorer, ScorerGenerator, Selector, losses_with, need
from gainrag.records import Answer, GainRecord, Retrieved, Scored, encode
from gainrag.selection import select
from gainrag.selectors import PRIOR, open_selector
from gainrag.settings import AtMost, Tokens, checked, count
from gainrag.statistics import interval, questions_needed, resampled_weights, tidy
from gainrag.synthesis import choice_gains_at, evenly_spaced, scoring_request, synthesize
from gainrag.synthesis.candidates import check_candidates, is_long

NOTHING, FIRST, SHIPPED = "no passage", "the retriever's first", "the shipped selector's first"
HOLDING, BEST = "the first that holds an answer", "perfect selection"
RETRIEVED = "perfect retrieval, too (estimate)"

Asked = Annotated[int, Meta(ge=2, le=100_000)]  # questions
Source = Literal["auto", "losses", "sampled", "none"]

# What share of perfect selection's points trained selectors brought in our measurements, about: from 15% to 35%, see
# docs/results.md. Nobody who does not know the answers chooses as well as one who does.
REACHED = 0.2
# The first so many passages of which recall is shown, beside all.
DEPTHS = (1, 5)
_RESAMPLES, _CONFIDENCE = 10_000, 0.95
# Answers whose time is measured, for the estimate.
_MEASURED = 8


class Span(msgspec.Struct, frozen=True):
    """A mean over questions, or a difference of two, with its bootstrap interval."""

    value: float
    low: float
    high: float

    @property
    def unsettled(self) -> bool:
        """Whether the interval includes 0."""
        return self.low <= 0 <= self.high


class Line(msgspec.Struct, frozen=True):
    """What a system scores, and how far above the retriever's first passage that is (None of that itself)."""

    score: Span
    over_first: Span | None = None


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """What `probe` found, from 0 to 1 where it is a share or a score.

    questions, of: how many were asked, of how many there are.
    candidates: how many a question has, on average, the pseudo-passage among them.
    level: what the labels are, by which the best candidate is known; None where nothing was labelled.
    measure: what the score is, in words.
    recall: by k, as text, share of questions with an answer in the first k retrieved passages; of those of which that
        is known.
    known, lacking: of how many questions it is known whether a candidate holds an answer, and in how many none does.
    lost: by part (see `gainrag.evaluation.lost`), how many of the known questions the retriever's first passage leaves
        there.
    pseudo: in how many questions the best candidate is the pseudo-passage; None where there is none.
    lines: by system.
    expected: what a trained selector may bring, see `REACHED`; None where nothing was labelled.
    needed: how many questions it takes to show that, at the deviation that was seen.
    seconds: what labelling one question took; None where that was not measured.
    """

    questions: int
    of: int
    candidates: float
    level: str | None
    measure: str
    recall: dict[str, float]
    known: int
    lacking: int
    lost: dict[str, int]
    pseudo: int | None
    lines: dict[str, Line]
    expected: float | None = None
    needed: int | None = None
    seconds: float | None = None


@checked
def probe(
    candidates: Sequence[Retrieved],
    lm: Generator,
    out: str | Path | None = None,
    settings: Mapping[str, object] | None = None,
    selector: Selector | None = None,
    *,
    n: Asked = 50,
    labels: Source = "auto",
    at_most: AtMost | None = None,
    prompt: PromptForm | None = None,
    max_new_tokens: Tokens = 16,
) -> Probe:
    """Ask what could be won by choosing, retrieving or reading better. Nothing is trained.

    Args:
        candidates: questions with answers and what was retrieved, with a pseudo-passage or without.
        out: a folder for the labels and answers as they are made; a probe that was stopped continues there.
        settings: what else these depend on (model, input), checked when a stopped probe continues.
        selector: whose first choice is `SHIPPED`; the one that ships when it is left out.
        n: questions to ask, evenly spaced over those that there are; all of them where there are fewer.
        labels: by what the best candidate is known: losses, at alpha 0; sampled, the greedy answer from each candidate,
            for which any model serves; or none, which saves most of the time and leaves perfect selection out. auto is
            losses where the model tells them, else sampled.
        at_most: label so many candidates a question, those that embedded:gain-features scores highest; all when it is
            left out.
        prompt: the prompt form: completion, chat, or instruction_first, a completion whose beginning a GPU runs once
            for many; when left out chat for a model behind an endpoint, else completion.
        max_new_tokens: the longest answer, in tokens.

    Raises:
        DataError: fewer than two questions, one without answers or retrieved passages, or too long for the model.
        ConfigError: labels are losses, and the model tells none.
        ModelError: the model returns no text, or losses of another number.
    """
    need(lm, Generator, what="lm", where="probe", hint="pass a model that writes, see gainrag.protocols")
    if len(candidates) < 2:
        what = count(len(candidates), "question")
        raise DataError(f"{what}, and two are the fewest", where="probe", hint="give some 50 questions with answers")
    if labels == "auto":
        labels = "losses" if isinstance(lm, Scorer) else "sampled"
    if labels == "losses":
        hint = "leave labels out: this model's are sampled answers"
        need(lm, ScorerGenerator, what="lm", where="probe", hint=hint)
    prompts, chosen = for_model(prompt, lm), evenly_spaced(candidates, n)
    for record in chosen:
        where = f"question {record.id}"
        check_candidates(record)
        check_question(record, lm, prompts, max_new_tokens, where=where)
        if not _retrieved(record):
            raise DataError("no passage was retrieved", where=where, hint="retrieve first")
    own: dict[str, Any] = {**(settings or {}), "prompt": prompts.form, "wording": wording(prompts.form)}
    own |= {"questions": digest(b"".join(map(encode, chosen)).decode()), "max_new_tokens": max_new_tokens}
    asked: dict[str, Any] = {"prompt": prompts.form, "max_new_tokens": max_new_tokens}
    more: dict[str, Any] = {"labels": "sampled", "n": 1} if labels == "sampled" else {"alpha": 0.0}
    told = {**own, **more, "at_most": at_most}
    with tempfile.TemporaryDirectory() as passing:
        folder = Path(out if out is not None else passing)
        file, gains, seconds = folder / "gains.jsonl", list[GainRecord](), None
        if labels != "none" and is_current(file, told, {}):
            say(f"{file}: reused")
            gains = list(read(file, GainRecord))
        else:
            _announce(chosen, lm, prompts, labels, at_most, max_new_tokens)
        if labels != "none" and not gains:
            begun = time.perf_counter()
            gains = synthesize(chosen, lm, file, told, at_most=at_most, **asked, **more)
            write_meta(file, told, {})
            seconds = (time.perf_counter() - begun) / len(chosen)
        reading = _what_is_read(chosen, gains, selector or open_selector(PRIOR))
        answers = _answers(chosen, reading, lm, folder / "answers.jsonl", own, asked)
    return replace(_found(chosen, len(candidates), gains, answers), seconds=seconds)


def _announce(
    chosen: Sequence[Retrieved], lm: Generator, prompts: Prompts, labels: Source, at_most: int | None, longest: int
) -> None:
    """Say what the probe will cost: of a model on this machine by its speed with the first question. One whose requests
    cost something says what these cost itself, before each kind of them.

    Args:
        longest: of an answer, in tokens.
    """
    few = [record.ctxs[:at_most] for record in chosen]
    total, systems = sum(map(len, few)), 4 + (labels != "none")
    line = f"probe: {count(len(chosen), 'question')}, at most {count(len(chosen) * systems, 'answer')}"
    if labels == "losses":
        line += f", the losses of {count(total, 'candidate')}"
    elif labels == "sampled":
        line += f", and one from each of {count(total, 'candidate')}, as labels"
    if isinstance(lm, Hardware) and lm.kind == "remote":
        say(line)
        return
    request = scoring_request(prompts, replace(chosen[0], ctxs=few[0]), longest)
    seconds, begun = 0.0, time.perf_counter()
    if labels == "losses" and isinstance(lm, Scorer):
        losses_with(lm, [request], [0.0])
        seconds = (time.perf_counter() - begun) / len(few[0]) * total
    some = request.with_prompts[:_MEASURED]
    generate_answers(lm, prompts, some[:1], 1)  # what a model does once, such as to look for tokens that end a line
    begun = time.perf_counter()
    generate_answers(lm, prompts, some, longest)
    answers = len(chosen) * systems + (total if labels == "sampled" else 0)
    seconds += (time.perf_counter() - begun) / len(some) * answers
    say(f"{line}; {duration(seconds)} at the speed of the first ones")


def duration(seconds: float) -> str:
    """A time in words.

    >>> duration(40.2), duration(600)
    ('about 40 seconds', 'about 10 minutes')
    """
    return f"about {seconds / 60:.0f} minutes" if seconds >= 90 else f"about {max(1.0, seconds):.0f} seconds"


# --- what is read, and what is answered from it ----------------------------------------------------------------------


def _retrieved(record: Retrieved) -> list[Scored]:
    return [ctx for ctx in record.ctxs if ctx.origin != "generated"]


def _holds(record: Retrieved, passages: Sequence[Scored]) -> list[bool] | None:
    """Whether each passage holds an answer; None where that is not known."""
    if not (record.choices or is_long(record)):
        return [holds_answer(ctx, record.answers) for ctx in passages]
    known = any(ctx.gold is not None for ctx in record.ctxs)
    return [bool(ctx.gold) for ctx in passages] if known else None


def _what_is_read(
    chosen: Sequence[Retrieved], gains: Sequence[GainRecord], selector: Selector
) -> dict[str, list[Scored | None]]:
    """By system, the passage that each question is read with; None is no passage."""
    reading: dict[str, list[Scored | None]] = {NOTHING: [None] * len(chosen)}
    reading[FIRST] = [_retrieved(record)[0] for record in chosen]
    reading[SHIPPED] = [record.ctxs[0] for record in select(chosen, selector)]
    holding = []
    for record in chosen:
        flags = _holds(record, record.ctxs) or []
        holding.append(record.ctxs[flags.index(True)] if True in flags else _retrieved(record)[0])
    reading[HOLDING] = [*holding]
    if gains:
        reading[BEST] = [record.ctxs[_best(record)] for record in gains]
    return reading


def _best(record: GainRecord) -> int:
    """The candidate of highest gain; of a question with choices, where losses are known, of the normalised one."""
    if record.choices and record.level != "sampled":
        return silver_index(choice_gains_at(record, None))
    return record.silver


def _answers(
    chosen: Sequence[Retrieved],
    reading: Mapping[str, Sequence[Scored | None]],
    lm: Generator,
    file: Path,
    own: Mapping[str, Any],
    asked: Mapping[str, Any],
) -> dict[str, list[Answer]]:
    """By system, its answers. What several read alike is answered once."""
    unique: dict[tuple[str, str | None], Retrieved] = {}
    for passages in reading.values():
        for record, passage in zip(chosen, passages, strict=True):
            ctxs = [passage] if passage else []
            unique.setdefault(_key(record, passage), replace(record, id=f"{record.id}#{len(unique)}", ctxs=ctxs))
    told = {**own, "read": digest(repr(list(unique)))}
    if is_current(file, told, {}):
        made = list(read(file, Answer))
    else:
        made = answer(list(unique.values()), lm, file, told, **asked)
        write_meta(file, told, {})
    by_key = dict(zip(unique, made, strict=True))
    return {
        name: [
            replace(by_key[_key(record, passage)], id=record.id)
            for record, passage in zip(chosen, passages, strict=True)
        ]
        for name, passages in reading.items()
    }


def _key(record: Retrieved, passage: Scored | None) -> tuple[str, str | None]:
    return record.id, passage.id if passage else None


# --- the figures -----------------------------------------------------------------------------------------------------


def _found(
    chosen: Sequence[Retrieved], of: int, gains: Sequence[GainRecord], answers: Mapping[str, Sequence[Answer]]
) -> Probe:
    """What the answers say."""
    overall = evaluate(answers, resamples=_RESAMPLES, confidence=_CONFIDENCE).overall
    lines = {}
    for name, scores in overall.systems.items():
        found = scores.metrics["mean"]
        lines[name] = Line(Span(found.value, found.low, found.high))
        if name != FIRST:
            over = overall.difference(name, FIRST)
            lines[name] = replace(lines[name], over_first=Span(over.value, over.low, over.high))
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in answers}
    for row in score_questions(answers):
        rows[row["system"]].append(row)
    points = {name: np.array([row["mean"] for row in own]) for name, own in rows.items()}

    every = [_holds(record, record.ctxs) for record in chosen]
    ranked = [flags for record in chosen if (flags := _holds(record, _retrieved(record))) is not None]
    longest = max(map(len, ranked), default=0)
    lacking = np.array([flags is not None and not any(flags) for flags in every])
    lost: Counter[str] = Counter()
    for record, flags, row in zip(chosen, every, rows[FIRST], strict=True):
        if flags is not None:
            first = flags[record.ctxs.index(_retrieved(record)[0])]
            right = row["exact_match" if record.choices else "contains"]
            lost[part(place(flags, [first]), bool(right))] += 1
    base = BEST if gains else HOLDING
    if lacking.any() and not lacking.all():
        lines[RETRIEVED] = _with_perfect_retrieval(points[base], points[FIRST], lacking)

    pseudo = [record.ctxs[_best(record)].origin == "generated" for record in gains]
    best = lines[BEST].over_first if gains else None
    expected = REACHED * best.value if best else None
    return Probe(
        questions=len(chosen),
        of=of,
        candidates=float(np.mean([len(record.ctxs) for record in chosen])),
        level=gains[0].level if gains else None,
        measure=overall.score,
        recall={str(k): recall_at_k(ranked, k) for k in (*DEPTHS, longest) if k <= longest} if ranked else {},
        known=len(ranked),
        lacking=int(lacking.sum()),
        lost=dict(lost),
        pseudo=sum(pseudo) if any(len(_retrieved(r)) < len(r.ctxs) for r in chosen) and gains else None,
        lines=lines,
        expected=expected,
        needed=questions_needed(expected, _deviation(points)) if expected else None,
    )


def _deviation(points: Mapping[str, FloatArray]) -> float:
    """The standard deviation of a question's difference between another choice and the retriever's first: the largest
    that was seen. A selector that often chooses as the retriever does differs little, and brings little; one that
    brings more differs more."""
    others = (name for name in (SHIPPED, HOLDING, BEST) if name in points)
    return max(float((points[name] - points[FIRST]).std(ddof=1)) for name in others)


def _with_perfect_retrieval(base: FloatArray, first: FloatArray, lacking: npt.NDArray[np.bool_]) -> Line:
    """If questions of which no candidate holds an answer scored, at the least, as the others do on average.

    Args:
        base: the score of each question with perfect selection.
        first: with the retriever's first passage.
        lacking: whether no candidate holds an answer.
    """

    def means(weights: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Of each resample [resample, question], the mean and how far it is above that of the retriever's first."""
        others = np.where(lacking, 0.0, base)
        with np.errstate(invalid="ignore"):  # a resample may have no others
            reached = (weights @ others) / (weights @ ~lacking)
        raised = np.maximum(reached[:, None], base[lacking])
        whole = weights @ others + (weights[:, lacking] * raised).sum(axis=1)
        return whole, whole - weights @ first

    drawn = list(map(means, resampled_weights([len(base)], _RESAMPLES, np.random.default_rng([0, 0]))))
    spans = []
    for i, value in enumerate(means(np.full((1, len(base)), 1 / len(base)))):
        every = np.concatenate([block[i] for block in drawn])
        low, high = interval(every[~np.isnan(every)], _CONFIDENCE)
        spans.append(Span(tidy(value[0]), tidy(float(low)), tidy(float(high))))
    return Line(*spans)
