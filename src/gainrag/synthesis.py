"""Candidates -> gains: how much does each passage help this language model to the right answer?

For each question every candidate's contrastive loss at every alpha (see gainrag.gain), the gain at the run's
alpha, the silver passage, and whether the model answers correctly from the silver passage alone (the keep-filter).
Where a question has choices, each of them is scored as an answer is, and the answer is the one of least plain loss:
nothing is generated.
Records are written as they are made, see gainrag.files.resuming.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec
import numpy as np

from gainrag import metrics
from gainrag.answering import decide, generate_answers
from gainrag.errors import ConfigError, DataError, unknown
from gainrag.files.progress import progress, say
from gainrag.files.resuming import write_resumable
from gainrag.gain import best_loss, choice_gain, entropy, gain_from_loss, silver_index, teacher
from gainrag.prompts import PromptForm, Prompts, for_model, wording
from gainrag.protocols import (
    Generator,
    Hardware,
    ScorerGenerator,
    ScoringRequest,
    chunk_for,
    losses_with,
    need,
)
from gainrag.records import Gained, GainRecord, Question, Retrieved, right_choice
from gainrag.settings import Alpha, Some, Tokens, checked

# Questions whose silver answers are generated together; also what a kill may cost. Fixed: see gainrag.files.resuming.
CHUNK = {"cpu": 16, "cuda": 512, "remote": 64}

# An answer of more words no model repeats word for word: of such an answer the keep-filter asks for the gain.
LONG = 10

Keep = Literal["contains", "exact_match", "gain"]
FILTERS = {"contains": metrics.contains, "exact_match": metrics.exact_match}


@checked
def synthesize(
    candidates: Sequence[Retrieved],
    lm: ScorerGenerator,
    out: str | Path | None = None,
    settings: dict[str, object] | None = None,
    *,
    alpha: Alpha | Sequence[Alpha] = 0.5,
    prompt: PromptForm | None = None,
    keep: Keep = "contains",
    max_new_tokens: Tokens = 16,
) -> list[GainRecord]:
    """The gain of every candidate of every question.

    Args:
        out: where to write records as they are made; a run that was stopped continues there.
        settings: what else they depend on (model, input), checked when a stopped run continues.
        alpha: the weight of the contrast; of several, losses are stored for all and gains are at the first.
        prompt: the prompt form, completion or chat; when left out chat for a model behind an endpoint, else completion.
        keep: which questions are kept: those whose answer from the silver passage is right by contains or
            exact_match, or those whose best passage has a higher gain than no passage: gain. Questions with choices
            (by the normalised gain) and those whose answers have all more than ten words always need the latter.
        max_new_tokens: the longest silver answer, in tokens.

    Raises:
        DataError: no questions, one without answers or without passages, one whose choices lack the right answer, or
            one that does not fit the model's context with its longest answer; all are checked before the first is
            scored.
        ConfigError: no alpha, a negative one, no such prompt form or filter, or the model is no scorer and generator.
        ModelError: a loss is not finite, or the model returns losses or texts of another number.
    """
    if not candidates:
        raise DataError("no questions", where="synthesize", hint="pass candidates: see `gainrag augment`")
    alphas = as_alphas(alpha)
    if keep not in get_args(Keep):
        raise ConfigError(unknown("filter", keep, get_args(Keep)), where="keep")
    need(lm, ScorerGenerator, what="lm", where="synthesize", hint="pass open_lm(..), or see gainrag.protocols")
    prompts = for_model(prompt, lm)
    for record in candidates:
        check_candidates(record)
        reserve = reserve_for(prompts, record, max_new_tokens)
        prompts.check(record.question, reserve=reserve, where=f"question {record.id}")

    # A choice is answered by the plain losses.
    scored = as_alphas([*alphas, 0.0]) if any(record.choices for record in candidates) else alphas
    if keep != "gain" and (other := sum(by_gain(record) for record in candidates)):
        say(
            f"{other} of {len(candidates)} questions have choices or answers of more than {LONG} words: these are kept "
            "where the best passage has a higher gain than no passage"
        )

    def make(part: Sequence[Retrieved]) -> list[GainRecord]:
        requests = [with_nothing_last(scoring_request(prompts, record, max_new_tokens)) for record in part]
        # Rounded before anything is derived, so that what is read from the file is what was decided on.
        every = [found.round(6) for found in losses_with(lm, requests, scored)]
        made = [_unanswered(r, losses, scored) for r, losses in zip(part, every, strict=True)]
        open_ended = [i for i, record in enumerate(made) if not record.choices]
        read = [requests[i].with_prompts[made[i].silver] for i in open_ended]
        texts = generate_answers(lm, prompts, read, max_new_tokens) if read else []
        for i, text in zip(open_ended, texts, strict=True):
            made[i].prediction = text
        for record in made:
            record.kept = _is_kept(record, keep)
        return made

    chunk = chunk_for(lm, CHUNK)
    own = {**(settings or {}), "alpha": alphas, "prompt": prompts.form, "keep": keep, "max_new_tokens": max_new_tokens}
    own["wording"] = wording(prompts.form)
    rate = lm.rate if isinstance(lm, Hardware) else None
    return write_resumable(out, candidates, make, kind=GainRecord, chunk=chunk, settings=own, what="gains", rate=rate)


def as_alphas(alpha: float | Sequence[float]) -> list[float]:
    """One alpha or several as a list without repeats, in their order.

    Raises:
        ConfigError: none, or a negative or infinite one.
    """
    given = [float(alpha)] if isinstance(alpha, int | float) else [float(a) for a in alpha]
    if not given:
        raise ConfigError("no alpha is given", where="alpha", hint="0 is plain perplexity, 0.5 the published contrast")
    for a in given:
        if not 0 <= a < float("inf"):
            raise ConfigError(f"alpha is {a}", where="alpha", hint="use a number from 0 up")
    return list(dict.fromkeys(given))


def check_candidates(record: Retrieved) -> None:
    """Whether a question can be labelled at all.

    Raises:
        DataError: it has no answers, an empty one, no passages, or choices of which the first answer is none.
    """
    where = f"question {record.id}"
    if not record.answers or not all(answer.strip() for answer in record.answers):
        raise DataError("no answers, or an empty one", where=where, hint="gains need gold answers; remove the question")
    if not record.ctxs:
        raise DataError("no passages", where=where, hint="retrieve or augment first")
    if record.choices is not None:
        right_choice(record, where)


def reserve_for(prompts: Prompts, record: Retrieved, max_new_tokens: int) -> int:
    """Tokens to keep free behind a question's prompts: for its longest answer, and for the answer that is written."""
    return max(prompts.answer_tokens(what_is_scored(record)), max_new_tokens)


def what_is_scored(record: Question) -> list[str]:
    """The answers that a question's prompts are scored with: its choices where it has some, else its gold answers."""
    return record.choices or record.answers


def scoring_request(prompts: Prompts, record: Retrieved, max_new_tokens: int = 0) -> ScoringRequest:
    """A question's prompts and answers as a Scorer wants them; there is room for an answer of `max_new_tokens`, too."""
    reserve = reserve_for(prompts, record, max_new_tokens)
    return ScoringRequest(
        with_prompts=[prompts.with_passages(record.question, [passage], reserve=reserve) for passage in record.ctxs],
        without_prompt=prompts.without(record.question),
        answers=[prompts.scored_answer(answer) for answer in what_is_scored(record)],
    )


def with_nothing_last(request: ScoringRequest) -> ScoringRequest:
    """The request with the prompt without a passage as one more "passage" at the end. Its contrast with itself is
    nothing, so that its loss is the same at every alpha: the plain loss of the answer when nothing is read."""
    return ScoringRequest(
        with_prompts=[*request.with_prompts, request.without_prompt],
        without_prompt=request.without_prompt,
        answers=request.answers,
    )


def by_gain(record: Question) -> bool:
    """Whether the keep-filter asks for a question's gain whatever `keep` says. With choices, a small model may choose
    one and the same always, and whoever asks for right answers keeps that class alone; a long answer is never
    contained in what a model writes."""
    return bool(record.choices) or all(len(answer.split()) > LONG for answer in record.answers)


def _unanswered(record: Retrieved, losses: Any, alphas: Sequence[float]) -> GainRecord:
    """The label record without what an open question is answered.

    Args:
        losses: of each passage and, as the last "passage", of none: [passage, answer, alpha], nats per token.
    """
    right = right_choice(record, f"question {record.id}") if record.choices else None
    own = best_loss(losses) if right is None else losses[:, right]  # [passage, alpha]
    gains = gain_from_loss(own[:-1])[:, 0]
    silver, names = silver_index(gains), [str(a) for a in alphas]
    ctxs = []
    for passage, loss, gain, every in zip(record.ctxs, own, gains, losses, strict=False):
        scored = Gained(**msgspec.structs.asdict(passage), loss=_named(names, loss), gain=round(float(gain), 6))
        if record.choices:
            scored.choice_losses = _named(names, every.T)
        ctxs.append(scored)
    made = GainRecord(
        id=record.id,
        question=record.question,
        answers=record.answers,
        choices=record.choices,
        extra=record.extra,
        kept=False,
        prediction="",
        silver=silver,
        loss_without=float(own[-1, 0]),
        ctxs=ctxs,
    )
    if record.choices:
        made.choice_losses_without = losses[-1, :, 0].tolist()
        made.prediction = decide(record.choices, losses[silver, :, list(alphas).index(0.0)].tolist())
    return made


def _named(names: Sequence[str], values: Any) -> dict[str, Any]:
    """Numbers, or arrays of them, as plain data by name."""
    return {name: value.tolist() for name, value in zip(names, values, strict=True)}


def _is_kept(record: GainRecord, keep: Keep) -> bool:
    """Whether a question passes the keep-filter, see `synthesize`."""
    if keep != "gain" and not by_gain(record):
        return bool(FILTERS[keep](record.prediction, record.answers))
    if record.choices:
        return max(choice_gains_at(record, None)) > choice_gain_without(record)
    assert record.loss_without is not None  # or it was not made here
    return record.ctxs[record.silver].gain > round(float(gain_from_loss(record.loss_without)), 6)


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
    if record.choice_losses_without is None:
        what = "the losses of choices without a passage are not stored"
        raise DataError(what, where=f"question {record.id}", hint=_WITH_CHOICES)
    right = right_choice(record, f"question {record.id}")
    return float(choice_gain(record.choice_losses_without, right, temperature))


_WITH_CHOICES = "run `gainrag synthesize` on questions with `choices`"


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
    name = str(float(alpha))
    if missing := [ctx for ctx in record.ctxs if name not in ctx.loss]:
        raise _no_loss(record, name, missing[0].loss)
    return [ctx.loss[name] for ctx in record.ctxs]


def summarize(records: Sequence[GainRecord]) -> dict[str, Any]:
    """The quality of the labels in figures: shares of kept questions, of silver passages that hold an answer or are
    the pseudo-passage, and the teacher's mean entropy (nats) at temperature 1 beside that of a flat one.

    Raises:
        DataError: there is no record.
    """
    if not records:
        raise DataError("no questions", where="summary of gains", hint="run `gainrag synthesize` on candidates first")
    silver = [record.ctxs[record.silver] for record in records]
    return {
        "questions": len(records),
        "kept": float(np.mean([record.kept for record in records])),
        "silver_holds_answer": float(
            np.mean([metrics.holds_answer(p, r.answers) for p, r in zip(silver, records, strict=True)])
        ),
        "silver_is_pseudo": float(np.mean([passage.origin == "generated" for passage in silver])),
        "teacher_entropy": float(np.mean([entropy(teacher(gains_at(r, None))) for r in records])),
        "flat_entropy": float(np.mean([np.log(len(r.ctxs)) for r in records])),
    }


def evenly_spaced(records: Sequence[GainRecord], sample: int) -> list[GainRecord]:
    """So many of the records, evenly spaced; all where there are fewer."""
    return [records[i] for i in np.linspace(0, len(records) - 1, min(sample, len(records))).round().astype(int)]


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
        DataError: no question of the sample has both right and wrong candidates.
    """
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
        raise DataError(
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
