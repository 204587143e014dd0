"""What a selector learns from: the label of each passage of a question.

| labels | of a passage p | learned |
|---|---|---|
| `gain` | -log(PPL_cd(p) + 1), METHOD section 1 | list-wise |
| `relevance` | `RELEVANT` where p holds an answer, else 0 | list-wise |
| `likelihood` | -loss(p): log-likelihood of the answer (REPLUG, Shi et al. 2023) | list-wise |
| `information_gain` | loss without a passage - loss(p) | point-wise |

All but relevance are in nats per token; loss(p) of the last two is the plain one, at alpha 0.

List-wise: the teacher is softmax(label / temperature) over a group of passages, the silver passage always among them.
Point-wise: each pair by itself, is the passage a help or a harm: the target is sigmoid(label / temperature). Within a
question the loss without a passage is the same for all passages, and a softmax does not see it: learned list-wise,
information gain would be the very same teacher as likelihood. What is learned point-wise has its optimum at the score
label / temperature, whose softmax is the list-wise teacher again: held-out figures and the calibration are alike for
all kinds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Literal, TypeVar

import numpy as np

from gainrag.errors import DataError
from gainrag.prompts import selector_text
from gainrag.protocols import FloatArray
from gainrag.records import GainRecord, Retrieved
from gainrag.synthesis import gains_at, losses_at

Labels = Literal["gain", "relevance", "likelihood", "information_gain"]
POINT_WISE: tuple[Labels, ...] = ("information_gain",)
# Those that need the plain losses, whatever alpha the gains are at.
PLAIN: tuple[Labels, ...] = ("likelihood", "information_gain")
T = TypeVar("T", bound=GainRecord | Retrieved)

# Log-odds between a passage with an answer and one without, as good as certain: exp(-10) of the mass is left.
RELEVANT = 10.0


def targets(record: GainRecord | Retrieved, labels: Labels, alpha: float | None = None) -> list[float]:
    """The label of each passage, before temperature.

    Args:
        alpha: of the gains; the run's own when it is left out.

    Raises:
        DataError: the record has no gains, no losses at the alpha, or no loss without a passage.
    """
    if labels == "relevance":
        return [RELEVANT if ctx.hasanswer else 0.0 for ctx in record.ctxs]
    gained = _gained(record)
    if labels == "gain":
        return gains_at(gained, alpha)
    losses = losses_at(gained, 0.0)
    if labels == "likelihood":
        return [-loss for loss in losses]
    if gained.loss_without is None:
        raise DataError(
            "no loss without a passage", where=f"question {record.id}", hint="run `gainrag synthesize` again"
        )
    return [gained.loss_without - loss for loss in losses]


def split(
    records: Sequence[T], labels: Labels, only_kept: bool, validation: float, rng: np.random.Generator
) -> tuple[list[T], list[T]]:
    """The questions that can teach anything, in the order of chance, as those to learn from and those held out.

    Who is held out is decided by the question alone (see `is_held_out`), so `validation` is met on average.

    Raises:
        DataError: the labels need gains, and the records have none.
    """
    usable = [r for r in records if _teaches(r, labels, only_kept)]
    order = [usable[i] for i in rng.permutation(len(usable))]
    held = [r for r in order if is_held_out(r.id, validation)]
    if validation and order and not held:
        held = [min(order, key=lambda r: _place(r.id))]
    ids = {id(r) for r in held}
    return [r for r in order if id(r) not in ids], held


def is_held_out(question_id: str, validation: float) -> bool:
    """Whether a question belongs to the share that is held out.

    The same for every training, whatever its labels and other questions: what one selector starts from must not have
    learned from questions that the next one is judged and calibrated on.
    """
    return _place(question_id) < validation


def _place(question_id: str) -> float:
    """Where a question stands between 0 and 1: as good as chance, and always the same."""
    return int.from_bytes(hashlib.sha256(question_id.encode()).digest()[:8]) / 2**64


def _teaches(record: GainRecord | Retrieved, labels: Labels, only_kept: bool) -> bool:
    """Whether a question can teach anything: a ranking needs two passages, relevance needs both kinds."""
    if len(record.ctxs) < 2:
        return False
    if labels == "relevance":
        return len(set(targets(record, labels))) == 2
    return _gained(record).kept or not only_kept


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
    """One visit of a question: where the best passage is (one of the best, by chance) and others, sampled anew."""
    values = np.asarray(own)
    best = int(rng.choice(np.flatnonzero(values == values.max())))
    others = rng.permutation([i for i in range(len(values)) if i != best])[: size - 1]
    return [best, *map(int, others)]


def as_rows(
    record: GainRecord | Retrieved, chosen: Sequence[int], own: Sequence[float], labels: Labels, temperature: float
) -> list[dict[str, Any]]:
    """A visit as sentence-transformers' losses read it: list-wise one row, point-wise one row a passage.

    Args:
        chosen: the passages shown, see `draw`.
        own: the label of each of the question's passages.
    """
    texts = [selector_text(record.ctxs[i]) for i in chosen]
    # Divided by the temperature, labels are the teacher's log-probabilities up to a constant, or its log-odds.
    scaled = [float(own[i]) / temperature for i in chosen]
    if labels in POINT_WISE:
        from scipy.special import expit

        return [
            {"question": record.question, "passage": text, "label": float(expit(x))}
            for text, x in zip(texts, scaled, strict=True)
        ]
    return [{"question": record.question, "passages": texts, "labels": scaled}]


def regret(scores: Sequence[FloatArray], own: Sequence[Sequence[float]]) -> float:
    """By how much the label of the highest-scored passage falls short of the best one's, on average."""
    return float(np.mean([max(t) - t[int(np.argmax(s))] for s, t in zip(scores, own, strict=True)]))
