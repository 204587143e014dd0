"""The records: their fields, the types that these have, and what matters of one for people.

A value of another type fails when the record is made.
"""

from __future__ import annotations

from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from gainrag.errors import DataError
from gainrag.records import views

Origin = Literal["corpus", "generated"]
Level = Literal["exact", "bounded", "gold", "sampled"]


class Record(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What all records share: keys that this version does not know are kept in `extra`, not dropped.

    `repr` is one line, `str` one screen, and a notebook shows the candidates of a question as bars.

    Raises:
        DataError: a field is of another type.
    """

    extra: dict[str, Any] = {}

    def __post_init__(self) -> None:
        for name, kinds, inner in _kinds(type(self)):
            value = getattr(self, name)
            fits = isinstance(value, kinds)
            if fits and inner and isinstance(value, list):
                fits = all(isinstance(item, inner) for item in value)
            if not fits:
                wanted = _called(next(kind for kind in kinds if kind is not NoneType), inner)
                where = type(self).__name__
                raise DataError(f"{name} is {value!r:.60}, not {wanted}", where=where, hint="see docs/records.md")

    def __repr__(self) -> str:
        return views.line(type(self).__name__, {name: getattr(self, name) for name in _SHOWN if hasattr(self, name)})

    def __str__(self) -> str:
        facts, rows = view(self)
        return views.screen(facts, rows) if facts else repr(self)

    def _repr_html_(self) -> str | None:
        """What a notebook shows; it falls back to `repr` on None."""
        facts, rows = view(self)
        return views.page(facts, rows) if facts else None


class Passage(Record, kw_only=True):
    """A piece of text a model may read. `origin` "generated" marks the pseudo-passage, whatever its position."""

    id: str
    title: str = ""
    text: str
    origin: Origin = "corpus"


class Scored(Passage, kw_only=True):
    """A passage as a retriever or selector returned it. The pseudo-passage was never retrieved: its score is None.

    hasanswer: whether the text contains one of the answers.
    scores: what each part of a hybrid retriever scored it with, by the part's name.
    gold: whether people marked it as what the answer rests on.
    """

    score: float | None = None
    hasanswer: bool | None = None
    scores: dict[str, float] | None = None
    gold: bool | None = None


class Gained(Scored, kw_only=True):
    """A scored passage with its contrastive loss (nats per token, least over the answers) by alpha, and its gain.

    choice_losses: where the question has choices, the loss of each in their order, by alpha; `loss` is the right one's.
    loss_low, loss_high: where the record's level is bounded, between what the loss lies, by alpha; an alpha without an
        upper bound is not in the latter.
    said: where labels are sampled, what the language model answered with this passage, once a sample; `loss` is empty
        then, and `gain` is the log utility, see gainrag.gain.
    right: how many of these answers were right, each counting from 0 to 1.
    interval: low and high, at 95%, of the chance that an answer is right.
    """

    loss: dict[str, float]
    gain: float
    choice_losses: dict[str, list[float]] | None = None
    loss_low: dict[str, float] | None = None
    loss_high: dict[str, float] | None = None
    said: list[str] | None = None
    right: float | None = None
    interval: tuple[float, float] | None = None


class Question(Record, kw_only=True):
    """A question and its gold answers; `answers` may be empty where nothing is trained or evaluated.

    choices: the options of a multiple-choice or yes/no question, of which answers[0] is the right one.
    """

    id: str
    question: str
    answers: list[str] = []
    choices: list[str] | None = None


class Retrieved(Question, kw_only=True):
    """A question with its candidate passages, best first: the DPR/Contriever result format.

    gold_ranks: where the passages marked gold stand, from 1, in the whole order of which `ctxs` may be the beginning.
    """

    ctxs: list[Scored]
    gold_ranks: list[int] | None = None


class GainRecord(Question, kw_only=True):
    """A training label: every candidate's gain, the silver passage's index, whether the question passed the filter.

    loss_without: nats per token of the easiest answer when no passage is read; None in files that do not say.
    choice_losses_without: the same of each choice, in their order.
    level: what the losses are: computed exactly, bounded, made from gold passages, or sampled.
    thinned: the ids of candidates that were left out before anything was measured, in their order.
    said_without, right_without: where labels are sampled, what was answered when no passage is read, and how many of
        these answers were right; None where that was not asked.
    """

    kept: bool
    prediction: str
    silver: int
    ctxs: list[Gained]
    loss_without: float | None = None
    choice_losses_without: list[float] | None = None
    level: Level = "exact"
    thinned: list[str] | None = None
    said_without: list[str] | None = None
    right_without: float | None = None


class Answer(Question, kw_only=True):
    """What a system answered (`prediction`), from which passages (`ctxs`).

    choice_losses: where the question has choices, the plain loss of each in their order, in nats per token.
    threshold: what the margin of its two choices was compared with, see `gainrag.answering.Threshold`.
    gold_ranks: as of the Retrieved that was answered.
    """

    prediction: str
    ctxs: list[Scored] = []
    choice_losses: list[float] | None = None
    threshold: float | None = None
    gold_ranks: list[int] | None = None


# What `repr` shows, in this order, of those that a record has.
_SHOWN = ("id", "question", "title", "text", "score", "gain", "answers", "choices", "prediction", "kept", "ctxs")


def view(record: Record) -> tuple[dict[str, str], list[views.Row]]:
    """What matters of a question with passages: facts by name, and its passages; nothing of other records."""
    if not isinstance(record, Retrieved | GainRecord | Answer):
        return {}, []
    facts = {"question": record.question}
    if record.answers:
        facts["answers"] = " | ".join(record.answers)
    if isinstance(record, GainRecord | Answer):
        facts["prediction"] = record.prediction
    rows = [row_of(ctx) for ctx in record.ctxs]
    if isinstance(record, GainRecord):
        facts["kept"] = "yes" if record.kept else "no: the prediction is wrong"
        silver = record.silver if 0 <= record.silver < len(rows) else None
        rows = [
            views.Row(ctx.gain, row.title, row.text, ["silver", *row.marks] if i == silver else row.marks)
            for i, (ctx, row) in enumerate(zip(record.ctxs, rows, strict=True))
        ]
        rows.sort(key=lambda row: -(row.number or 0.0))
    return facts, rows


def row_of(passage: Scored, *marks: str) -> views.Row:
    """A candidate as it is shown, with further marks in front of its own."""
    own = [*marks]
    own += ["written by the model"] * (passage.origin == "generated")
    own += ["holds an answer"] * (passage.hasanswer is True) + ["gold"] * (passage.gold is True)
    return views.Row(passage.score, passage.title, passage.text, own)


@cache
def _kinds(kind: type[Record]) -> tuple[tuple[str, tuple[type, ...], type | None], ...]:
    """By field: its name, the types that it may have, and of a list of texts or records that of its items."""
    found = []
    for name, annotation in get_type_hints(kind).items():
        parts = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
        kinds: list[type] = []
        inner = None
        for part in parts:
            origin = get_origin(part)
            if origin is Literal:
                kinds.append(str)
            elif origin is list and isinstance(item := get_args(part)[0], type) and item is not float:
                kinds, inner = [*kinds, list], item
            else:
                kinds += [float, int] if part is float else [origin or part]
        found.append((name, tuple(kinds), inner))
    return tuple(found)


def _called(kind: type, inner: type | None) -> str:
    """A type in words."""
    if kind is list:
        return "a list of " + (_called(inner, None).removeprefix("a ") + "s" if inner else "numbers")
    names = {str: "a text", float: "a number", int: "a whole number", bool: "true or false", dict: "a mapping"}
    return names.get(kind, f"a {kind.__name__} record")


R = TypeVar("R", bound=Record)
