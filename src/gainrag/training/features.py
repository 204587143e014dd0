"""Labels -> a feature selector: boosted trees from scratch, or boosting that goes on from trees that are there.

Few labels start from the prior, trees that learned from other questions. How far the new trees may move the scores is
chosen by folds of the training questions:

    score(p) = score of the prior(p) + strength * score of the new trees(p)

with the strength of least regret out of fold where that is lower than the prior's by more than one standard error of
the difference, else 0: the selector then is the prior.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gainrag.files.folders import open_output_folder
from gainrag.files.progress import say
from gainrag.prompts import question_with_choices
from gainrag.protocols import FloatArray
from gainrag.records import GainRecord, Passage, Retrieved
from gainrag.selectors import PRIOR
from gainrag.selectors.boosted import FeatureSelector, write_trees
from gainrag.selectors.features import matrix
from gainrag.selectors.lazy import Laziness
from gainrag.selectors.trees import Trees, joined
from gainrag.training.boosting import features_of, fit_trees, words_in
from gainrag.training.finishing import compare_with_retrieval, compare_with_shipped
from gainrag.training.held_out import check_numbers, check_order, judge
from gainrag.training.labels import Example, regret, regrets, standard_error
from gainrag.training.laziness import calibration_questions, learn_threshold
from gainrag.training.settings import Settings

Scoring = Callable[[Sequence[GainRecord | Retrieved], bool], list[FloatArray]]

# The setting `start` of trees that begin from nothing, and with how many questions they do where it is left out.
SCRATCH, FEW = "scratch", 1000
# Models that are averaged.
# Regret by folds of the six data sets: one model 0.582, five 0.566, ten 0.564.
SEEDS = 10
# What the new trees' scores may be multiplied by.
STRENGTHS = (0.0, 0.25, 0.5, 1.0)
FOLDS = 5
# Questions learned from whose scores are looked at where none is held out.
LOOKED_AT = 50


def train_features(
    records: Sequence[GainRecord] | Sequence[Retrieved],
    learn: Sequence[Example],
    held: Sequence[Example],
    out: str | Path,
    card: Mapping[str, Any],
    settings: Settings,
) -> FeatureSelector:
    """Train a feature selector and save it as a plain folder with a card.

    Args:
        records: all questions there are.
        learn, held: those to learn from and those held out.
        card: what the card says; held-out figures are added.

    Raises:
        ModelError: the selector must not be saved: its scores are equal for all passages of every question, or (without
            keep_worse) its first choices are worse than the retriever's on the held-out questions.
    """
    with open_output_folder(out) as folder:
        write_features(records, learn, held, folder, card, settings)
    return FeatureSelector(out)


def write_features(
    records: Sequence[GainRecord] | Sequence[Retrieved],
    learn: Sequence[Example],
    held: Sequence[Example],
    folder: Path,
    card: Mapping[str, Any],
    settings: Settings,
) -> None:
    """What `train_features` does, into a folder that is open."""
    figures: dict[str, float | str | None] = {}
    start = start_of(settings, len(learn))
    if start == SCRATCH:
        words = words_in(learn)
        trees = fit_trees(learn, words=words, seeds=SEEDS, temperature=settings.sharpness, seed=settings.seed)
    else:
        prior = FeatureSelector(start).trees
        trees, went = go_on(prior, learn, temperature=settings.sharpness, seed=settings.seed)
        figures |= went.figures
        if held:
            before = [prior.predict(m) for m in features_of(held, prior.words, prior.names)]
            figures["held-out regret of the start (nats)"] = regret(before, [q.own for q in held])
    laziness, more = finish_trees(records, learn, held, settings, lambda part, own: score_all(trees, part, own))
    figures |= more
    write_trees(trees, folder, {**card, "start": start, **figures}, laziness)


def start_of(settings: Settings, questions: int) -> str:
    """What the trees begin from, which is printed: a selector, or SCRATCH.

    Args:
        questions: how many there are to learn from.
    """
    start, why = settings.start, ""
    if start is None and questions >= FEW:
        start = SCRATCH
    elif start is None and settings.labels == "relevance":
        # The rival of a selector on gains must not have learned from gains itself.
        start, why = SCRATCH, f", as {PRIOR} learned from gains"
    elif start is None:
        start = PRIOR
    say(f"the trees start from {'nothing' if start == SCRATCH else start}{why}")
    return start


def finish_trees(
    records: Sequence[GainRecord] | Sequence[Retrieved],
    learn: Sequence[Example],
    held: Sequence[Example],
    settings: Settings,
    scores_of: Scoring,
) -> tuple[Laziness | None, dict[str, float | str | None]]:
    """The threshold and the held-out figures of a list-wise selector, and whether it is fit to be saved.

    Args:
        records: all questions there are.
        learn, held: those learned from and those held out.
        scores_of: of some questions the scores of their passages; with False of those that were retrieved, as if there
            were no pseudo-passage.

    Raises:
        ModelError: it must not be saved, see `train_features`.
    """
    figures: dict[str, float | str | None] = {}
    scores = scores_of([question.record for question in held or learn[:LOOKED_AT]], True)
    check_numbers(scores)
    check_order(scores)
    if held:
        judged = judge(scores, held, settings.sharpness)
        figures |= {
            "held-out regret (nats)": judged.regret,
            "held-out cross-entropy (nats)": judged.cross_entropy,
            **compare_with_retrieval(scores, list(held), settings.keep_worse),
            **compare_with_shipped(scores, list(held), settings),
        }
    if settings.labels == "relevance":
        return None, figures
    learned, judges = ([question.record for question in part] for part in (learn, held))
    asked = calibration_questions(records, learned, judges, settings.seed)
    if not asked:
        return None, figures
    lists, own = [r.ctxs for r in asked], scores_of(asked, True)
    laziness = learn_threshold(lists, own, held_out=bool(held), alone=scores_of(asked, False))
    figures |= {"lazy threshold": laziness.threshold, "questions that skip the pseudo-passage": laziness.skipped}
    return laziness, figures


def request(record: GainRecord | Retrieved, pseudo: bool = True) -> tuple[str, list[Passage]]:
    """What a selector is asked: the question with its choices, and the passages, or those that were retrieved."""
    passages: list[Passage] = [c for c in record.ctxs if pseudo or c.origin != "generated"]
    return question_with_choices(record.question, record.choices), passages


def score_all(trees: Trees, records: Sequence[GainRecord | Retrieved], pseudo: bool = True) -> list[FloatArray]:
    """The scores [passage] of each question's passages, or of those that were retrieved, as if there were no others."""
    return [trees.predict(matrix(*request(r, pseudo), trees.words, trees.names)) for r in records]


class Went(NamedTuple):
    """How far boosting went on from a prior.

    strength: what the new trees' scores are multiplied by.
    prior, best: regret out of fold of the prior, and at the strength of least regret, in the labels' unit.
    error: the standard error of the difference.
    """

    strength: float
    prior: float
    best: float
    error: float

    @property
    def figures(self) -> dict[str, float | str | None]:
        """What the card says."""
        return {
            "strength of the new trees": self.strength,
            "out-of-fold regret of the start (nats)": self.prior,
            "out-of-fold regret with new trees (nats)": self.best,
            "standard error of the difference": self.error,
        }


def go_on(
    prior: Trees,
    examples: Sequence[Example],
    *,
    temperature: float = 1.0,
    seeds: int = SEEDS,
    seed: int = 0,
) -> tuple[Trees, Went]:
    """The prior with new trees on top, as strong as the folds say."""
    matrices = features_of(examples, prior.words, prior.names)
    before = [prior.predict(own) for own in matrices]
    fold = np.random.default_rng(seed).permutation(len(examples)) % FOLDS

    def fit(chosen: Sequence[int], models: int) -> Trees:
        return fit_trees(
            [examples[i] for i in chosen],
            matrices=[matrices[i] for i in chosen],
            start=prior,
            alone=True,
            seeds=models,
            temperature=temperature,
            seed=seed,
            **size_for(len(chosen)),
        )

    new = [np.empty(0)] * len(examples)
    for out in range(FOLDS if len(examples) >= 2 * FOLDS else 0):
        more = fit([i for i in range(len(examples)) if fold[i] != out], 1)
        for i in np.flatnonzero(fold == out):
            new[i] = more.predict(matrices[i])
    if not len(examples) >= 2 * FOLDS:
        new = [np.zeros(len(own)) for own in before]
    labels = [question.own for question in examples]
    lost = np.array(
        [
            regrets([old + strength * own for old, own in zip(before, new, strict=True)], labels)
            for strength in STRENGTHS
        ]
    )
    best = int(lost.mean(axis=1).argmin())
    error = standard_error(lost[0] - lost[best])
    strength = STRENGTHS[best] if lost[0].mean() - lost[best].mean() > error else 0.0
    went = Went(strength, float(lost[0].mean()), float(lost[best].mean()), error)
    if not strength:
        return prior, went
    text = joined([(prior.text, 1.0), (fit(range(len(examples)), seeds).text, strength)])
    return Trees(prior.names, prior.words, text), went


def size_for(questions: int) -> dict[str, Any]:
    """Rounds, leaves and the fewest passages of a leaf for trees on top of a prior: fewer and simpler ones where there
    is little to learn from."""
    if questions < 1000:
        return {"rounds": 60, "learning_rate": 0.1, "leaves": 6, "least": 20}
    return {"rounds": 200, "learning_rate": 0.1, "leaves": 15, "least": 40}
