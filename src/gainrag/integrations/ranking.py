"""What every framework's adapter does: open a selector, and order passages by it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gainrag.errors import ConfigError
from gainrag.protocols import Selector, need, scores_with
from gainrag.records import Scored
from gainrag.selection import top
from gainrag.selectors import PRIOR, open_selector

__all__ = ["PRIOR", "opened", "passage", "ranking"]


def opened(selector: str | Path | Selector) -> Selector:
    """A selector, opened where it is a folder or a name.

    Raises:
        GainragError: it cannot be opened.
    """
    found = open_selector(selector) if isinstance(selector, str | Path) else selector
    need(found, Selector, what="selector", where="integrations", hint='pass a folder, or open_selector("selector/")')
    return found


def passage(number: int, text: str, about: Mapping[str, Any], score: float | None = None) -> Scored:
    """A framework's document as a passage.

    Args:
        number: its place, which is its id.
        about: its metadata: `title`, and `score` or `scores` where a retriever left them there.
        score: what it was retrieved with, where the framework says so itself.
    """
    found = score if score is not None else about.get("score")
    scores = about.get("scores")
    return Scored(
        id=str(number),
        title=str(about.get("title") or ""),
        text=text,
        score=float(found) if found is not None and _is_number(found) else None,
        scores={str(k): float(v) for k, v in scores.items() if _is_number(v)} if isinstance(scores, Mapping) else None,
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def ranking(
    selector: Selector, question: str, passages: Sequence[Scored], top_n: int | None
) -> list[tuple[int, float]]:
    """Where the best passages are, best first, each with the selector's score; all where `top_n` is None.

    Raises:
        ConfigError: top_n is below 1.
        ModelError: the selector's scores are no numbers, or not one for each passage.
    """
    if top_n is not None and top_n < 1:
        raise ConfigError(f"top_n is {top_n}", where="integrations", hint="give 1 or more, or None for all")
    if not passages:
        return []
    scores = scores_with(selector, [(question, passages)])[0]
    return [(i, float(scores[i])) for i in top(scores, top_n or len(passages))]
