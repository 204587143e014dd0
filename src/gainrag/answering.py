"""Selected passages -> answers: the language model reads each question with its passages and answers greedily.

A question with choices is answered by the choice of least loss (nats per token), and nothing is written. What a prompt
shows is the question alone, not its choices: what is scored behind it is each choice, letter for letter, as an answer
is. So a passage is judged by what it does for the right choice alone, small models do not repeat the first option or
copy any other, and a task is read in the same words with choices and without.

Where all questions have the same two choices, such as Yes and No, a small model may say one of them to every question
and still rank the questions well. There the margin of the two losses is compared with a threshold instead of 0, which
training questions set: see `calibrate`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from gainrag.errors import DataError
from gainrag.files.resuming import write_resumable
from gainrag.prompts import PromptForm, Prompts, for_model, wording
from gainrag.protocols import (
    Generator,
    Metered,
    Scorer,
    ScoringRequest,
    chunk_for,
    continue_with,
    losses_with,
    need,
)
from gainrag.records import Answer, Question, Retrieved, check_choices, gold_ranks, right_choice
from gainrag.settings import Tokens, checked

# Questions answered together. Fixed, not a setting of the moment: see gainrag.files.resuming.
CHUNK = {"cpu": 64, "cuda": 512, "remote": 256}


def generate_answers(lm: Generator, prompts: Prompts, rendered: Sequence[str], max_new_tokens: int) -> list[str]:
    """The answers to rendered prompts, cut as their prompt form says."""
    return [prompts.cut(text) for text in continue_with(lm, rendered, max_new_tokens, prompts.stop)]


class Threshold(msgspec.Struct, frozen=True):
    """How much less the loss of the first of two choices must be than that of the second for the first to be said.

    choices: the two, in the order in which the margin loss(second) - loss(first) is taken.
    value: the least margin, in nats per token, above which the first is said.
    questions: how many training questions set it.
    """

    choices: tuple[str, str]
    value: float
    questions: int

    def margin(self, choices: Sequence[str], losses: Sequence[float]) -> float | None:
        """loss(second) - loss(first), whichever way round the choices stand; None of a question with other choices."""
        return margin(self.choices, choices, losses)


def margin(two: Sequence[str], choices: Sequence[str], losses: Sequence[float]) -> float | None:
    """loss(second) - loss(first) of two choices, whichever way round they stand; None of other choices."""
    if len(choices) != 2 or set(choices) != set(two):
        return None
    by_choice = dict(zip(choices, losses, strict=True))
    return by_choice[two[1]] - by_choice[two[0]]


def decide(choices: Sequence[str], losses: Sequence[float], threshold: Threshold | None = None) -> str:
    """The choice of least loss, the first of equals; with a threshold for these two choices, the one that it says.

    >>> decide(["Yes", "No"], [2.0, 1.0])
    'No'
    >>> decide(["Yes", "No"], [2.0, 1.0], Threshold(choices=("Yes", "No"), value=-1.5, questions=100))
    'Yes'
    """
    if threshold is not None and (own := threshold.margin(choices, losses)) is not None:
        return threshold.choices[0] if own > threshold.value else threshold.choices[1]
    return choices[int(np.argmin(losses))]


def fixed_choices(questions: Sequence[Question]) -> tuple[str, str] | None:
    """The two choices that all of some questions have, in the order of the first one; None where there are no such."""
    first = questions[0].choices if questions else None
    if not first or len(first) != 2:
        return None
    alike = all(len(q.choices or ()) == 2 and set(q.choices or ()) == set(first) for q in questions)
    return (first[0], first[1]) if alike else None


def calibrate(questions: Sequence[Question], losses: Sequence[Sequence[float]]) -> Threshold | None:
    """The threshold with which the first choice is said to as many of the questions as it is the right one of: of a
    half, the median of the margin. None where the questions do not all have the same two choices.

    Args:
        questions: training questions with their answers.
        losses: of each, the plain loss of its choices, with the passages that a system would read.

    Raises:
        DataError: the right answer of a question is none of its choices.
    """
    two = fixed_choices(questions)
    if two is None:
        return None
    right = [(q.choices or [])[right_choice(q, f"question {q.id}")] for q in questions]
    margins = [margin(two, q.choices or (), own) for q, own in zip(questions, losses, strict=True)]
    seconds = sum(answer == two[1] for answer in right) / len(right)
    value = float(np.quantile([m for m in margins if m is not None], seconds))
    return Threshold(choices=two, value=round(value, 6), questions=len(questions))


def calibrate_on(answered: Sequence[Answer], where: str) -> Threshold:
    """The threshold from a system's answers to training questions.

    Raises:
        DataError: an answer has no losses of choices, or the questions do not all have the same two choices.
    """
    if without := [answer.id for answer in answered if answer.choice_losses is None]:
        raise DataError(
            f"question {without[0]} has no losses of choices",
            where=where,
            hint="answer training questions that have `choices` from the same system's passages",
        )
    found = calibrate(answered, [answer.choice_losses or () for answer in answered])
    if found is None:
        what = "the questions do not all have the same two choices"
        raise DataError(what, where=where, hint="a threshold is for choices such as Yes and No; answer without one")
    return found


@checked
def answer(
    selected: Sequence[Retrieved],
    lm: Generator,
    out: str | Path | None = None,
    settings: dict[str, object] | None = None,
    threshold: Threshold | None = None,
    *,
    prompt: PromptForm | None = None,
    max_new_tokens: Tokens = 16,
) -> list[Answer]:
    """Answer every question from all of its passages; one without passages is answered from the question alone. One
    with choices is answered by that of least loss.

    Args:
        out: where to write answers as they are made; a run that was stopped continues there.
        settings: what else the answers depend on (model, input), checked when a stopped run continues.
        threshold: of the margin of two choices, see `calibrate`; 0 when it is left out.
        prompt: the prompt form: completion, chat, or instruction_first, a completion whose beginning a GPU runs once
            for many; when left out chat for a model behind an endpoint, else completion.
        max_new_tokens: the longest answer, in tokens.

    Raises:
        ConfigError: no such prompt form, or a question has choices and the model is no Scorer.
        DataError: a question too long for the model's context, or choices that are none; of all questions before the
            first is answered.
        ModelError: the model returns no text, or too few, or no losses.
    """
    prompts = for_model(prompt, lm)
    for record in selected:
        check_question(record, lm, prompts, max_new_tokens, where=f"question {record.id}")

    if isinstance(lm, Metered):
        asked = [_rendered(record, prompts, max_new_tokens) for record in selected if record.choices is None]
        lm.announce("answers", asked, max_new_tokens, prompts.stop)

    def make(part: Sequence[Retrieved]) -> list[Answer]:
        return answer_together(part, lm, prompts, max_new_tokens, threshold)

    chunk = chunk_for(lm, CHUNK)
    own = {**(settings or {}), "prompt": prompts.form, "max_new_tokens": max_new_tokens}
    own["wording"] = wording(prompts.form)
    if threshold is not None:
        own["threshold"] = msgspec.to_builtins(threshold)
    return write_resumable(out, selected, make, kind=Answer, chunk=chunk, settings=own, what="answering")


def check_question(record: Question, lm: Generator, prompts: Prompts, max_new_tokens: int, *, where: str) -> None:
    """Whether the model can answer a question.

    Raises:
        ConfigError: it has choices, and the model is no Scorer.
        DataError: it is too long for the model's context, or its choices are none.
    """
    if record.choices is not None:
        need(
            lm,
            Scorer,
            what="lm",
            where=where,
            hint="choices are answered by their losses; use a local model, or remove `choices` to have it write",
        )
        check_choices(record, where)
    prompts.check(record.question, reserve=_reserve(prompts, record, max_new_tokens), where=where)


def answer_together(
    part: Sequence[Retrieved], lm: Generator, prompts: Prompts, max_new_tokens: int, threshold: Threshold | None = None
) -> list[Answer]:
    """The answers to some questions, each of which `check_question` has let pass."""
    rendered = [_rendered(record, prompts, max_new_tokens) for record in part]
    made = [_unanswered(r) for r in part]
    open_ended = [i for i, r in enumerate(part) if r.choices is None]
    if open_ended:
        texts = generate_answers(lm, prompts, [rendered[i] for i in open_ended], max_new_tokens)
        for i, text in zip(open_ended, texts, strict=True):
            made[i].prediction = text
    if closed := [i for i, r in enumerate(part) if r.choices is not None]:
        requests = [
            ScoringRequest(
                with_prompts=[rendered[i]],
                without_prompt=prompts.without(part[i].question),
                answers=[prompts.scored_answer(choice) for choice in part[i].choices or ()],
            )
            for i in closed
        ]
        assert isinstance(lm, Scorer)  # as `check_question` found
        for i, losses in zip(closed, losses_with(lm, requests, [0.0]), strict=True):
            by_losses(made[i], [round(float(loss), 6) for loss in losses[0, :, 0]], threshold)
    return made


def _rendered(record: Retrieved, prompts: Prompts, max_new_tokens: int) -> str:
    """What the model reads: the question with all of its passages, or alone where it has none."""
    if not record.ctxs:
        return prompts.without(record.question)
    return prompts.with_passages(record.question, record.ctxs, reserve=_reserve(prompts, record, max_new_tokens))


def _reserve(prompts: Prompts, record: Question, max_new_tokens: int) -> int:
    """Tokens to keep free behind a question's prompt: for its longest choice, or for the answer that is written."""
    return max_new_tokens if record.choices is None else prompts.answer_tokens(record.choices)


def _unanswered(record: Retrieved) -> Answer:
    return Answer(
        id=record.id,
        question=record.question,
        answers=record.answers,
        choices=record.choices,
        prediction="",
        ctxs=record.ctxs,
        gold_ranks=gold_ranks(record.ctxs) if record.gold_ranks is None else record.gold_ranks,
        extra=record.extra,
    )


def by_losses(answer: Answer, losses: Sequence[float], threshold: Threshold | None) -> None:
    """Answer a question with choices by their losses; the threshold is noted where it concerned them."""
    choices = answer.choices or []
    answer.choice_losses = list(losses)
    answer.prediction = decide(choices, losses, threshold)
    concerned = threshold is not None and threshold.margin(choices, losses) is not None
    answer.threshold = threshold.value if threshold is not None and concerned else None
