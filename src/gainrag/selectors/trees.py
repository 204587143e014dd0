"""Boosted trees as text: LightGBM's own format, cut to what prediction needs, several models joined into one.

A model's raw score is the sum of its trees' leaves. So the mean of several models, or one model on top of another, is a
model whose trees are those of all, with scaled leaves; and a model file need not say how often a leaf was reached.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from gainrag.errors import DataError, ModelError
from gainrag.protocols import FloatArray
from gainrag.selectors.words import Words

if TYPE_CHECKING:
    from lightgbm import Booster

# What a tree must say; the rest (gains, counts, weights of inner nodes) is for those who study it.
_NEEDED = (
    "num_leaves", "num_cat", "split_feature", "threshold", "decision_type", "left_child", "right_child", "leaf_value",
    "cat_boundaries", "cat_threshold", "is_linear", "shrinkage",
)  # fmt: skip


@dataclass(frozen=True)
class Trees:
    """Boosted trees with what their features are.

    names: of the columns they read.
    words: what the features know about words.
    text: the model in LightGBM's text format.
    """

    names: tuple[str, ...]
    words: Words
    text: str = field(repr=False)

    @cached_property
    def booster(self) -> Booster:
        """The model as LightGBM opens it.

        Raises:
            DataError: the text is no model, or of other columns.
        """
        import lightgbm

        try:
            found = lightgbm.Booster(params={"verbosity": -1, "num_threads": 1}, model_str=self.text)
        except lightgbm.basic.LightGBMError as error:
            raise DataError(f"the trees cannot be read: {error}", hint="train the selector again") from None
        if found.num_feature() != len(self.names):
            what = f"the trees read {found.num_feature()} columns, and {len(self.names)} features are named"
            raise DataError(what, hint="train the selector again")
        return found

    def predict(self, matrix: FloatArray) -> FloatArray:
        """One score a row of [passage, column]; higher is better.

        Raises:
            ModelError: the columns are not those of `names`.
        """
        if matrix.ndim != 2 or matrix.shape[1] != len(self.names):
            what = f"features have the shape {list(matrix.shape)}, and the trees read {len(self.names)} columns"
            raise ModelError(what, hint="give the columns that `names` lists")
        if not len(matrix):
            return np.empty(0)
        return np.asarray(self.booster.predict(matrix, raw_score=True, num_threads=1), dtype=np.float64)

    def __getstate__(self) -> dict[str, object]:
        return {"names": self.names, "words": self.words, "text": self.text}


def joined(parts: Sequence[tuple[str, float]]) -> str:
    """The model whose score is the weighted sum of the models' scores.

    Args:
        parts: models in LightGBM's text format and their weights; the last one has the columns of all.
    """
    last = parts[-1][0]
    head = [
        line
        for line in last.split("\nTree=", 1)[0].split("\n\nend of trees")[0].strip().splitlines()
        if not line.startswith(("tree_sizes=", "objective=", "feature_infos="))
    ]
    # LightGBM checks that there is one of these for every column; what is in them is for its own plots.
    columns = next(line for line in head if line.startswith("feature_names="))
    head.append("feature_infos=" + " ".join(["none"] * len(columns.split())))
    trees = [tree for text, weight in parts if weight for tree in _scaled(text, weight)]
    numbered = [f"Tree={n}\n{tree}" for n, tree in enumerate(trees)]
    return "\n\n".join(["\n".join(head), *numbered, "end of trees\n"])


def _scaled(text: str, weight: float) -> Iterator[str]:
    """The trees of a model with scaled leaves, cut to what is needed."""
    for tree in re.split(r"^Tree=\d+\n", text.split("\nend of trees")[0], flags=re.MULTILINE)[1:]:
        lines = (line.partition("=") for line in tree.strip().splitlines())
        yield "\n".join(f"{key}={_shorter(key, value, weight)}" for key, _, value in lines if key in _NEEDED)


def _shorter(key: str, values: str, weight: float) -> str:
    """What a line says in fewer digits: a threshold's eighth one decides nothing."""
    if key == "leaf_value":
        return " ".join(f"{float(value) * weight:.5g}" for value in values.split())
    return " ".join(f"{float(value):.8g}" for value in values.split()) if key == "threshold" else values
