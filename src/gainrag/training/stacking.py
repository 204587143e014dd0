"""Labels -> a stack: cross-encoders' scores, made out of fold, are columns of boosted trees.

Trees that saw a cross-encoder's scores of the questions it learned from would trust it too much. So the questions fall
into folds by their id; a cross-encoder learns from all folds but one and scores that one:

    column of question q = score by the cross-encoder that learned from the folds without q

The same cross-encoders make the selector, by the mean of their scores: no further one is trained. Whether the columns
help at all is found out on the questions learned from, by trees with and without them that learn from some of these
questions and choose for the others. Where they do not help, no cross-encoder is kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from gainrag.errors import ConfigError
from gainrag.files.progress import say
from gainrag.protocols import FloatArray
from gainrag.records import GainRecord, Passage, Retrieved
from gainrag.selectors.scoring import score_pairs
from gainrag.selectors.stacked import COLUMNS, Stack, columns, cross_encoder_folder, to_read
from gainrag.selectors.trees import Trees
from gainrag.training.base import open_base
from gainrag.training.boosting import features_of, fit_trees, words_in
from gainrag.training.held_out import check_numbers
from gainrag.training.labels import Example, regret, targets
from gainrag.training.settings import Settings

# Parts in which trees with and without the columns are compared, and how many seeds each of these trees averages.
PARTS, SEEDS = 4, 2
# With fewer questions to learn from a cross-encoder is not tried: a fold of it would have too few.
ENOUGH = 100

Boost = Callable[..., Trees]


class Stacked(NamedTuple):
    """What was learned.

    trees: with the columns behind the features, or without them.
    stack: None where the columns do not help.
    figures: for the model card.
    """

    trees: Trees
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
    folds: int,
    depth: int,
    relevance_epochs: int,
    device: str,
    bf16: bool,
    boost: Boost = fit_trees,
) -> Stacked:
    """Train the cross-encoders into a folder, and the trees.

    Args:
        learn: questions with labels.
        folder: an existing one; holds cross_encoder_0/ .. afterwards where they help.
        folds: how many cross-encoders; 2 or more.
        depth: how many retrieved passages of a question they read.
        relevance_epochs: passes over the fold's questions with has-answer labels, before those with the labels.
        boost: `fit_trees`, perhaps with settings.

    Raises:
        ModelError: the base cannot be loaded, or the scores are NaN.
    """
    words = words_in(learn)
    matrices = features_of(learn, words)
    if len(learn) < ENOUGH:
        say(f"no cross-encoder is trained: {len(learn)} questions are fewer than {ENOUGH}")
        return Stacked(boost(learn, words=words, matrices=matrices), None, {"cross-encoders": "none: few questions"})
    check_folds(learn, folds)
    extra = out_of_fold(
        learn,
        settings,
        folder,
        folds=folds,
        depth=depth,
        relevance_epochs=relevance_epochs,
        device=device,
        bf16=bf16,
    )
    without, with_them = compare(learn, matrices, extra, boost=boost)
    figures: dict[str, float | str | None] = {
        "regret by folds, features alone (nats)": without,
        "regret by folds, with the cross-encoders (nats)": with_them,
    }
    line = f"regret {with_them:.4f} with, {without:.4f} without, on {len(learn)} questions by {PARTS} parts"
    if with_them >= without:
        say(f"the cross-encoders do not help and are left out: {line}")
        remove_cross_encoders(folder, folds)
        trees = boost(learn, words=words, matrices=matrices)
        return Stacked(trees, None, {**figures, "cross-encoders": "left out: they do not help"})
    say(f"the cross-encoders help: {line}")
    trees = boost(learn, words=words, matrices=matrices, extra=extra, extra_names=COLUMNS)
    return Stacked(trees, Stack(folds=folds, depth=depth), {**figures, "cross-encoders": folds, "read": depth})


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
    folds: int,
    depth: int,
    relevance_epochs: int,
    device: str,
    bf16: bool,
) -> list[FloatArray]:
    """Of each question the columns of `COLUMNS`, [passage, column], by a cross-encoder that did not learn from it.

    The cross-encoders are saved in the folder.

    Raises:
        ModelError: the base cannot be loaded, or the scores are NaN.
    """
    from gainrag.selectors.saving import write_cross_encoder
    from gainrag.training.epochs import fit  # here, as it imports the trainer, which takes seconds

    found: dict[int, FloatArray] = {}
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
        begin = with_answers([e.record for e in others]) if relevance_epochs else []
        if begin:
            first = msgspec.structs.replace(settings, labels="relevance", epochs=relevance_epochs)
            fit(model, begin, [], first, bf16=bf16, scratch=folder)
        fit(model, others, [], settings, bf16=bf16, scratch=folder)
        requests = [read_of(learn[n].record, depth) for n in mine]
        asked = [(learn[n].record.question, passages) for n, (_, passages) in zip(mine, requests, strict=True)]
        scores = score_pairs(model, asked, bf16=bf16)
        check_numbers(scores)
        for n, (read, _), own in zip(mine, requests, scores, strict=True):
            found[n] = columns(len(learn[n].record.ctxs), read, own)
        write_cross_encoder(model, cross_encoder_folder(folder, fold))
    return [found[n] for n in range(len(learn))]


def read_of(record: GainRecord | Retrieved, depth: int) -> tuple[list[int], list[Passage]]:
    """Where the passages are that a cross-encoder reads, and these."""
    read = to_read(record.ctxs, depth)
    return read, [record.ctxs[i] for i in read]


def with_answers(records: Sequence[GainRecord | Retrieved]) -> list[Example]:
    """Of some questions those that has-answer labels can teach, with these labels."""
    labelled = [Example(record, targets(record, "relevance")) for record in records]
    return [example for example in labelled if len(set(example.own)) == 2]


def compare(
    learn: Sequence[Example], matrices: Sequence[FloatArray], extra: Sequence[FloatArray], boost: Boost = fit_trees
) -> tuple[float, float]:
    """The regret of trees without the columns and with them: the mean over all questions, each chosen for by trees that
    did not learn from it."""
    words = words_in([])  # the features are computed already
    parts = np.array([fold_of(f"part {e.record.id}", PARTS) for e in learn])
    scores: dict[bool, list[FloatArray]] = {}
    for given in (False, True):
        names = COLUMNS if given else ()
        rows = [np.hstack([m, x]) for m, x in zip(matrices, extra, strict=True)] if given else list(matrices)
        found: dict[int, FloatArray] = {}
        for part in range(PARTS):
            theirs, mine = np.flatnonzero(parts != part), np.flatnonzero(parts == part)
            if not len(mine) or not len(theirs):
                continue
            trees = boost(
                [learn[n] for n in theirs],
                words=words,
                matrices=[matrices[n] for n in theirs],
                extra=[extra[n] for n in theirs] if given else None,
                extra_names=names,
                seeds=SEEDS,
            )
            found |= {int(n): trees.predict(rows[n]) for n in mine}
        scores[given] = [found[n] for n in range(len(learn))]
    own = [example.own for example in learn]
    return regret(scores[False], own), regret(scores[True], own)


def remove_cross_encoders(folder: Path, folds: int) -> None:
    """Take the cross-encoders out of a folder again."""
    import shutil

    for fold in range(folds):
        shutil.rmtree(cross_encoder_folder(folder, fold), ignore_errors=True)
