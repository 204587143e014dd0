"""What the scoring thread does: cut, count, score."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from gainrag.prompts import selector_text
from gainrag.protocols import Bounded, FloatArray, Selector, Weighing, Windowed, scores_with
from gainrag.records import Scored
from gainrag.serving.loaded import Served
from gainrag.serving.refusals import Refused
from gainrag.serving.wire import Asked


@dataclass(frozen=True)
class Ranked:
    """What a request's response is made of.

    scores: the selector's own, one a passage.
    bounded: they lie between 0 and 1.
    tokens: how many were read; words where the selector has no tokens.
    cut: how many documents were cut, by max_tokens_per_doc or by what the selector can read.
    tokenizing, scoring: seconds of the batch it was in.
    batch: how many passages were in it.
    notes: what the sender may not expect.
    """

    scores: FloatArray
    bounded: bool
    tokens: int
    cut: int
    tokenizing: float
    scoring: float
    batch: int
    notes: tuple[str, ...] = ()


def score_together(served: Served, asked: Sequence[Asked]) -> list[Ranked]:
    """The scores of requests to one selector.

    Raises:
        Refused: 413 where a text is too long and its sender wants none cut.
        GainragError: whatever the selector raises.
    """
    selector = served.selector  # one for the whole batch, whatever is swapped meanwhile
    began = time.perf_counter()
    read = [_read(selector, one) for one in asked]
    counted = time.perf_counter()
    scores = scores_with(selector, [(one.query, passages) for one, (passages, _, _) in zip(asked, read, strict=True)])
    done = time.perf_counter()
    bounded = isinstance(selector, Bounded) and selector.bounded
    return [
        Ranked(
            scores=own,
            bounded=bounded,
            tokens=tokens,
            cut=cut,
            tokenizing=counted - began,
            scoring=done - counted,
            batch=sum(len(one.passages) for one in asked),
            notes=_notes(selector, one.passages),
        )
        for one, (_, tokens, cut), own in zip(asked, read, scores, strict=True)
    ]


def _read(selector: Selector, asked: Asked) -> tuple[list[Scored], int, int]:
    """The passages as the selector is given them, how many tokens it reads, and how many passages are cut."""
    passages, limit = asked.passages, asked.max_tokens
    if not isinstance(selector, Windowed):
        words = [len(p.title.split()) + len(p.text.split()) for p in passages]
        if limit is not None:
            passages = [_first_words(p, limit) if n > limit else p for p, n in zip(passages, words, strict=True)]
        kept = [n if limit is None else min(n, limit) for n in words]
        cut = sum(k < n for k, n in zip(kept, words, strict=True))
        return passages, sum(kept) + len(asked.query.split()), _refuse_cut(asked, cut)
    # The window holds both; of a question and a passage that do not fit, the longer one loses its end.
    question = selector.count_tokens(asked.query)
    found, tokens, cut = [], 0, 0
    for passage in passages:
        length, shortened = selector.count_tokens(selector_text(passage)), False
        if limit is not None and length > limit:
            passage, length, shortened = _first_tokens(selector, passage, limit), limit, True
        cut += shortened or question + length > selector.context
        tokens += min(question + length, selector.context)
        found.append(passage)
    return found, tokens, _refuse_cut(asked, cut)


def _refuse_cut(asked: Asked, cut: int) -> int:
    """The number of cut documents; refused where none may be."""
    if cut and not asked.truncate:
        what = f"{cut} texts are longer than the model reads"
        raise Refused(413, what, hint="shorten them, or leave `truncate` out")
    return cut


def _first_words(passage: Scored, words: int) -> Scored:
    """The beginning of a passage, its title first."""
    title = passage.title.split()
    text = " ".join(passage.text.split()[: max(0, words - len(title))])
    return msgspec.structs.replace(passage, title=" ".join(title[:words]), text=text)


def _first_tokens(selector: Windowed, passage: Scored, tokens: int) -> Scored:
    """The beginning of a passage as the selector reads it: title and text as one."""
    return msgspec.structs.replace(passage, title="", text=selector.truncate(selector_text(passage), tokens))


def _notes(selector: Selector, passages: Sequence[Scored]) -> tuple[str, ...]:
    """What is said to whoever sends no scores to a selector that was trained with them."""
    wanted = selector.weighs if isinstance(selector, Weighing) else ()
    if not wanted or any(p.score is not None or p.scores for p in passages):
        return ()
    return (
        f"this selector also weighs the retrievers' scores ({', '.join(wanted)}), which these documents lack: they "
        "were ranked without. Send documents as objects with `score` or `scores`.",
    )
