"""Labels -> a stack: cross-encoders' scores, made out of fold, are columns of boosted trees.

Trees that saw a cross-encoder's scores of the questions it learned from would trust it too much. So the questions fall
into folds by their id; a cross-encoder learns from all folds but one and scores that one:

    column of question q = score by the cross-encoder that learned from the folds without q

The same cross-encoders make the selector, by the mean of their scores: no further one is trained. Whether the columns
help at all is found out on the questions learned from, by trees with and without them that learn from some of these
questions and choose for the others. Where they do not lower the regret by more than one standard error of the
difference, no cross-encoder is kept.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from gainrag.answering import fixed_choices
from gainrag.errors import ConfigError
from gainrag.files.folders import open_output_folder
from gainrag.files.progress import say
from gainrag.models.devices import choose_device, choose_dtype
from gainrag.protocols import FloatArray
from gainrag.records import GainRecord, Retrieved
from gainrag.selectors.boosted import FeatureSelector, write_trees
from gainrag.selectors.features import FEATURES
from gainrag.selectors.learned import write_learned
from gainrag.selectors.saving import write_cross_encoder
from gainrag.selectors.scoring import score_pairs
from gainrag.selectors.stacked import COLUMNS, Stack, StackedSelector, columns, cross_encoder_folder, to_read
from gainrag.selectors.trees import Trees
from gainrag.training.base import open_base
from gainrag.training.boosting import features_of, fit_trees, words_in
from gainrag.training.features import SCRATCH, finish_trees, request, size_for, start_of, write_features
from gainrag.training.held_out import check_numbers
from gainrag.training.labels import Example, regrets, standard_error, targets
from gainrag.training.settings import Settings

# Parts in which trees with and without the columns are compared, and how many seeds each of these trees averages.
PARTS, SEEDS = 4, 2
# With fewer questions to learn from a cross-encoder is not tried: a fold of it would have too few.
ENOUGH = 100

Boost = Callable[..., Trees]


class Stacked(NamedTuple):
    """What was learned.

    trees: with the columns behind the features; None where the columns do not help.
    stack: None likewise.
    figures: for the model card.
    """

    trees: Trees | None
    stack: Stack | None
    figures: dict[str, float | str | None]


def fold_of(question_id: str, folds: int) -> int:
    """The fold of a question, from 0: by its id alone, and independent of whether it is held out."""
    return int.from_bytes(hashlib.sha256(f"fold {question_id}".encode()).digest()[:8]) % folds


def fit_stack(
    learn: Sequence[Example],
    settings: Settings,
    folder: Path,
    *,
    device: str,
    bf16: bool,
    boost: Boost = fit_trees,
    start: Trees | None = None,
) -> Stacked:
    """Train the cross-encoders into a folder, and the trees.

    Args:
        learn: questions with labels.
        folder: an existing one; holds cross_encoder_0/ .. afterwards where they help enough.
        bf16: the cross-encoders' matrix products in bfloat16.
        boost: `fit_trees`, perhaps with settings.
        start: trees that the boosting goes on from.

    Raises:
        ModelError: the base cannot be loaded, or the scores are NaN.
    """
    words, names = (start.words, start.names) if start else (words_in(learn), tuple(FEATURES))
    matrices = features_of(learn, words, names)
    boost = partial(boost, words=words, start=start)
    folds = settings.folds
    check_folds(learn, folds)
    extra = out_of_fold(learn, settings, folder, device=device, bf16=bf16)
    without, with_them, error = compare(learn, matrices, extra, boost)
    figures: dict[str, float | str | None] = {
        "regret by folds, features alone (nats)": without,
        "regret by folds, with the cross-encoders (nats)": with_them,
        "standard error of the difference by folds": error,
    }
    line = f"regret {with_them:.4f} with, {without:.4f} without (standard error of the difference {error:.4f}), "
    line += f"on {len(learn)} questions by {PARTS} parts"
    if without - with_them <= error:
        say(f"the cross-encoders do not help enough and are left out: {line}")
        remove_cross_encoders(folder, folds)
        return Stacked(None, None, {**figures, "cross-encoders": "left out: they do not help enough"})
    say(f"the cross-encoders help: {line}")
    trees = boost(learn, matrices=matrices, extra=extra, extra_names=COLUMNS)
    told = {**figures, "cross-encoders": folds, "passages that they read": settings.depth}
    return Stacked(trees, Stack(folds=folds, depth=settings.depth), told)


def train_stack(
    records: Sequence[GainRecord] | Sequence[Retrieved],
    learn: Sequence[Example],
    held: Sequence[Example],
    out: str | Path,
    card: Mapping[str, Any],
    settings: Settings,
) -> StackedSelector | FeatureSelector:
    """Train a stack and save it as a plain folder with a card; a feature selector where cross-encoders do not help.

    Args:
        records: all questions there are.
        learn, held: those to learn from and those held out.
        card: what the card says; the figures are added.

    Raises:
        ConfigError: a fold has no questions.
        ModelError: the base cannot be loaded, or the selector must not be saved, see `finish_trees`.
    """
    device = choose_device(settings.device)
    bf16 = choose_dtype(settings.dtype, device) == "bfloat16"
    boost: Boost = partial(fit_trees, temperature=settings.sharpness, seed=settings.seed)
    with open_output_folder(out) as folder:
        if len(learn) < ENOUGH:
            say(f"no cross-encoder is trained: {len(learn)} questions are fewer than {ENOUGH}")
            made = Stacked(None, None, {"cross-encoders": "none: few questions"})
        else:
            start: Trees | None = None
            if (begun := start_of(settings, len(learn))) != SCRATCH:
                start, boost = FeatureSelector(begun).trees, partial(boost, **size_for(len(learn)))
            made = fit_stack(learn, settings, folder, device=device, bf16=bf16, boost=boost, start=start)
        if made.trees is None or made.stack is None:
            write_features(records, learn, held, folder, {**card, **made.figures}, settings)
        else:
            write_learned(folder, made.stack)
            write_trees(made.trees, folder, {})
            selector = StackedSelector(folder, device=device)

            def scores_of(part: Sequence[GainRecord | Retrieved], pseudo: bool) -> list[FloatArray]:
                return selector.score_many([request(record, pseudo) for record in part])

            laziness, figures = finish_trees(records, learn, held, settings, scores_of)
            write_trees(made.trees, folder, {**card, **made.figures, **figures}, laziness)
    return FeatureSelector(out) if made.stack is None else StackedSelector(out, device=device)


def check_folds(learn: Sequence[Example], folds: int) -> None:
    """Whether no fold is empty and none has all questions.

    Raises:
        ConfigError: one is, or has.
    """
    sizes = np.bincount([fold_of(e.record.id, folds) for e in learn], minlength=folds)
    if sizes.min() == 0 or sizes.max() == len(learn):
        raise ConfigError(
            f"of {folds} folds of {len(learn)} questions one is empty", where="train", hint="lower folds, or label more"
        )


def out_of_fold(
    learn: Sequence[Example],
    settings: Settings,
    folder: Path,
    *,
    device: str,
    bf16: bool,
) -> list[FloatArray]:
    """Of each question the columns of `COLUMNS`, [passage, column], by a cross-encoder that did not learn from it.

    The cross-encoders are saved in the folder.

    Raises:
        ModelError: the base cannot be loaded, or the scores are NaN.
    """
    from gainrag.training.epochs import fit  # here, as it imports the trainer, which takes seconds

    found: dict[int, FloatArray] = {}
    folds = settings.folds
    for fold in range(folds):
        others = [e for e in learn if fold_of(e.record.id, folds) != fold]
        mine = [n for n, e in enumerate(learn) if fold_of(e.record.id, folds) == fold]
        say(f"cross-encoder {fold + 1} of {folds}: {len(others)} questions, then it scores {len(mine)} others")
        model = open_base(
            settings.base,
            device=device,
            max_length=settings.max_length,
            seed=settings.seed + fold,
            dropout=settings.dropout,
            last_layers=settings.last_layers,
        )
        begin = with_answers([e.record for e in others]) if settings.relevance_epochs else []
        if begin:
            first = msgspec.structs.replace(settings, labels="relevance", epochs=settings.relevance_epochs)
            fit(model, begin, [], first, bf16=bf16, scratch=folder)
        fit(model, others, [], settings, bf16=bf16, scratch=folder)
        read = [to_read(learn[n].record.ctxs, settings.depth) for n in mine]
        asked = [
            (q, [passages[i] for i in own])
            for (q, passages), own in zip((request(learn[n].record) for n in mine), read, strict=True)
        ]
        scores = score_pairs(model, asked, bf16=bf16)
        check_numbers(scores)
        for n, at, own in zip(mine, read, scores, strict=True):
            found[n] = columns(len(learn[n].record.ctxs), at, own)
        write_cross_encoder(model, cross_encoder_folder(folder, fold))
    return [found[n] for n in range(len(learn))]


def with_answers(records: Sequence[GainRecord | Retrieved]) -> list[Example]:
    """Of some questions those that has-answer labels can teach, with these labels. Of two choices, such as Yes and No,
    one stands in a passage by chance."""
    open_ones = [record for record in records if fixed_choices([record]) is None]
    labelled = [Example(record, targets(record, "relevance")) for record in open_ones]
    return [example for example in labelled if len(set(example.own)) == 2]


class Compared(NamedTuple):
    """Regrets of trees without the columns and with them, and the standard error of their difference."""

    without: float
    with_them: float
    error: float


def compare(
    learn: Sequence[Example], matrices: Sequence[FloatArray], extra: Sequence[FloatArray], boost: Boost = fit_trees
) -> Compared:
    """The regret of trees without the columns and with them: the mean over all questions, each chosen for by trees that
    did not learn from it."""
    parts = np.array([fold_of(f"part {e.record.id}", PARTS) for e in learn])
    scores: dict[bool, list[FloatArray]] = {}
    for given in (False, True):
        names = COLUMNS if given else ()
        rows = [np.hstack([m, x]) for m, x in zip(matrices, extra, strict=True)] if given else list(matrices)
        found: dict[int, FloatArray] = {}
        for part in range(PARTS):
            theirs, mine = (np.flatnonzero(where).tolist() for where in (parts != part, parts == part))
            if not mine or not theirs:
                continue
            trees = boost(
                [learn[n] for n in theirs],
                matrices=[matrices[n] for n in theirs],
                extra=[extra[n] for n in theirs] if given else None,
                extra_names=names,
                seeds=SEEDS,
            )
            found |= {n: trees.predict(rows[n]) for n in mine}
        scores[given] = [found[n] for n in range(len(learn))]
    own = [example.own for example in learn]
    without, with_them = regrets(scores[False], own), regrets(scores[True], own)
    return Compared(float(without.mean()), float(with_them.mean()), standard_error(without - with_them))


def remove_cross_encoders(folder: Path, folds: int) -> None:
    """Take the cross-encoders out of a folder again."""
    for fold in range(folds):
        shutil.rmtree(cross_encoder_folder(folder, fold), ignore_errors=True)
