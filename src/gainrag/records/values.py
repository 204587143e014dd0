"""What the types of a record cannot say of its values: an id that is blank, a silver passage that is not there."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from gainrag.errors import DataError
from gainrag.records.fields import Answer, Gained, GainRecord, Passage, Question, Record, Retrieved, Scored


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
