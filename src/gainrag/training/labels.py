"""What a selector learns from: the label of each passage of a question.

| labels | of a passage p | learned |
|---|---|---|
| `gain` | -log(PPL_cd(p) + 1), or of sampled answers log((right + 1/2) / (n + 1)), see gainrag.gain | list-wise |
| `relevance` | `RELEVANT` where p holds an answer, else 0 | list-wise |
| `likelihood` | -loss(p): log-likelihood of the answer (REPLUG, Shi et al. 2023) | list-wise |
| `information_gain` | loss without a passage - loss(p) | point-wise |
| `choice` | log softmax over the choices of -loss(c, p) / T at the right one, T = `CHOICE_TEMPERATURE` | list-wise |

Relevance has no unit, `choice` is in nats, the others are in nats per token. loss(p) of likelihood and information
gain is the plain one, at alpha 0; gain and choice take theirs at any alpha. Sampled labels have no losses: of these
there are gain and relevance alone.

List-wise: the teacher is softmax(label / temperature) over a group of passages; the best passage is always in it.
Point-wise: each pair is learned by itself, with the target sigmoid(label / temperature). Information gain is learned
so, because the loss without a passage is the same for all passages of a question and a softmax does not change when a
constant is added: learned list-wise, information gain would be the same as likelihood. The best scores are
label / temperature in both cases, so held-out figures and the calibration are computed alike for all kinds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np

from gainrag.errors import DataError
from gainrag.gain import CHOICE_TEMPERATURE
from gainrag.prompts import question_with_choices, selector_text
from gainrag.protocols import FloatArray
from gainrag.records import GainRecord, Retrieved
from gainrag.synthesis import choice_gains_at, gains_at, losses_at

Labels = Literal["gain", "relevance", "likelihood", "information_gain", "choice"]
POINT_WISE: tuple[Labels, ...] = ("information_gain",)
# Those that need the plain losses, whatever alpha the gains are at.
PLAIN: tuple[Labels, ...] = ("likelihood", "information_gain")
# Those that are taken from losses at an alpha of their own.
AT_ALPHA: tuple[Labels, ...] = ("gain", "choice")
T = TypeVar("T", bound=GainRecord | Retrieved)

# Log-odds of a passage with an answer against one without: almost certain, exp(-10) of the mass is left.
RELEVANT = 10.0

# Where `validation` is left out: from ENOUGH questions on a tenth of them is held out, or FEWEST on average if that
# is more.
ENOUGH, TENTH, FEWEST = 40, 0.1, 10


class Example(NamedTuple):
    """A question to learn from or to judge by, and the label of each of its passages."""

    record: GainRecord | Retrieved
    own: list[float]


def targets(record: GainRecord | Retrieved, labels: Labels, alpha: float | None = None) -> list[float]:
    """The label of each passage, before temperature.

    Args:
        alpha: of the gains, plain or normalised; the run's own when it is left out.

    Raises:
        DataError: the record has no gains, no losses at the alpha or of the choices, or no loss without a passage.
    """
    if labels == "relevance":
        return [RELEVANT if ctx.hasanswer else 0.0 for ctx in record.ctxs]
    gained = _gained(record)
    if labels == "gain":
        return gains_at(gained, alpha)
    if labels == "choice":
        return choice_gains_at(gained, alpha, CHOICE_TEMPERATURE)
    losses = losses_at(gained, 0.0)
    if labels == "likelihood":
        return [-loss for loss in losses]
    if gained.loss_without is None:
        raise DataError(
            "no loss without a passage", where=f"question {record.id}", hint="run `gainrag synthesize` again"
        )
    return [gained.loss_without - loss for loss in losses]


def split(
    records: Sequence[T], labels: Labels, only_kept: bool, validation: float | None, rng: np.random.Generator
) -> tuple[list[T], list[T]]:
    """The questions that can teach anything, in random order, as those to learn from and those held out.

    Whether a question is held out depends on its id alone (see `is_held_out`), so the share is met on average. At
    least one question is held out unless the share is 0.

    Args:
        validation: the share to hold out; None for the automatic one, see `held_out_share`.

    Raises:
        DataError: the labels need gains, and the records have none.
    """
    usable = [r for r in records if teaches(r, labels, only_kept)]
    order = [usable[i] for i in rng.permutation(len(usable))]
    share = held_out_share(validation, len(usable))
    held = [r for r in order if is_held_out(r.id, share)]
    if share and order and not held:
        held = [min(order, key=lambda r: _place(r.id))]
    ids = {id(r) for r in held}
    return [r for r in order if id(r) not in ids], held


def held_out_share(validation: float | None, questions: int) -> float:
    """The share of so many questions that is held out: the one that was set, else a tenth, or more of few questions.

    >>> held_out_share(0.3, 20), held_out_share(None, 1000), held_out_share(None, 40), held_out_share(None, 39)
    (0.3, 0.1, 0.25, 0.0)
    """
    if validation is not None:
        return validation
    return max(TENTH, FEWEST / questions) if questions >= ENOUGH else 0.0


def is_held_out(question_id: str, validation: float) -> bool:
    """Whether a question belongs to the share that is held out.

    The same for every training, whatever its labels and other questions: what one selector starts from must not have
    learned from questions that the next one is judged and calibrated on.
    """
    return _place(question_id) < validation


def _place(question_id: str) -> float:
    """A number from 0 to 1 for a question, evenly distributed and always the same."""
    return int.from_bytes(hashlib.sha256(question_id.encode()).digest()[:8]) / 2**64


def teaches(record: GainRecord | Retrieved, labels: Labels, only_kept: bool = False) -> bool:
    """Whether a question can teach anything: a ranking needs two passages whose labels differ.

    Relevance labels, and those from few sampled answers, are often all alike: such a question would teach that no
    feature matters.
    """
    if len(record.ctxs) < 2 or (labels != "relevance" and only_kept and not _gained(record).kept):
        return False
    return len(set(targets(record, labels))) > 1


def _gained(record: GainRecord | Retrieved) -> GainRecord:
    """The record with its gains.

    Raises:
        DataError: it has none.
    """
    if not isinstance(record, GainRecord):
        raise DataError(
            "no gains in these records", where=f"question {record.id}", hint="run `gainrag synthesize` first"
        )
    return record


def draw(own: Sequence[float], size: int, rng: np.random.Generator) -> list[int]:
    """The passages that a question shows in an epoch: the best one (a random one of several best) and random others.

    Returns:
        Their positions in `own`, at most `size`.
    """
    values = np.asarray(own)
    best = int(rng.choice(np.flatnonzero(values == values.max())))
    others = rng.permutation([i for i in range(len(values)) if i != best])[: size - 1]
    return [best, *map(int, others)]


def as_rows(
    record: GainRecord | Retrieved, chosen: Sequence[int], own: Sequence[float], labels: Labels, temperature: float
) -> list[dict[str, Any]]:
    """The passages shown as sentence-transformers' losses read them: list-wise one row, point-wise one row a passage.

    Args:
        chosen: the passages shown, see `draw`.
        own: the label of each of the question's passages.
    """
    asked = question_with_choices(record.question, record.choices)
    texts = [selector_text(record.ctxs[i]) for i in chosen]
    # Divided by the temperature, labels are the teacher's log-probabilities up to a constant, or its log-odds.
    scaled = [float(own[i]) / temperature for i in chosen]
    if labels in POINT_WISE:
        from scipy.special import expit

        return [
            {"question": asked, "passage": text, "label": float(expit(x))}
            for text, x in zip(texts, scaled, strict=True)
        ]
    return [{"question": asked, "passages": texts, "labels": scaled}]


def regret(scores: Sequence[FloatArray], own: Sequence[Sequence[float]]) -> float:
    """The mean of `regrets`."""
    return float(np.mean(regrets(scores, own)))


def regrets(scores: Sequence[FloatArray], own: Sequence[Sequence[float]]) -> FloatArray:
    """By how much the label of each question's highest-scored passage falls short of its best one's, [question], in the
    labels' unit: nats per token where they are gains.

    Args:
        scores, own: by question, scores and labels [passage].
    """
    return np.array([max(t) - t[int(np.argmax(s))] for s, t in zip(scores, own, strict=True)])


def standard_error(differences: FloatArray) -> float:
    """Of the mean of differences, one a question."""
    return float(differences.std() / len(differences) ** 0.5)
