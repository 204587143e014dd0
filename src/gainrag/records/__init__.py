"""The records that flow between stages: their fields, the values these may have, and their form in JSON.

One record is one line. Unknown keys of the input are kept in `extra` and written back. A value of another type fails
when the record is made. What types cannot say (an id that is blank, a silver passage that is not there) is said in
`check`, which everything that is read passes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from gainrag.errors import DataError
from gainrag.records import views

Origin = Literal["corpus", "generated"]
Level = Literal["exact", "bounded", "gold", "sampled"]
_LEVELS = get_args(Level)


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

# The key of a question, no field, that lists the ids of its gold passages before any were retrieved.
GOLD = "gold_passages"

# Which field of a record holds records in turn, and of what type.
_NESTED: dict[type[Record], type[Record]] = {Retrieved: Scored, GainRecord: Gained, Answer: Scored}


# Written behind the other fields, where files made before these were fields have them.
_LAST = (
    *("choices", "scores", "gold", "level", "choice_losses", "choice_losses_without", "threshold", "gold_ranks"),
    *("loss_low", "loss_high", "said", "right", "interval", "thinned", "said_without", "right_without"),
)
# A field with this value is left out of the file.
_UNSAID = {"origin": "corpus", "level": "exact"}
# Unknown keys are kept as they are, and so nested values must be such that they can be written again.
_DEEPEST = 64


def from_builtins(kind: type[R], value: object) -> R:
    """Make a record from decoded JSON; keys the type does not have go to `extra`.

    Raises:
        msgspec.ValidationError: a field is missing or of the wrong type; the message names its path.
    """
    return msgspec.convert(_with_extra(kind, value), kind)


def _with_extra(kind: type[Record], value: object) -> object:
    if not isinstance(value, dict):
        return value
    known = _known(kind)
    if "level" in value and value["level"] not in _LEVELS:
        known = known - {"level"}  # HotpotQA's questions have a level, too: of how hard they are
    extra = {key: item for key, item in value.items() if key not in known}
    lifted = {key: item for key, item in value.items() if key in known} if extra else dict(value)
    if extra:
        for key, item in extra.items():
            if isinstance(item, dict | list) and _deeper(item, _DEEPEST):
                raise msgspec.ValidationError(f"Value nested deeper than {_DEEPEST} - at `$.{key}`")
        lifted["extra"] = extra
    if kind in _NESTED and isinstance(lifted.get("ctxs"), list):
        lifted["ctxs"] = [_with_extra(_NESTED[kind], ctx) for ctx in lifted["ctxs"]]
    return lifted


@cache
def _known(kind: type[Record]) -> frozenset[str]:
    """The keys of a record in JSON."""
    return frozenset(kind.__struct_fields__) - {"extra"}


def _deeper(value: object, levels: int) -> bool:
    """Whether a value is nested deeper than so many levels."""
    inner: Iterable[object] = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels == 0 or any(_deeper(item, levels - 1) for item in inner if isinstance(item, dict | list))


def to_builtins(record: Record) -> dict[str, Any]:
    """The record as plain JSON data, `extra` merged back in. Fields without a default are always written.

    A field is never hidden by a key of the same name that came with the question: whoever answers a file of answers
    anew wants the new ones.
    """
    out: dict[str, Any] = {}
    for name in record.__struct_fields__:
        value = getattr(record, name)
        if name == "extra" or value is None or _UNSAID.get(name) == value:
            continue
        if isinstance(value, list) and value and isinstance(value[0], Record):
            value = [to_builtins(item) for item in value]
        out[name] = value
    # Struct fields come base class first; a record reads best with its id in front.
    ordered: dict[str, Any] = {key: out[key] for key in ("id", "question", "title", "text") if key in out}
    last = {key: out.pop(key) for key in _LAST if key in out}
    own = {**ordered, **out, **last}
    return {**own, **{key: value for key, value in record.extra.items() if key not in own}}


def encode(record: Record) -> bytes:
    """One JSON line, newline included."""
    return msgspec.json.encode(to_builtins(record)) + b"\n"


# --- values --------------------------------------------------------------------------------------------------------


def check(record: Record, where: str) -> None:
    """Whether a record's values can be right, beyond their types.

    | record | what it must have |
    |---|---|
    | all | an id |
    | Passage and its kinds | a text; finite scores |
    | Question and its kinds | a question; passages whose ids differ |
    | GainRecord | answers, passages, a silver one among them; finite gains and losses, all by the same alphas |

    Args:
        where: the file and line, for the error.

    Raises:
        DataError: it has not; the message names the field.
    """
    if isinstance(record, Passage):
        _check_passage(record, where, "")
    if isinstance(record, Question):
        _check_id(record.id, where, "id")
        if not record.question.strip():
            raise DataError("field question is empty", where=where, hint="remove the line or give it a question")
    if isinstance(record, Retrieved | GainRecord | Answer):
        _check_passages(record.ctxs, where)
    if isinstance(record, GainRecord):
        check_answers(record, where)
        _check_gains(record, where)
    if isinstance(record, Answer) and record.choice_losses is not None:
        _check_choice_losses(record.choice_losses, record, where, "choice_losses")


def check_answers(question: Question, where: str) -> None:
    """Whether a question has gold answers, as training and evaluation need.

    Raises:
        DataError: it has none, or a blank one.
    """
    if not question.answers:
        raise DataError("field answers is empty", where=where, hint="training and evaluation need gold answers")
    for i, answer in enumerate(question.answers):
        if not answer.strip():
            raise DataError(f"field answers[{i}] is blank", where=where, hint="remove the blank answer")


def check_choices(question: Question, where: str) -> list[str]:
    """The choices of a question.

    Raises:
        DataError: there are fewer than two, one is there twice, or one is blank.
    """
    choices = question.choices or []
    if len(choices) < 2 or len(set(choices)) < len(choices) or not all(choice.strip() for choice in choices):
        what = f"field choices is {choices!r:.60}"
        raise DataError(what, where=where, hint="give two or more choices, none blank and none twice, or leave it out")
    return choices


def right_choice(question: Question, where: str) -> int:
    """The position of the right one, answers[0], among a question's choices.

    Raises:
        DataError: these are no choices, or the answer is none of them.
    """
    choices = check_choices(question, where)
    if not question.answers or question.answers[0] not in choices:
        first = question.answers[0] if question.answers else None
        raise DataError(
            f"answers[0] is {first!r:.60}, which is none of the choices",
            where=where,
            hint="the right choice stands first in answers, letter for letter",
        )
    return choices.index(question.answers[0])


def gold_ranks(ctxs: Sequence[Scored]) -> list[int] | None:
    """Where the passages marked gold stand, from 1; None where none says whether it is.

    >>> gold_ranks([Scored(id="1", text="a"), Scored(id="2", text="b", gold=True), Scored(id="3", text="c", gold=True)])
    [2, 3]
    >>> gold_ranks([Scored(id="1", text="a")]) is None
    True
    """
    known = any(ctx.gold is not None for ctx in ctxs)
    return [rank for rank, ctx in enumerate(ctxs, 1) if ctx.gold] if known else None


def _check_passages(passages: Sequence[Scored], where: str) -> None:
    seen: set[str] = set()
    for i, passage in enumerate(passages):
        _check_passage(passage, where, f"ctxs[{i}].")
        if passage.id in seen:
            what = f"duplicate passage id {passage.id!r} at ctxs[{i}]"
            raise DataError(what, where=where, hint="ids must differ; remove or rename one")
        seen.add(passage.id)


def _check_passage(passage: Passage, where: str, at: str) -> None:
    _check_id(passage.id, where, f"{at}id")
    if not passage.text.strip():
        raise DataError(f"field {at}text is empty", where=where, hint="remove the passage or give it a text")
    if isinstance(passage, Scored):
        _check_finite(passage.score, where, f"{at}score")
        for name, score in (passage.scores or {}).items():
            _check_finite(score, where, f"{at}scores.{name}")


def _check_gains(record: GainRecord, where: str) -> None:
    again = "run `gainrag synthesize` again"
    if not 0 <= record.silver < len(record.ctxs):
        what = f"field silver is {record.silver}, and there are {len(record.ctxs)} passages"
        raise DataError(what, where=where, hint=again)
    _check_finite(record.loss_without, where, "loss_without")
    for alpha in record.ctxs[0].loss:
        if not _is_alpha(alpha):
            raise DataError(f"field ctxs[0].loss is by alpha, and {alpha!r} is none", where=where, hint=again)
    for i, passage in enumerate(record.ctxs):
        _check_finite(passage.gain, where, f"ctxs[{i}].gain")
        if record.level == "sampled":
            _check_sampled(passage, record, where, f"ctxs[{i}]")
        elif not passage.loss or passage.loss.keys() != record.ctxs[0].loss.keys():
            first = _listed(record.ctxs[0].loss)
            what = f"field ctxs[{i}].loss has alphas {_listed(passage.loss)}, ctxs[0].loss {first}"
            raise DataError(what, where=where, hint=again)
        for alpha, loss in passage.loss.items():
            _check_finite(loss, where, f"ctxs[{i}].loss.{alpha}")
        _check_bounds(passage, record, where, f"ctxs[{i}]")
        if passage.choice_losses is not None:
            if passage.choice_losses.keys() != passage.loss.keys():
                what = f"field ctxs[{i}].choice_losses has alphas {_listed(passage.choice_losses)}, loss has others"
                raise DataError(what, where=where, hint=again)
            for alpha, losses in passage.choice_losses.items():
                _check_choice_losses(losses, record, where, f"ctxs[{i}].choice_losses.{alpha}")
    if record.right_without is not None:
        _check_share(record.right_without, len(record.said_without or ()), where, "right_without")
    if record.choice_losses_without is not None:
        _check_choice_losses(record.choice_losses_without, record, where, "choice_losses_without")


def _check_bounds(passage: Gained, record: GainRecord, where: str, at: str) -> None:
    """Whether the bounds of a loss are there where they must be, and around it."""
    again = "run `gainrag synthesize` again"
    if (passage.loss_low is not None) != (record.level == "bounded"):
        what = "is missing" if passage.loss_low is None else f"is there, and the level is {record.level}"
        raise DataError(f"field {at}.loss_low {what}", where=where, hint=again)
    low, high = passage.loss_low or {}, passage.loss_high or {}
    if low and low.keys() != passage.loss.keys():
        what = f"field {at}.loss_low has alphas {_listed(low)}, loss {_listed(passage.loss)}"
        raise DataError(what, where=where, hint=again)
    for name, bounds in (("loss_low", low), ("loss_high", high)):
        for alpha, bound in bounds.items():
            _check_finite(bound, where, f"{at}.{name}.{alpha}")
            loss = passage.loss.get(alpha)
            if loss is None or (bound > loss if name == "loss_low" else bound < loss):
                what = f"field {at}.{name}.{alpha} is {bound}, and the loss {loss}"
                raise DataError(what, where=where, hint=again)


def _check_sampled(passage: Gained, record: GainRecord, where: str, at: str) -> None:
    """Whether a sampled label is one: as many answers as every passage has, and no losses."""
    again, said, first = "run `gainrag synthesize` again", passage.said or (), record.ctxs[0].said or ()
    if passage.loss or passage.right is None or len(said) != len(first):
        what = f"field {at}.said has {len(said)} answers, ctxs[0].said {len(first)}"
        what = f"field {at}.loss has losses, and the level is sampled" if passage.loss else what
        raise DataError(f"field {at}.right is missing" if passage.right is None else what, where=where, hint=again)
    _check_share(passage.right, len(said), where, f"{at}.right")


def _check_share(right: float, n: int, where: str, field: str) -> None:
    if not 0 <= right <= n or not n:
        hint = "run `gainrag synthesize` again"
        raise DataError(f"field {field} is {right:g}, of {n} answers", where=where, hint=hint)


def _check_choice_losses(losses: Sequence[float], record: Question, where: str, field: str) -> None:
    if len(losses) != len(record.choices or ()):
        what = f"field {field} has {len(losses)} losses, and there are {len(record.choices or ())} choices"
        raise DataError(what, where=where, hint="make the file again")
    for loss in losses:
        _check_finite(loss, where, field)


def _check_id(value: str, where: str, field: str) -> None:
    if not value.strip():
        raise DataError(f"field {field} is empty", where=where, hint="ids tell records apart")


def _check_finite(value: float | None, where: str, field: str) -> None:
    if value is not None and not math.isfinite(value):
        raise DataError(f"field {field} is {value}", where=where, hint="it must be a finite number")


def _is_alpha(name: str) -> bool:
    try:
        return 0 <= float(name) < math.inf
    except ValueError:
        return False


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
