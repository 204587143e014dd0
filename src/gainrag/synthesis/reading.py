"""What a record's labels say: the gains, losses and level of its candidates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from gainrag.errors import DataError
from gainrag.gain import choice_gain, gain_from_loss
from gainrag.records import Gained, GainRecord, Level, right_choice


def level_of(records: Iterable[GainRecord], where: str) -> Level | None:
    """What the labels of some records are; None of no records.

    Raises:
        DataError: they are of several levels. A gain from a loss and one from sampled answers have the same unit, but
            not the same scale: what learns from both, or averages them, would not know.
    """
    found = Counter(record.level for record in records)
    if len(found) > 1:
        listed = ", ".join(f"{n} {level}" for level, n in found.most_common())
        raise DataError(
            f"labels of several levels ({listed})",
            where=where,
            hint="label all questions in one way; see docs/labels.md",
        )
    return next(iter(found), None)


def is_certain(record: GainRecord) -> bool:
    """Whether no other candidate can be better than the silver passage, at the run's alpha, whatever is unknown of the
    losses: its upper bound lies below the lower bound of each of them. Exact losses leave nothing open.

    Raises:
        DataError: the labels are sampled.
    """
    if record.level == "sampled":
        raise _sampled(record)
    if record.level != "bounded":
        return True
    silver = record.ctxs[record.silver]
    alpha = next(iter(silver.loss))
    high = (silver.loss_high or {}).get(alpha)
    others = [(ctx.loss_low or ctx.loss)[alpha] for i, ctx in enumerate(record.ctxs) if i != record.silver]
    return high is not None and all(high < low for low in others)


def has_upper_bounds(record: GainRecord) -> bool:
    """Whether the losses of a record at the run's alpha are bounded from above."""
    return all(next(iter(ctx.loss)) in (ctx.loss_high or {}) for ctx in record.ctxs)


def gains_at(record: GainRecord, alpha: float | None) -> list[float]:
    """The gains of a record's candidates at an alpha for which losses are stored; None is the run's own.

    Raises:
        DataError: no losses are stored for this alpha.
    """
    if alpha is None:
        return [ctx.gain for ctx in record.ctxs]
    return [float(g) for g in gain_from_loss(losses_at(record, alpha))]


def choice_gains_at(record: GainRecord, alpha: float | None, temperature: float = 1.0) -> list[float]:
    """The normalised gains of the candidates of a question with choices, see `gainrag.gain.choice_gain`.

    Args:
        alpha: one for which losses are stored; None is the run's own.
        temperature: of the softmax over the choices.

    Raises:
        DataError: the losses of all choices are not stored, or none for this alpha.
    """
    losses = [choice_losses_of(record, ctx, alpha) for ctx in record.ctxs]
    return [float(g) for g in choice_gain(losses, right_choice(record, f"question {record.id}"), temperature)]


def choice_losses_of(record: GainRecord, ctx: Gained, alpha: float | None) -> list[float]:
    """The loss of each choice with one of the record's candidates.

    Raises:
        DataError: it is not stored.
    """
    if record.level == "sampled":
        raise _sampled(record)
    if ctx.choice_losses is None:
        what = "the losses of choices are not stored" if record.choices else "it has no choices"
        raise DataError(what, where=f"question {record.id}", hint=_WITH_CHOICES)
    # The run's own alpha is the first that was asked for.
    name = next(iter(ctx.choice_losses)) if alpha is None else str(float(alpha))
    if name not in ctx.choice_losses:
        raise _no_loss(record, name, ctx.choice_losses)
    return ctx.choice_losses[name]


def choice_gain_without(record: GainRecord, temperature: float = 1.0) -> float:
    """The normalised gain of a question with choices where no passage is read.

    Raises:
        DataError: the losses of all choices are not stored.
    """
    if record.level == "sampled":
        raise _sampled(record)
    if record.choice_losses_without is None:
        what = "the losses of choices without a passage are not stored"
        raise DataError(what, where=f"question {record.id}", hint=_WITH_CHOICES)
    right = right_choice(record, f"question {record.id}")
    return float(choice_gain(record.choice_losses_without, right, temperature))


_WITH_CHOICES = "run `gainrag synthesize` on questions with `choices`"


def _sampled(record: GainRecord) -> DataError:
    return DataError(
        "its labels are sampled answers, without losses",
        where=f"question {record.id}",
        hint="learn from labels gain, without an alpha, or label with a model that tells log-probabilities",
    )


def _no_loss(record: GainRecord, name: str, there: Iterable[str]) -> DataError:
    return DataError(
        f"no loss at alpha {name} (there are {', '.join(there)})",
        where=f"question {record.id}",
        hint=f"run `gainrag synthesize` with --alpha {name} too",
    )


def losses_at(record: GainRecord, alpha: float) -> list[float]:
    """The stored losses of a record's candidates at an alpha, nats per token.

    Raises:
        DataError: no losses are stored for this alpha.
    """
    if record.level == "sampled":
        raise _sampled(record)
    name = str(float(alpha))
    if missing := [ctx for ctx in record.ctxs if name not in ctx.loss]:
        raise _no_loss(record, name, missing[0].loss)
    return [ctx.loss[name] for ctx in record.ctxs]
