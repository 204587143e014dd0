"""Selected passages -> answers: the language model reads each question with its passages and answers greedily."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gainrag.files.resuming import write_resumable
from gainrag.prompts import PromptForm, Prompts, for_model, wording
from gainrag.protocols import Generator, chunk_for, continue_with
from gainrag.records import Answer, Retrieved
from gainrag.settings import Tokens, checked

# Questions answered together. Fixed, not a setting of the moment: see gainrag.files.resuming.
CHUNK = {"cpu": 64, "cuda": 512}


def generate_answers(lm: Generator, prompts: Prompts, rendered: Sequence[str], max_new_tokens: int) -> list[str]:
    """The answers to rendered prompts, cut as their prompt form says."""
    return [prompts.cut(text) for text in continue_with(lm, rendered, max_new_tokens, prompts.stop)]


@checked
def answer(
    selected: Sequence[Retrieved],
    lm: Generator,
    out: str | Path | None = None,
    settings: dict[str, object] | None = None,
    *,
    prompt: PromptForm = "completion",
    max_new_tokens: Tokens = 16,
) -> list[Answer]:
    """Answer every question from all of its passages; one without passages is answered from the question alone.

    Args:
        out: where to write answers as they are made; a run that was stopped continues there.
        settings: what else the answers depend on (model, input), checked when a stopped run continues.
        prompt: the prompt form, completion or chat.
        max_new_tokens: the longest answer, in tokens.

    Raises:
        ConfigError: no such prompt form.
        DataError: a question too long for the model's context; of all questions before the first is answered.
        ModelError: the model returns no text, or too few.
    """
    prompts = for_model(prompt, lm)
    for record in selected:
        prompts.check(record.question, reserve=max_new_tokens, where=f"question {record.id}")

    def make(part: Sequence[Retrieved]) -> list[Answer]:
        rendered = [
            prompts.with_passages(r.question, r.ctxs, reserve=max_new_tokens) if r.ctxs else prompts.without(r.question)
            for r in part
        ]
        predictions = generate_answers(lm, prompts, rendered, max_new_tokens)
        return [
            Answer(
                id=r.id,
                question=r.question,
                answers=r.answers,
                choices=r.choices,
                prediction=text,
                ctxs=r.ctxs,
                extra=r.extra,
            )
            for r, text in zip(part, predictions, strict=True)
        ]

    chunk = chunk_for(lm, CHUNK)
    own = {**(settings or {}), "prompt": prompt, "max_new_tokens": max_new_tokens, "wording": wording(prompt)}
    return write_resumable(out, selected, make, kind=Answer, chunk=chunk, settings=own, what="answering")
