"""Retrieved passages -> the same and one more: the pseudo-passage, which the language model writes from what it knows.

When every retrieved passage is bad, choosing the best of them still hurts. The pseudo-passage is a candidate like
any other, in training and at inference; choosing it means that the model's own knowledge beats what was retrieved.
It carries origin "generated", and nobody recognises it by its position. It is part of the paper's method.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from gainrag.files.resuming import write_resumable
from gainrag.metrics import mark_answers
from gainrag.prompts import NOT_AVAILABLE, PromptForm, Prompts, for_model, wording
from gainrag.protocols import Generator, Metered, chunk_for, continue_with
from gainrag.records import Question, Retrieved, Scored
from gainrag.settings import Tokens, checked

# Questions written for together. Fixed: see gainrag.files.resuming.
CHUNK = {"cpu": 32, "cuda": 512, "remote": 256}


def write_background(
    questions: Sequence[Question], lm: Generator, *, prompt: PromptForm | None = None, max_new_tokens: int = 128
) -> list[Scored]:
    """The pseudo-passage of each question: no title, no score, origin "generated".

    Args:
        prompt: the prompt form: completion, chat, or instruction_first, a completion whose beginning a GPU runs once
            for many; when left out chat for a model behind an endpoint, else completion.
        max_new_tokens: the longest passage, in tokens.

    Raises:
        DataError: a question too long for the model's context.
        ModelError: the model returns no text, or too few.
    """
    prompts = for_model(prompt, lm)
    for question in questions:
        _check(prompts, question, max_new_tokens)
    texts = continue_with(lm, [prompts.background(q.question) for q in questions], max_new_tokens)
    passages = []
    for question, text in zip(questions, texts, strict=True):
        passage = Scored(id=f"{question.id}:generated", text=one_paragraph(text), origin="generated")
        mark_answers([passage], question.answers)
        passages.append(passage)
    return passages


def _check(prompts: Prompts, question: Question, max_new_tokens: int) -> None:
    where = f"question {question.id}"
    prompts.check(question.question, reserve=max_new_tokens, where=where, background=True)


def _has_pseudo(record: Retrieved) -> bool:
    return any(ctx.origin == "generated" for ctx in record.ctxs)


def one_paragraph(text: str) -> str:
    """The first paragraph up to its last whole sentence; "N/A" where nothing is left.

    >>> one_paragraph(" Paris lies on the Seine. It has many br")
    'Paris lies on the Seine.'
    """
    paragraph = " ".join(text.strip().split("\n\n", 1)[0].split())
    whole = re.match(r".*[.!?](?=\s|$)", paragraph)
    return (whole.group() if whole else paragraph) or NOT_AVAILABLE


@checked
def augment(
    retrieved: Sequence[Retrieved],
    lm: Generator,
    out: str | Path | None = None,
    settings: dict[str, object] | None = None,
    *,
    prompt: PromptForm | None = None,
    max_new_tokens: Tokens = 128,
) -> list[Retrieved]:
    """Add the pseudo-passage behind the retrieved passages of every question that has none yet.

    Args:
        out: where to write records as they are made; a run that was stopped continues there.
        settings: what else they depend on (model, input), checked when a stopped run continues.
        prompt: the prompt form: completion, chat, or instruction_first, a completion whose beginning a GPU runs once
            for many; when left out chat for a model behind an endpoint, else completion.
        max_new_tokens: the longest passage, in tokens.

    Raises:
        ConfigError: no such prompt form, or `chat` for a model without a chat template.
        DataError: a question too long for the model's context; of all questions before the first passage is written.
        ModelError: the model returns no text, or too few.
    """
    prompts = for_model(prompt, lm)
    for record in retrieved:
        _check(prompts, record, max_new_tokens)
    if isinstance(lm, Metered):
        asked = [prompts.background(r.question) for r in retrieved if not _has_pseudo(r)]
        lm.announce("pseudo-passages", asked, max_new_tokens)

    def make(part: Sequence[Retrieved]) -> list[Retrieved]:
        lacking = [r for r in part if not _has_pseudo(r)]
        written = write_background(lacking, lm, prompt=prompt, max_new_tokens=max_new_tokens) if lacking else []
        added = {id(r): passage for r, passage in zip(lacking, written, strict=True)}
        return [
            Retrieved(
                id=r.id,
                question=r.question,
                answers=r.answers,
                choices=r.choices,
                extra=r.extra,
                ctxs=[*r.ctxs, added[id(r)]] if id(r) in added else list(r.ctxs),
            )
            for r in part
        ]

    chunk = chunk_for(lm, CHUNK)
    own = {**(settings or {}), "prompt": prompts.form, "max_new_tokens": max_new_tokens}
    own["wording"] = wording(prompts.form, background=True)
    return write_resumable(out, retrieved, make, kind=Retrieved, chunk=chunk, settings=own, what="pseudo-passages")
