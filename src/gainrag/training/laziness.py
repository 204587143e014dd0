"""From which score on a retrieved passage makes the pseudo-passage needless: learned on calibration questions.

The threshold is the lowest at which at most 1% of the calibration questions change their choice: those that skip the
pseudo-passage though it would have been chosen. It is saved with the selector, see gainrag.selectors.lazy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from gainrag.answering import answer
from gainrag.errors import DataError
from gainrag.metrics import contains, f1
from gainrag.prompts import PromptForm
from gainrag.protocols import FloatArray, Generator, Selector
from gainrag.records import GainRecord, Passage, Retrieved
from gainrag.selection import select
from gainrag.selectors.lazy import SKIPPED, Laziness

AT_MOST = 0.01


Labelled = Retrieved | GainRecord


def learn_threshold(
    lists: Sequence[Sequence[Passage]],
    scores: Sequence[FloatArray],
    *,
    held_out: bool,
    at_most: float = AT_MOST,
    alone: Sequence[FloatArray] | None = None,
) -> Laziness:
    """The lowest threshold, of the best retrieved scores seen, at which few enough choices change.

    Below the lowest score seen nothing is ever skipped: there any threshold would be a guess.

    Args:
        lists, scores: of each question its passages, the pseudo-passage among them, and their scores.
        held_out: whether the selector had not learned from these questions.
        at_most: share of all questions whose choice may change.
        alone: of each question the scores of its retrieved passages as if there were no pseudo-passage, where these
            differ (see `gainrag.protocols.Listwise`): they are what the threshold is compared with.
    """
    best, lost = [], []
    for n, (passages, own) in enumerate(zip(lists, scores, strict=True)):
        generated = np.array([p.origin == "generated" for p in passages])
        retrieved = own[~generated]
        best.append(float(np.max(retrieved if alone is None else alone[n])))
        lost.append(float(np.max(own[generated])) > float(np.max(retrieved)))
    order = np.argsort(-np.array(best), kind="stable")
    thresholds, changed = np.array(best)[order], np.cumsum(np.array(lost)[order])
    # At a threshold all questions that are as high skip: of equals the last one counts.
    last = np.append(thresholds[1:] != thresholds[:-1], True)
    fitting = np.flatnonzero(last & (changed <= at_most * len(lists)))
    if not len(fitting):
        return Laziness(threshold=None, questions=len(lists), held_out=held_out, skipped=0.0, changed=0.0)
    at = int(fitting[-1])
    return Laziness(
        threshold=float(thresholds[at]),
        questions=len(lists),
        held_out=held_out,
        skipped=(at + 1) / len(lists),
        changed=float(changed[at]) / len(lists),
    )


def calibration_questions(
    records: Sequence[Labelled], learned: Sequence[Labelled], held: Sequence[Labelled], seed: int
) -> list[Labelled]:
    """The questions to learn the threshold from: those with both retrieved passages and the pseudo-passage.

    The held-out ones, and as large a share of those that the keep-filter left out, so that their mix is that of all
    questions; where none was held out, all.

    Args:
        records: all questions there are.
        learned, held: those the selector learned from, and those held out.
    """
    known = {id(r) for r in (*learned, *held)}
    others = [r for r in records if id(r) not in known]
    if held:
        n = round(len(others) * len(held) / len(known))
        others = [others[i] for i in np.random.default_rng(seed).permutation(len(others))[:n]]
    drawn = [*(held or learned), *others]
    return [r for r in drawn if {c.origin for c in r.ctxs} == {"corpus", "generated"}]


def compare_with_eager(
    candidates: Sequence[Retrieved],
    selector: Selector,
    lm: Generator,
    *,
    prompt: PromptForm | None = None,
    max_new_tokens: int = 16,
) -> dict[str, float]:
    """What it costs to skip the pseudo-passage, on candidates that have it; the language model reads the best passage.

    Returns:
        `questions`; `skipped` and `changed`, shares of them that skip it and whose choice changes; `contains` and `f1`,
        lazy less eager, mean over all questions.

    Raises:
        DataError: a question has no gold answer or no pseudo-passage.
        ConfigError: the selector has no threshold.
    """

    for record in candidates:
        if not record.answers or not any(c.origin == "generated" for c in record.ctxs):
            what = "pseudo-passage" if record.answers else "gold answer"
            raise DataError(f"no {what} to compare with", where=f"question {record.id}", hint="run `gainrag augment`")
    eager = select(candidates, selector, pseudo="eager")
    lazy = select(candidates, selector, pseudo="lazy")
    # Where both chose the same passage the answer is the same: only the others are asked.
    pairs = [(a, b) for a, b in zip(eager, lazy, strict=True) if a.ctxs[0].id != b.ctxs[0].id]
    sides = ([a for a, _ in pairs], [b for _, b in pairs])
    answers = [answer(side, lm, prompt=prompt, max_new_tokens=max_new_tokens) for side in sides]

    def change(metric: Callable[[str, Sequence[str]], float]) -> float:
        before, after = (sum(metric(a.prediction, a.answers) for a in side) for side in answers)
        return (after - before) / len(candidates)

    return {
        "questions": len(candidates),
        "skipped": sum(r.extra[SKIPPED] for r in lazy) / len(candidates),
        "changed": len(pairs) / len(candidates),
        "contains": change(contains),
        "f1": change(f1),
    }
