"""A stack: boosted trees that read cheap features and, as one thing more, what cross-encoders say of a passage.

A folder of this kind is a feature selector's (see `gainrag.selectors.boosted`) with `stack.json` and one plain
cross-encoder folder for each fold of the training, cross_encoder_0/, cross_encoder_1/, ... A passage's cross-encoder
score is the mean of theirs; only the passages that retrieval puts first are read, the others have none (NaN).

| column | of a passage that was read |
|---|---|
| `cross_encoder` | its score, in the cross-encoder's own unit (log-odds) |
| `cross_encoder_z` | less the mean of those read, divided by their standard deviation |
| `cross_encoder_gap` | less the best score of those read |
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from gainrag.errors import DataError
from gainrag.protocols import FloatArray
from gainrag.records import Passage
from gainrag.selectors.backends import Backend
from gainrag.selectors.boosted import read_trees
from gainrag.selectors.calibration import retrievers_of, standardised
from gainrag.selectors.cross_encoder import CrossEncoderSelector
from gainrag.selectors.features import FEATURES, matrix
from gainrag.selectors.fetching import selector_folder
from gainrag.selectors.lazy import Laziness, threshold_in
from gainrag.selectors.learned import Learned, read_learned
from gainrag.settings import Batch, Device, Dtype, checked
from gainrag.statistics import standardise

# The columns that a stack's trees read beside the features.
COLUMNS = ("cross_encoder", "cross_encoder_z", "cross_encoder_gap")


class Stack(Learned, frozen=True):
    """What a stack consists of beside its trees.

    folds: how many cross-encoders there are.
    depth: how many retrieved passages of a question they read; the pseudo-passage is always read.
    """

    FILE: ClassVar[str] = "stack.json"

    folds: int
    depth: int


def cross_encoder_folder(folder: str | Path, fold: int) -> Path:
    """Where a stack's folder holds the cross-encoder of a fold, from 0."""
    return Path(folder) / f"cross_encoder_{fold}"


def is_stack(folder: str | Path) -> bool:
    """Whether a folder holds a stack."""
    return (Path(folder) / Stack.FILE).is_file()


def to_read(passages: Sequence[Passage], depth: int) -> list[int]:
    """Which passages the cross-encoders read: the pseudo-passage, and the `depth` retrieved ones with the highest mean
    of the retrievers' standardised scores (the first of the list where there are no scores), in the list's order."""
    fused = np.sum([standardised(passages, name) for name in retrievers_of([passages])], axis=0)
    retrieved = [i for i, passage in enumerate(passages) if passage.origin != "generated"]
    first = sorted(retrieved, key=lambda i: -fused[i])[:depth]
    return sorted({*first, *(i for i, passage in enumerate(passages) if passage.origin == "generated")})


def columns(n: int, read: Sequence[int], scores: FloatArray) -> FloatArray:
    """The columns of `COLUMNS`, [passage, column]; NaN of the passages that were not read.

    Args:
        n: number of passages.
        read: where those that were read are.
        scores: of those that were read.
    """
    found = np.full((n, len(COLUMNS)), np.nan)
    if len(read):
        found[list(read)] = np.stack([scores, standardise(scores), scores - scores.max()], axis=1)
    return found


class StackedSelector:
    """A trained stack. Its scores see the question's other candidates, as a feature selector's do.

    Args:
        path: a folder that `gainrag train --kind stack` made, or a Hugging Face id.
        backend, dtype, device, batch_tokens: of its cross-encoders, see `CrossEncoderSelector`.

    Raises:
        DataError: the folder's files are damaged, or name a feature that this version does not have.
        ModelError, ConfigError: as `CrossEncoderSelector`'s.
    """

    listwise = True

    @checked
    def __init__(
        self,
        path: str | Path,
        *,
        backend: Backend = "auto",
        dtype: Dtype = "auto",
        device: Device = "auto",
        batch_tokens: Batch | None = None,
    ) -> None:
        self.name = str(path)
        folder = selector_folder(self.name)
        found = read_learned(folder, Stack)
        if found is None or found.folds < 1:
            raise DataError("is no stack", where=self.name, hint="make one with `gainrag train --kind stack`")
        self.stack = found
        self.trees = read_trees(folder, COLUMNS)
        self.laziness = read_learned(folder, Laziness)
        self.cross_encoders = [
            CrossEncoderSelector(
                cross_encoder_folder(folder, fold),
                backend=backend,
                dtype=dtype,
                device=device,
                batch_tokens=batch_tokens,
            )
            for fold in range(found.folds)
        ]

    @property
    def settings(self) -> dict[str, str]:
        """What its scores depend on beside the folder's content."""
        return {**self.cross_encoders[0].settings, "model": self.name}

    @property
    def threshold(self) -> float | None:
        """The score from which a retrieved passage makes the pseudo-passage needless: infinite where none does, None
        where it was not learned."""
        return threshold_in(self.laziness)

    @property
    def context(self) -> int:
        """How many tokens of a question and a passage its cross-encoders read together; the features read all."""
        return self.cross_encoders[0].context

    def count_tokens(self, text: str) -> int:
        """How many tokens a question or a passage has."""
        return self.cross_encoders[0].count_tokens(text)

    def truncate(self, text: str, tokens: int) -> str:
        """The beginning of a text, of at most so many tokens."""
        return self.cross_encoders[0].truncate(text, tokens)

    def score(self, question: str, passages: Sequence[Passage]) -> FloatArray:
        """One score a passage; higher is better."""
        return self.score_many([(question, passages)])[0]

    def score_many(self, requests: Sequence[tuple[str, Sequence[Passage]]]) -> list[FloatArray]:
        """The scores of several questions' passages.

        Raises:
            ModelError: a score of a cross-encoder is not finite.
        """
        read = [to_read(passages, self.stack.depth) if passages else [] for _, passages in requests]
        asked = [(q, [passages[i] for i in own]) for (q, passages), own in zip(requests, read, strict=True)]
        by_model = [model.own_scores(asked) for model in self.cross_encoders]
        names = tuple(name for name in self.trees.names if name in FEATURES)
        found = []
        for n, (question, passages) in enumerate(requests):
            if not passages:
                found.append(np.empty(0))
                continue
            said = columns(len(passages), read[n], np.mean([scores[n] for scores in by_model], axis=0))
            seen = matrix(question, passages, self.trees.words, names)
            found.append(self.trees.predict(np.hstack([seen, said])))
        return found
