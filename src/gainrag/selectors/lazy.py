"""When the pseudo-passage need not be written: a retrieved passage scores high enough without it.

Writing it is the most expensive step of an answer, and where retrieval did well it is seldom chosen. So:

    skip the pseudo-passage where  max over retrieved p of score(p) >= threshold

The threshold is the lowest at which at most 1% of the calibration questions change their choice: those that skip the
pseudo-passage though it would have been chosen. It is learned with the selector and lies in its folder.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from gainrag.errors import ConfigError
from gainrag.protocols import FloatArray, Lazy, Selector, name_of
from gainrag.records import Passage
from gainrag.selectors.learned import Learned

# The key that a lazily selected record carries: whether the pseudo-passage was skipped.
SKIPPED = "pseudo_skipped"


class Laziness(Learned, frozen=True):
    """The threshold, and how it did on the questions it was learned from.

    threshold: a score; None where no threshold keeps the changes few enough, and nothing is ever skipped.
    questions: how many it was learned from.
    held_out: whether the selector had not learned from them.
    skipped, changed: shares of them that skip the pseudo-passage, and whose choice changes by it.
    """

    FILE: ClassVar[str] = "lazy.json"

    threshold: float | None
    questions: int
    held_out: bool
    skipped: float
    changed: float


def threshold_in(laziness: Laziness | None) -> float | None:
    """The threshold as `gainrag.protocols.Lazy` has it: infinite where nothing is ever skipped, None where none was
    learned."""
    if laziness is None:
        return None
    return math.inf if laziness.threshold is None else laziness.threshold


def is_enough(passages: Sequence[Passage], scores: FloatArray, threshold: float, k: int = 1) -> bool:
    """Whether k retrieved passages are there and the best reaches the threshold; a pseudo-passage does not count."""
    retrieved = [float(s) for p, s in zip(passages, scores, strict=True) if p.origin != "generated"]
    return len(retrieved) >= k and max(retrieved) >= threshold


def threshold_of(selector: Selector) -> float:
    """The threshold of a selector that has one (`gainrag.protocols.Lazy`), infinite where nothing is ever skipped.

    Raises:
        ConfigError: it has none.
    """
    found = selector.threshold if isinstance(selector, Lazy) else None
    if found is None:
        raise ConfigError(
            "the selector has no threshold for the lazy pseudo-passage",
            where=name_of(selector),
            hint="train it on gains of candidates with pseudo-passages, or choose eager or never",
        )
    return found
