"""How good labels are: a summary of each file, the alphas compared by answering every candidate, and how far the labels
of two models agree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

from gainrag import metrics
from gainrag.answering import decide, generate_answers
from gainrag.errors import DataError
from gainrag.files.progress import progress
from gainrag.gain import entropy, silver_index, teacher
from gainrag.prompts import PromptForm, for_model
from gainrag.protocols import Generator
from gainrag.records import GainRecord
from gainrag.settings import Some, Tokens, checked
from gainrag.statistics import mean_interval, rank_correlation, share_interval
from gainrag.synthesis.reading import choice_losses_of, gains_at, has_upper_bounds, is_certain, level_of

T = TypeVar("T")


def summarize(records: Sequence[GainRecord]) -> dict[str, Any]:
    """The quality of the labels in figures: their level, shares of kept questions, of silver passages that hold an
    answer or are the pseudo-passage, and the teacher's mean entropy (nats) at temperature 1 beside that of a flat one.
    Of bounded labels also `certain`, the share of questions whose silver passage is the best whatever is not known, and
    whether there are `upper_bounds`. Of sampled ones `answers` (a passage), `right`, the share of them that is right,
    and `telling`, the share of questions whose passages differ in it: no others teach anything.

    Raises:
        DataError: there is no record, or they are of several levels.
    """
    if not records:
        raise DataError("no questions", where="summary of gains", hint="run `gainrag synthesize` on candidates first")
    silver = [record.ctxs[record.silver] for record in records]
    level = level_of(records, "summary of gains")
    return {
        "level": level,
        "questions": len(records),
        "kept": float(np.mean([record.kept for record in records])),
        "silver_holds_answer": float(
            np.mean([metrics.holds_answer(p, r.answers) for p, r in zip(silver, records, strict=True)])
        ),
        "silver_is_pseudo": float(np.mean([passage.origin == "generated" for passage in silver])),
        "teacher_entropy": float(np.mean([entropy(teacher(gains_at(r, None))) for r in records])),
        "flat_entropy": float(np.mean([np.log(len(r.ctxs)) for r in records])),
        **(_sampled(records) if level == "sampled" else {}),
        **(_bounded(records) if level == "bounded" else {}),
    }


def _bounded(records: Sequence[GainRecord]) -> dict[str, Any]:
    """The figures of bounded labels alone."""
    return {
        "certain": float(np.mean([is_certain(record) for record in records])),
        "upper_bounds": all(has_upper_bounds(record) for record in records),
    }


def _sampled(records: Sequence[GainRecord]) -> dict[str, Any]:
    """The figures of sampled labels alone."""
    answers = [len(ctx.said or ()) for r in records for ctx in r.ctxs]
    shares = [[(ctx.right or 0.0) / max(1, len(ctx.said or ())) for ctx in r.ctxs] for r in records]
    return {
        "answers": max(answers),
        "right": float(np.mean([share for own in shares for share in own])),
        "telling": float(np.mean([len(set(own)) > 1 for own in shares])),
    }


def evenly_spaced(records: Sequence[T], sample: int) -> list[T]:
    """So many of the records, evenly spaced; all where there are fewer."""
    return [records[i] for i in np.linspace(0, len(records) - 1, min(sample, len(records))).round().astype(int)]


class NothingToCompareError(DataError):
    """No question has both right and wrong candidates."""


@checked
def diagnose(
    records: Sequence[GainRecord],
    lm: Generator,
    *,
    sample: Some = 50,
    prompt: PromptForm | None = None,
    max_new_tokens: Tokens = 16,
) -> dict[str, Any]:
    """How well gains tell the candidates that yield a right answer, by alpha, and the alpha to recommend.

    Every candidate of `sample` questions, evenly spaced, is answered. By alpha: `auc`, the mean over questions (those
    with right and wrong candidates) of the chance that a right candidate has the higher gain; `pick`, mean F1 of the
    answer from the candidate of highest gain, of questions with choices its accuracy. Recommended is the highest AUC,
    the smaller alpha of equals.

    Raises:
        NothingToCompareError: no question of the sample has both right and wrong candidates.
        DataError: the labels have no losses.
    """
    if level_of(records, "diagnosis") == "sampled":
        raise DataError(
            "sampled labels have no alphas to compare",
            where="diagnosis",
            hint="leave it out: the share of right answers is in the labels",
        )
    prompts = for_model(prompt, lm)
    chosen = evenly_spaced(records, sample)
    alphas = list(chosen[0].ctxs[0].loss)
    aucs: dict[str, list[float]] = {a: [] for a in alphas}
    picks: dict[str, list[float]] = {a: [] for a in alphas}
    first: list[float] = []
    for record in progress(chosen, "answering every candidate", unit="questions"):
        if record.choices:  # the labels say what is answered
            said = [decide(record.choices, choice_losses_of(record, ctx, 0.0)) for ctx in record.ctxs]
            f1 = [metrics.accuracy(text, record.answers) for text in said]
            right = [score > 0 for score in f1]
        else:
            rendered = [prompts.with_passages(record.question, [ctx], reserve=max_new_tokens) for ctx in record.ctxs]
            texts = generate_answers(lm, prompts, rendered, max_new_tokens)
            right = [metrics.contains(text, record.answers) > 0 for text in texts]
            f1 = [metrics.f1(text, record.answers) for text in texts]
        first.append(f1[0])
        for a in alphas:
            gains = gains_at(record, float(a))
            picks[a].append(f1[silver_index(gains)])
            if (auc := metrics.auc_within(gains, right)) is not None:
                aucs[a].append(auc)
    if not aucs[alphas[0]]:
        raise NothingToCompareError(
            "no question has both right and wrong candidates, so no alpha can be told from another",
            where=f"sample of {len(chosen)}",
            hint="diagnose more questions, or retrieve more passages",
        )
    by_alpha = {a: {"auc": float(np.mean(aucs[a])), "pick": float(np.mean(picks[a]))} for a in alphas}
    best = max(alphas, key=lambda a: (round(by_alpha[a]["auc"], 3), -float(a)))
    return {
        "sample": len(chosen),
        "with_both": len(aucs[best]),
        "first": float(np.mean(first)),
        "by_alpha": by_alpha,
        "recommended_alpha": float(best),
    }


def recommended_alpha(recorded: object) -> float | None:
    """The alpha that a diagnosis recommends, from what is recorded beside labels; None where there was none.

    >>> recommended_alpha({"diagnosis": {"recommended_alpha": 0.5}}), recommended_alpha({"diagnosis": None})
    (0.5, None)
    """
    found = recorded.get("diagnosis") if isinstance(recorded, dict) else None
    alpha = found.get("recommended_alpha") if isinstance(found, dict) else None
    return float(alpha) if isinstance(alpha, int | float) else None


def describe(summary: dict[str, Any], diagnosis: dict[str, Any] | None = None) -> str:
    """Summary and diagnosis as a few lines for a person."""
    lines = [
        f"{summary['questions']} questions, {summary['kept']:.1%} kept (answered correctly from the silver passage; "
        "choices and long answers: helped by a passage)",
        f"the silver passage contains an answer for {summary['silver_holds_answer']:.1%} of the questions, "
        f"and is the pseudo-passage for {summary['silver_is_pseudo']:.1%}",
        f"teacher entropy at temperature 1: {summary['teacher_entropy']:.2f} nats "
        f"(a uniform one: {summary['flat_entropy']:.2f})",
    ]
    level = summary.get("level", "exact")  # files from before there were others do not say
    if level == "sampled":
        lines.append(
            f"labels: sampled, {summary['answers']} answers a passage, {summary['right']:.1%} of them right; in "
            f"{summary['telling']:.1%} of the questions some passages yield more right answers than others"
        )
    elif level == "bounded":
        why = "" if summary["upper_bounds"] else " (there are no upper bounds: set floor, or use alpha 0)"
        certain = f"the silver passage is certain for {summary['certain']:.1%} of the questions"
        lines.append(f"labels: bounded; {certain}{why}")
    else:
        lines.append(f"labels: {level}")
    return "\n".join([*lines, describe_diagnosis(diagnosis)] if diagnosis else lines)


def describe_diagnosis(diagnosis: dict[str, Any]) -> str:
    """The diagnosis as a few lines for a person."""
    lines = [
        f"{diagnosis['sample']} questions answered from every candidate, {diagnosis['with_both']} of them with right "
        f"and wrong answers; F1 from the first candidate {diagnosis['first']:.3f}"
    ]
    for a, figures in diagnosis["by_alpha"].items():
        auc, pick = figures["auc"], figures["pick"]
        lines.append(f"  alpha {a}: AUC of gain for right against wrong {auc:.3f}, F1 from the highest gain {pick:.3f}")
    return "\n".join([*lines, f"recommended alpha: {diagnosis['recommended_alpha']}"])


def agree(one: Sequence[GainRecord], other: Sequence[GainRecord]) -> dict[str, Any]:
    """How far the labels of two models agree, on the questions and candidates that both have.

    Args:
        one: of the model that labels, the proxy.
        other: of the model that answers.

    Returns:
        `questions`; `levels`, of either; `rank_correlation`: mean with low and high (95%) of Spearman's correlation of
        the gains within a question, and how many are `undefined`, one model's gains being all equal; `same_silver`:
        of k of n questions the silver passage of the one is the other's, too, or as good to it, with Wilson's
        interval; `regret`: by how many nats of the other's gain it falls short of the best, mean with low and high, and
        `chance`, that of a passage drawn at random.

    Raises:
        DataError: they have no question in common, or either is of several levels.
    """
    levels = [level_of(records, "agreement of labels") for records in (one, other)]
    by_id = {record.id: record for record in other}
    rhos, same, lost, chance = [], [], [], []
    for record in one:
        if record.id not in by_id:
            continue
        theirs = {ctx.id: ctx.gain for ctx in by_id[record.id].ctxs}
        pairs = [(ctx.gain, theirs[ctx.id]) for ctx in record.ctxs if ctx.id in theirs]
        if not pairs:
            continue
        mine, own = [gain for gain, _ in pairs], [gain for _, gain in pairs]
        rhos.append(rank_correlation(mine, own))
        chosen = silver_index(mine)
        same.append(own[chosen] == max(own))
        lost.append(max(own) - own[chosen])
        chance.append(max(own) - float(np.mean(own)))
    if not same:
        raise DataError("no question is labelled by both", where="agreement of labels", hint="label the same questions")
    defined = [rho for rho in rhos if rho is not None]
    return {
        "questions": len(same),
        "levels": levels,
        "rank_correlation": {**_mean(defined), "undefined": len(rhos) - len(defined)},
        "same_silver": dict(
            zip(("k", "n", "low", "high"), (sum(same), len(same), *share_interval(sum(same), len(same))), strict=True)
        ),
        "regret": {**_mean(lost), "chance": float(np.mean(chance))},
    }


def _mean(values: Sequence[float]) -> dict[str, float | None]:
    low, high = mean_interval(values)
    return {"mean": float(np.mean(values)) if values else None, "low": low, "high": high}


def describe_agreement(found: dict[str, Any]) -> str:
    """How far two models' labels agree, as a line for a person."""
    rho, same, regret = found["rank_correlation"], found["same_silver"], found["regret"]
    correlation = "not defined" if rho["mean"] is None else f"{rho['mean']:.2f}"
    return (
        f"the proxy's labels against the reader's own, {found['questions']} questions: rank correlation {correlation}, "
        f"the same silver passage for {same['k'] / same['n']:.1%}, regret of the proxy's {regret['mean']:.3f} nats "
        f"(a random passage's: {regret['chance']:.3f})"
    )
