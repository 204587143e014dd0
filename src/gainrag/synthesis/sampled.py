"""Labels of a model that tells no probabilities: how often is its answer right when it reads this passage?

With each candidate the model answers n times. The label is gain = log((right + 1/2) / (n + 1)), see gainrag.gain. With
n = 1 the answer is the greedy one, and any model that writes will do; several are drawn at random, each by a seed of
its own, so that a label does not depend on what else was asked.

The teacher made of it, softmax(gain / temperature), is at temperature 1 in proportion to each passage's chance to yield
a right answer. Losses' gains are such logarithms, too, so every training takes these labels as they are; where all
passages of a question have the same share it teaches nothing, and training leaves it out.

A question with choices is asked with its choices, and the answer is the choice that the text says first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from gainrag import metrics
from gainrag.gain import gain_from_answers, silver_index
from gainrag.metrics import normalise
from gainrag.prompts import Prompts, question_with_choices
from gainrag.protocols import Generator, Metered, SamplingGenerator, continue_with, need, sample_with
from gainrag.records import Gained, GainRecord, Question, Retrieved, Scored
from gainrag.statistics import chance_interval
from gainrag.synthesis.candidates import FILTERS, Keep, by_gain, is_long, thin

# Questions asked together; also what a kill may cost, and that is money where the model is another's.
SAMPLED_CHUNK = {"cpu": 4, "cuda": 128, "remote": 64}

Right = Literal["contains", "exact_match", "f1"]
_METRICS = {"contains": metrics.contains, "exact_match": metrics.exact_match, "f1": metrics.f1}


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How answers are asked for, and what makes them right; see `gainrag.synthesis.synthesize`."""

    n: int
    right: Right
    temperature: float
    seed: int
    max_new_tokens: int


def check_writes(lm: object, sampling: Sampling) -> None:
    """Whether a model can be asked.

    Raises:
        ConfigError: it does not write, or it does not draw answers and several are wanted.
    """
    need(lm, Generator, what="lm", where="synthesize", hint="pass a model that writes, see gainrag.protocols")
    if sampling.n > 1:
        need(lm, SamplingGenerator, what="lm", where="synthesize", hint="use n = 1, for which greedy answers will do")


def what_is_asked(record: Question) -> str:
    """The question as the model reads it: with its choices, where it has some, since it must write one of them."""
    return question_with_choices(record.question, record.choices)


def needs_nothing(record: Question, keep: Keep) -> bool:
    """Whether a question is asked without a passage, too: only where the keep-filter compares with that."""
    return keep == "gain" or by_gain(record)


def requests_for(candidates: Sequence[Retrieved], n: int, keep: Keep, at_most: int | None = None) -> int:
    """How many answers sampled labels of these questions take."""
    passages = [len(r.ctxs) if at_most is None else min(at_most, len(r.ctxs)) for r in candidates]
    return n * (sum(passages) + sum(needs_nothing(r, keep) for r in candidates))


def describe_requests(
    candidates: Sequence[Retrieved], sampling: Sampling, keep: Keep, at_most: int | None = None
) -> str:
    """How many requests are coming, as a line for whoever pays for them."""
    total = requests_for(candidates, sampling.n, keep, at_most)
    most = max(len(r.ctxs) if at_most is None else min(at_most, len(r.ctxs)) for r in candidates)
    how = "one greedy answer" if sampling.n == 1 else f"{sampling.n} answers at temperature {sampling.temperature:g}"
    return (
        f"sampled labels: {total} requests, {how} for each of up to {most} candidates of {len(candidates)} questions; "
        f"at most {total * sampling.max_new_tokens} tokens are written"
    )


def label_by_answers(
    part: Sequence[Retrieved], lm: Generator, prompts: Prompts, sampling: Sampling, keep: Keep
) -> list[GainRecord]:
    """The records of some questions, by the answers that the model gives with each candidate."""
    rendered, seeds = _asked(part, prompts, sampling, keep)
    texts = iter([prompts.cut(text) for text in _write(lm, rendered, seeds, prompts.stop, sampling)])
    made = []
    for record in part:
        ctxs = [_gained(record, passage, [next(texts) for _ in range(sampling.n)], sampling) for passage in record.ctxs]
        without = [next(texts) for _ in range(sampling.n)] if needs_nothing(record, keep) else None
        made.append(_record(record, ctxs, without, sampling, keep))
    return made


def announce(
    candidates: Sequence[Retrieved], lm: Metered, prompts: Prompts, sampling: Sampling, keep: Keep, at_most: int | None
) -> None:
    """Have a model whose requests cost something say what these will cost.

    Raises:
        ConfigError: it is more than its budget allows.
    """
    few = candidates if at_most is None else thin(candidates, at_most)[0]
    rendered, seeds = _asked(few, prompts, sampling, keep)
    drawn: dict[str, Any] = {"temperature": sampling.temperature, "seeds": seeds} if sampling.n > 1 else {}
    lm.announce("sampled labels", rendered, sampling.max_new_tokens, prompts.stop, **drawn)


def _asked(
    part: Sequence[Retrieved], prompts: Prompts, sampling: Sampling, keep: Keep
) -> tuple[list[str], list[int]]:
    """Every prompt that is asked of some questions, n times each, and the seed of each answer."""
    rendered: list[str] = []
    seeds: list[int] = []
    for record in part:
        nothing = [None] if needs_nothing(record, keep) else []
        for passage in (*record.ctxs, *nothing):
            prompt = _prompt(prompts, record, passage, sampling.max_new_tokens)
            rendered += [prompt] * sampling.n
            seeds += [_seed_of(sampling.seed, record, passage, i) for i in range(sampling.n)]
    return rendered, seeds


def _prompt(prompts: Prompts, record: Retrieved, passage: Scored | None, max_new_tokens: int) -> str:
    asked = what_is_asked(record)
    if passage is None:
        return prompts.without(asked)
    return prompts.with_passages(asked, [passage], reserve=max_new_tokens)


def _seed_of(seed: int, record: Retrieved, passage: Scored | None, i: int) -> int:
    """The seed of one answer, from 0 to 2**31 - 1: that of the labels, question, passage and number decide it alone."""
    key = msgspec.json.encode([seed, record.id, passage.id if passage else None, i])
    return int.from_bytes(hashlib.sha256(key).digest()[:4]) >> 1


def _write(
    lm: Generator, rendered: Sequence[str], seeds: Sequence[int], stop: str | None, sampling: Sampling
) -> list[str]:
    if sampling.n == 1:
        return continue_with(lm, rendered, sampling.max_new_tokens, stop)
    assert isinstance(lm, SamplingGenerator)  # see check_writes
    return sample_with(lm, rendered, sampling.max_new_tokens, stop, temperature=sampling.temperature, seeds=seeds)


def _gained(record: Question, passage: Scored, said: list[str], sampling: Sampling) -> Gained:
    right = _right(record, said, sampling.right)
    low, high = chance_interval(right, len(said))
    return Gained(
        **msgspec.structs.asdict(passage),
        loss={},
        gain=round(gain_from_answers(right, len(said)), 6),
        said=said,
        right=right,
        interval=(round(low, 6), round(high, 6)),
    )


def _right(record: Question, said: Sequence[str], right: Right) -> float:
    """How many answers are right."""
    if record.choices:
        return float(sum(choice_said(text, record.choices) == record.answers[0] for text in said))
    metric = metrics.f1 if is_long(record) else _METRICS[right]
    return round(float(sum(metric(text, record.answers) for text in said)), 6)


def choice_said(text: str, choices: Sequence[str]) -> str | None:
    """The choice that a text says: the one that is its whole, else the one whose words stand in it first, the longer of
    two that begin alike; None where it says none.

    >>> choice_said("No, it is not.", ["Yes", "No"]), choice_said("B", ["A", "B"]), choice_said("Perhaps", ["Yes"])
    ('No', 'B', None)
    """
    for choice in choices:
        if text.strip().rstrip(".").casefold() == choice.strip().rstrip(".").casefold():
            return choice
    said = f" {normalise(text)} "
    places = [(said.find(f" {words} "), -len(words), choice) for choice in choices if (words := normalise(choice))]
    return min(((at, length, choice) for at, length, choice in places if at >= 0), default=(0, 0, None))[2]


def _record(
    record: Retrieved, ctxs: list[Gained], without: list[str] | None, sampling: Sampling, keep: Keep
) -> GainRecord:
    silver = silver_index([ctx.gain for ctx in ctxs])
    best = ctxs[silver]
    said, right = best.said or [], best.right or 0.0
    right_without = None if without is None else _right(record, without, sampling.right)
    if right_without is not None:
        kept = right > right_without
    else:
        # Of one answer this is whether it is right; of several, whether they are so more often than not.
        kept = 2 * sum(FILTERS[keep](text, record.answers) for text in said) >= len(said)
    prediction = said[0] if not record.choices else choice_said(said[0], record.choices) or said[0]
    return GainRecord(
        id=record.id,
        question=record.question,
        answers=record.answers,
        choices=record.choices,
        extra=record.extra,
        kept=kept,
        prediction=prediction,
        silver=silver,
        ctxs=ctxs,
        level="sampled",
        said_without=without,
        right_without=right_without,
    )
