"""Candidates -> gains: how much does each passage help this language model to the right answer?

For each question every candidate's contrastive loss at every alpha (see gainrag.gain), the gain at the run's
alpha, the silver passage, and whether the model answers correctly from the silver passage alone (the keep-filter).
Where a question has choices, each of them is scored as an answer is, and the answer is the one of least plain loss:
nothing is generated. A model that tells no losses writes answers instead: see gainrag.synthesis.sampled.
Records are written as they are made, see gainrag.files.resuming.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec
import numpy as np

from gainrag.answering import decide, generate_answers
from gainrag.errors import ConfigError, DataError, unknown
from gainrag.files.progress import say
from gainrag.files.resuming import write_resumable
from gainrag.gain import best_loss, gain_from_loss, silver_index
from gainrag.prompts import PromptForm, Prompts, for_model, wording
from gainrag.protocols import (
    FloatArray,
    Generator,
    Hardware,
    Level,
    Metered,
    MeteredScorer,
    Scorer,
    ScorerGenerator,
    ScoringRequest,
    bounds_with,
    chunk_for,
    need,
)
from gainrag.records import Gained, GainRecord, Question, Retrieved, right_choice
from gainrag.settings import Alpha, AtMost, Samples, Seed, Tokens, Warmth, added_later, checked, parameters, settings_of
from gainrag.synthesis.candidates import FILTERS, LONG, Keep, by_gain, check_candidates, thin
from gainrag.synthesis.reading import choice_gain_without, choice_gains_at
from gainrag.synthesis.sampled import (
    SAMPLED_CHUNK,
    Right,
    Sampling,
    announce,
    check_writes,
    describe_requests,
    label_by_answers,
    what_is_asked,
)

# Questions whose silver answers are generated together; also what a kill may cost. Fixed: see gainrag.files.resuming.
CHUNK = {"cpu": 16, "cuda": 512, "remote": 64}

# What labels are made of: the losses of the gold answers, or answers that the model writes.
Labels = Literal["losses", "sampled"]
_NO_LOSSES = "pass open_lm(..) or another model that tells losses, or use --labels sampled, which takes any that writes"
_OF_SAMPLES = ("n", "right", "sampling_temperature", "seed")
_Label = Callable[[Sequence[Retrieved]], list[GainRecord]]


@added_later("labels", *_OF_SAMPLES, "at_most")
@checked
def synthesize(
    candidates: Sequence[Retrieved],
    lm: Generator,
    out: str | Path | None = None,
    settings: dict[str, object] | None = None,
    *,
    alpha: Alpha | Sequence[Alpha] = 0.5,
    prompt: PromptForm | None = None,
    keep: Keep = "contains",
    max_new_tokens: Tokens = 16,
    labels: Labels = "losses",
    n: Samples = 3,
    right: Right = "contains",
    sampling_temperature: Warmth = 1.0,
    seed: Seed = 0,
    at_most: AtMost | None = None,
) -> list[GainRecord]:
    """The gain of every candidate of every question.

    Args:
        out: where to write records as they are made; a run that was stopped continues there.
        settings: what else they depend on (model, input), checked when a stopped run continues.
        alpha: the weight of the contrast; of several, losses are stored for all and gains are at the first.
        prompt: the prompt form: completion, chat, or instruction_first, a completion whose beginning a GPU runs once
            for many; when left out chat for a model behind an endpoint, else completion.
        keep: which questions are kept: those whose answer from the silver passage is right by contains or
            exact_match, or those whose best passage has a higher gain than no passage: gain. Questions with choices
            (by the normalised gain) and those whose answers have all more than ten words always need the latter.
        max_new_tokens: the longest silver answer, in tokens; of sampled labels the longest answer.
        labels: losses: of the gold answers, which takes a model that tells its log-probabilities; or sampled: the share
            of right answers among n, for which any model serves. Where these are sampled there is no alpha.
        n: of sampled labels: how many answers are asked for with each candidate. One is the greedy answer; several are
            drawn at random.
        right: of sampled labels: what a right answer is: one that contains a gold answer, is one (exact_match), or
            partly by its F1. Of choices it is the right one; answers of more than ten words count by their F1.
        sampling_temperature: of sampled labels: of the drawn answers.
        seed: of sampled labels: of the draws; question, candidate and number of the answer are part of it, too.
        at_most: measure so many candidates a question, those that embedded:gain-features scores highest, and always
            the pseudo-passage; the ids of the others are in the record. All when it is left out.

    Raises:
        DataError: no questions, one without answers or without passages, one whose choices lack the right answer, or
            one that does not fit the model's context with its longest answer; all are checked before the first is
            scored.
        ConfigError: no alpha, a negative one, no such prompt form or filter, or the model does not tell losses, or
            not draw answers, where these are needed.
        ModelError: a loss is not finite, or the model returns losses or texts of another number.
    """
    if not candidates:
        raise DataError("no questions", where="synthesize", hint="pass candidates: see `gainrag augment`")
    alphas = as_alphas(alpha)
    if keep not in get_args(Keep):
        raise ConfigError(unknown("filter", keep, get_args(Keep)), where="keep")
    given = {"n": n, "right": right, "sampling_temperature": sampling_temperature, "seed": seed}
    check_source({"labels": labels, "alpha": alpha, **given})
    sampled = labels == "sampled"
    sampling = Sampling(n=n, right=right, temperature=sampling_temperature, seed=seed, max_new_tokens=max_new_tokens)
    if sampled:
        check_writes(lm, sampling)
    else:
        need(lm, ScorerGenerator, what="lm", where="synthesize", hint=_NO_LOSSES)
    prompts = for_model(prompt, lm)
    for record in candidates:
        check_candidates(record)
        asked = what_is_asked(record) if sampled else record.question
        reserve = max_new_tokens if sampled else reserve_for(prompts, record, max_new_tokens)
        prompts.check(asked, reserve=reserve, where=f"question {record.id}")
    if keep != "gain" and (other := sum(by_gain(record) for record in candidates)):
        say(
            f"{other} of {len(candidates)} questions have choices or answers of more than {LONG} words: these are kept "
            "where the best passage has a higher gain than no passage"
        )
    own = {**(settings or {}), "alpha": alphas, "prompt": prompts.form, "keep": keep, "max_new_tokens": max_new_tokens}
    own["wording"] = wording(prompts.form)
    if at_most is not None:
        own["at_most"] = at_most
    label: _Label
    if sampled:
        own |= {"labels": labels, **given}
        say(describe_requests(candidates, sampling, keep, at_most))
        if isinstance(lm, Metered):
            announce(candidates, lm, prompts, sampling, keep, at_most)
        label = partial(label_by_answers, lm=lm, prompts=prompts, sampling=sampling, keep=keep)
    else:
        assert isinstance(lm, ScorerGenerator)  # checked above
        # A choice is answered by the plain losses.
        scored = as_alphas([*alphas, 0.0]) if any(record.choices for record in candidates) else alphas
        if isinstance(lm, MeteredScorer):
            # Which candidates are left out is not known yet, only how many.
            few = (msgspec.structs.replace(record, ctxs=record.ctxs[:at_most]) for record in candidates)
            asked_for = (with_nothing_last(scoring_request(prompts, record, max_new_tokens)) for record in few)
            lm.announce_losses("labels", asked_for, scored)
        label = partial(_label_by_losses, lm=lm, prompts=prompts, alphas=scored, keep=keep, longest=max_new_tokens)

    def make(part: Sequence[Retrieved]) -> list[GainRecord]:
        if at_most is None:
            return label(part)
        few, others = thin(part, at_most)
        made = label(few)
        for record, left_out in zip(made, others, strict=True):
            record.thinned = left_out or None
        return made

    chunk = chunk_for(lm, chunk_sizes(labels))
    rate = lm.rate if isinstance(lm, Hardware) and not sampled else None
    return write_resumable(out, candidates, make, kind=GainRecord, chunk=chunk, settings=own, what="gains", rate=rate)


def chunk_sizes(labels: Labels) -> Mapping[str, int]:
    """How many questions are labelled together, by what the model runs on."""
    return SAMPLED_CHUNK if labels == "sampled" else CHUNK


def check_source(settings: Mapping[str, Any], where: str = "") -> None:
    """Whether what is set is of the labels that are made: a setting of the others would change nothing.

    Args:
        settings: some of the stage's own; those that are left out stand at their default.
        where: what to write before a setting's name.

    Raises:
        ConfigError: it is not.
    """
    known, own = parameters(synthesize), settings_of(synthesize, settings)
    if own["labels"] == "sampled":
        if as_alphas(own["alpha"]) != [known["alpha"].default]:
            what = "sampled labels have no losses, and so no alpha"
            raise ConfigError(what, where=f"{where}alpha", hint="leave it out, or use labels = losses")
        return
    for name in _OF_SAMPLES:
        if own[name] != known[name].default:
            what, hint = f"{name} is of sampled labels", "set labels = sampled, or leave it out"
            raise ConfigError(what, where=f"{where}{name}", hint=hint)


def _label_by_losses(
    part: Sequence[Retrieved],
    lm: ScorerGenerator,
    prompts: Prompts,
    alphas: Sequence[float],
    keep: Keep,
    longest: int,
) -> list[GainRecord]:
    """The records of some questions, by the losses of their answers.

    Args:
        longest: of a silver answer, in tokens.
    """
    requests = [with_nothing_last(scoring_request(prompts, record, longest)) for record in part]
    found = bounds_with(lm, requests, alphas)
    level = level_at(lm, alphas)
    made = [_unanswered(r, bounds, alphas, level) for r, bounds in zip(part, found, strict=True)]
    open_ended = [i for i, record in enumerate(made) if not record.choices]
    read = [requests[i].with_prompts[made[i].silver] for i in open_ended]
    texts = generate_answers(lm, prompts, read, longest) if read else []
    for i, text in zip(open_ended, texts, strict=True):
        made[i].prediction = text
    for record in made:
        record.kept = _is_kept(record, keep)
    return made


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


def level_at(lm: Scorer, alphas: Sequence[float]) -> Level:
    """What a model's losses are at these alphas: a part of the vocabulary leaves nothing open at alpha 0."""
    return "gold" if lm.level == "bounded" and not any(alphas) else lm.level


def _unanswered(record: Retrieved, bounds: Any, alphas: Sequence[float], level: Level) -> GainRecord:
    """The label record without what an open question is answered.

    Args:
        bounds: of each passage and, as the last "passage", of none: [passage, answer, alpha, 2], nats per token.
        level: what the losses are.
    """
    # Rounded before anything is derived, so that what is read from the file is what was decided on.
    losses = bounds[..., 0].round(6)
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
    if level == "bounded":
        _put_bounds(ctxs, bounds.min(axis=1) if right is None else bounds[:, right], names)
    made = GainRecord(
        id=record.id,
        question=record.question,
        answers=record.answers,
        choices=record.choices,
        extra=record.extra,
        kept=False,
        prediction="",
        silver=silver,
        level=level,
        loss_without=float(own[-1, 0]),
        ctxs=ctxs,
    )
    if record.choices:
        made.choice_losses_without = losses[-1, :, 0].tolist()
        made.prediction = decide(record.choices, losses[silver, :, list(alphas).index(0.0)].tolist())
    return made


def _put_bounds(ctxs: Sequence[Gained], bounds: FloatArray, names: Sequence[str]) -> None:
    """Write the bounds of each passage's loss [passage, alpha, 2] into it. They are rounded outward; an upper bound
    that is infinite is left out."""
    for ctx, own in zip(ctxs, bounds, strict=False):
        low, high = np.floor(own[:, 0] * 1e6) / 1e6, np.ceil(own[:, 1] * 1e6) / 1e6
        ctx.loss_low = {name: min(float(x), ctx.loss[name]) for name, x in zip(names, low, strict=True)}
        ctx.loss_high = {n: max(float(x), ctx.loss[n]) for n, x in zip(names, high, strict=True) if np.isfinite(x)}


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
