"""What is learned once the weights are fixed, and whether the selector is fit to be saved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from gainrag.errors import ModelError
from gainrag.files.progress import say
from gainrag.gain import teacher
from gainrag.prompts import question_with_choices
from gainrag.protocols import FloatArray, scores_with
from gainrag.records import GainRecord, Retrieved
from gainrag.selectors import PRIOR, open_selector
from gainrag.selectors.calibration import Calibration, fit
from gainrag.selectors.lazy import Laziness
from gainrag.selectors.scoring import score_pairs
from gainrag.training.held_out import JUDGES, check_numbers, check_order, regret_of_retrieval
from gainrag.training.labels import Example, regret
from gainrag.training.laziness import calibration_questions, learn_threshold
from gainrag.training.settings import Settings

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

# Questions learned from whose scores are looked at where none is held out.
LOOKED_AT = 50


class Finished(NamedTuple):
    """What is learned once the weights are fixed, and the figures for the model card."""

    calibration: Calibration | None
    laziness: Laziness | None
    figures: dict[str, float | str | None]


def finish(
    model: CrossEncoder,
    records: Sequence[GainRecord] | Sequence[Retrieved],
    learn: list[Example],
    held: list[Example],
    scores: list[FloatArray],
    settings: Settings,
    *,
    bf16: bool,
) -> Finished:
    """Calibrate, refuse what must not be saved, and learn the threshold.

    Args:
        scores: of the held-out questions.

    Raises:
        ModelError: the selector must not be saved.
    """
    asked: list[GainRecord | Retrieved] = []
    if settings.labels != "relevance":
        learned, judges = ([question.record for question in part] for part in (learn, held))
        asked = calibration_questions(records, learned, judges, settings.seed)
    looked_at = [question.record for question in held or learn[:LOOKED_AT]]
    scores_of = {id(q.record): found for q, found in zip(held, scores, strict=True)}
    more = list({id(r): r for r in (*looked_at, *asked) if id(r) not in scores_of}.values())
    found = score_pairs(model, [(question_with_choices(r.question, r.choices), r.ctxs) for r in more], bf16=bf16)
    scores_of |= {id(r): own for r, own in zip(more, found, strict=True)}
    check_numbers(list(scores_of.values()))

    calibration, figures = None, dict[str, float | str | None]()
    if held:
        calibration, figures = _calibrate(held, scores, settings)

    def final(part: Sequence[GainRecord | Retrieved]) -> list[FloatArray]:
        own = [scores_of[id(r)] for r in part]
        return [calibration.apply(r.ctxs, s) for r, s in zip(part, own, strict=True)] if calibration else own

    check_order(final(looked_at))
    if held:
        figures |= compare_with_retrieval(final(looked_at), held, settings.keep_worse)
        figures |= compare_with_shipped(final(looked_at), held, settings)
    laziness = None
    if asked:
        laziness = learn_threshold([r.ctxs for r in asked], final(asked), held_out=bool(held))
        figures |= {"lazy threshold": laziness.threshold, "questions that skip the pseudo-passage": laziness.skipped}
    return Finished(calibration, laziness, figures)


def _calibrate(
    held: list[Example], scores: list[FloatArray], settings: Settings
) -> tuple[Calibration | None, dict[str, float | str | None]]:
    """How the retrievers' scores are weighed, where that is asked for, and the held-out figures with and without."""
    lists, own = [question.record.ctxs for question in held], [question.own for question in held]
    fitted, together, alone = fit(lists, scores, [teacher(labels, settings.sharpness) for labels in own])
    figures: dict[str, float | str | None] = {
        "held-out regret (nats)": regret(scores, own),
        "held-out cross-entropy (nats)": alone,
    }
    if not settings.retrieval_prior:
        return None, figures
    combined = [fitted.apply(passages, s) for passages, s in zip(lists, scores, strict=True)]
    return fitted, figures | {
        "with retrieval prior: regret": regret(combined, own),
        "with retrieval prior: cross-entropy": together,
        "scale": fitted.scale,
        **{f"weight of {name}": weight for name, weight in fitted.weights.items()},
        "level of the pseudo-passage": fitted.pseudo,
    }


def compare_with_retrieval(
    scores: Sequence[FloatArray], held: list[Example], keep_worse: bool
) -> dict[str, float | str | None]:
    """Whether the selector's first choices are as good as the retriever's; the model card says what was found.

    Raises:
        ModelError: they are worse, and keep_worse is off.
    """
    own, before = regret(scores, [question.own for question in held]), regret_of_retrieval(held)
    figures: dict[str, float | str | None] = {"held-out regret of the retriever's order (nats)": before}
    line = f"regret {own:.4f} against {before:.4f} on {len(held)} held-out questions"
    if len(held) < JUDGES:
        say(f"selector and retriever's order: {line}, too few to compare")
    elif own <= before:
        say(f"the selector is no worse than the retriever's order: {line}")
    elif keep_worse:
        say(f"warning: the selector is worse than the retriever's order: {line}; it is saved all the same")
        figures["worse than the retriever's order"] = "yes, and saved all the same (keep_worse)"
    else:
        raise ModelError(
            f"the trained selector is worse than the retriever's order ({line}); it is not saved",
            where="train",
            hint="label more questions, give a cross-encoder a warm start or its retrieval prior, or use --keep-worse",
        )
    return figures


def compare_with_shipped(
    scores: Sequence[FloatArray], held: list[Example], settings: Settings
) -> dict[str, float | str | None]:
    """Whether the selector's first choices are as good as those of the one that ships, which needs no training. Labels
    relevance say nothing of it: it learned from gains."""
    if settings.labels == "relevance" or len(held) < JUDGES:
        return {}
    lists = [(question_with_choices(q.record.question, q.record.choices), q.record.ctxs) for q in held]
    labels = [question.own for question in held]
    own, shipped = regret(scores, labels), regret(scores_with(open_selector(PRIOR), lists), labels)
    if own <= shipped:
        return {}
    say(
        f"warning: the selector is worse than {PRIOR}, which ships and needs no training: regret {own:.4f} against "
        f"{shipped:.4f} on {len(held)} held-out questions"
    )
    return {"held-out regret of the selector that ships (nats), which is better": shipped}
