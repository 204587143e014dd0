"""A selector of boosted trees over cheap features: it needs no neural network, and milliseconds a question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from gainrag.errors import DataError
from gainrag.files.streams import read_json, write_json
from gainrag.protocols import FloatArray
from gainrag.records import Passage
from gainrag.selectors.features import FEATURES, matrix
from gainrag.selectors.fetching import FEATURES_FILE, selector_folder
from gainrag.selectors.lazy import Laziness, threshold_in
from gainrag.selectors.learned import facts_table, read_learned, write_learned
from gainrag.selectors.trees import Trees
from gainrag.selectors.words import Words

# The file with the trees, beside FEATURES_FILE.
TREES_FILE = "trees.txt"
VERSION = 1


class _Features(msgspec.Struct, kw_only=True):
    """What features.json holds.

    features: the columns that the trees read, in their order.
    """

    version: int
    features: list[str]
    words: Words


class FeatureSelector:
    """A trained feature selector: scores by boosted trees over the features of `gainrag.selectors.features`.

    A score depends on the question's other candidates: features compare passages with one another. Several threads may
    use it.

    Args:
        path: a folder that `gainrag train --kind features` made, embedded:gain-features, or a Hugging Face id.

    Raises:
        DataError: the folder's files are damaged, or name a feature that this version does not have.
        ModelError: it cannot be fetched.
    """

    # Whether a passage's score depends on the other candidates, see `gainrag.protocols.Listwise`.
    listwise = True

    def __init__(self, path: str | Path) -> None:
        self.name = str(path)
        folder = selector_folder(self.name)
        self.trees = read_trees(folder)
        self.laziness = read_learned(folder, Laziness)

    @property
    def settings(self) -> dict[str, str]:
        """What its scores depend on beside the folder's content."""
        return {"model": self.name}

    @property
    def threshold(self) -> float | None:
        """The score from which a retrieved passage makes the pseudo-passage needless: infinite where none does, None
        where it was not learned."""
        return threshold_in(self.laziness)

    def score(self, question: str, passages: Sequence[Passage]) -> FloatArray:
        """One score a passage; higher is better."""
        return self.trees.predict(matrix(question, passages, self.trees.words, self.trees.names))


def is_feature_selector(folder: str | Path) -> bool:
    """Whether a folder holds a feature selector."""
    return (Path(folder) / FEATURES_FILE).is_file()


def read_trees(folder: str | Path, more: Sequence[str] = ()) -> Trees:
    """The trees of a folder, with their features.

    Args:
        more: columns that whoever opens the folder gives them behind the features.

    Raises:
        DataError: a file is missing or damaged, or a feature is unknown.
    """
    path, again = Path(folder) / FEATURES_FILE, "train the selector again"
    try:
        found = msgspec.convert(read_json(path), _Features)
    except msgspec.ValidationError as error:
        raise DataError(str(error), where=str(path), hint=again) from None
    if unknown := [name for name in found.features if name not in FEATURES and name not in more]:
        raise DataError(f"the feature {unknown[0]!r} is not known", where=str(path), hint=f"update gainrag, or {again}")
    try:
        text = (Path(folder) / TREES_FILE).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read: {error}", where=str(Path(folder) / TREES_FILE), hint=again) from None
    trees = Trees(tuple(found.features), found.words, text)
    _ = trees.booster  # damaged trees are known here, not at the first question
    return trees


def write_trees(trees: Trees, folder: Path, card: Mapping[str, Any], laziness: Laziness | None = None) -> None:
    """Write a feature selector and its card into an empty folder, see gainrag.files.folders.open_output_folder."""
    known = _Features(version=VERSION, features=list(trees.names), words=trees.words)
    write_json(folder / FEATURES_FILE, msgspec.to_builtins(known))
    (folder / TREES_FILE).write_text(trees.text, encoding="utf-8")
    if laziness:
        write_learned(folder, laziness)
    (folder / "README.md").write_text(model_card(card), encoding="utf-8")


def model_card(facts: Mapping[str, Any]) -> str:
    """The selector's README: what it was trained for, on, and how."""
    return (
        "---\nlibrary_name: gainrag\npipeline_tag: text-ranking\ntags: [lightgbm, gainrag]\n---\n\n"
        "# A gainrag feature selector\n\nBoosted trees that score how much a passage helps a language model to the "
        f"right answer. `{TREES_FILE}` is a LightGBM model in its text format; `{FEATURES_FILE}` lists the columns it "
        "reads and what was counted about words.\n\n"
        '```python\nfrom gainrag import FeatureSelector\n\nselector = FeatureSelector("path/to/this/folder")\n```\n\n'
        + facts_table(facts)
    )
