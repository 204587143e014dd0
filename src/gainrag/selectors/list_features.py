"""What a feature selector sees of the list that a passage comes in: the retrievers' scores and its place.

They need no retriever in particular: candidates with one score or none have fewer of them. NaN is "not known". Those
marked * see the order or number of the candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from gainrag.protocols import FloatArray
from gainrag.records import Passage, Scored
from gainrag.selectors.calibration import retrievers_of, standardised
from gainrag.selectors.candidates import Candidates, once


def _scores(c: Candidates) -> FloatArray:
    """Standardised scores, [retriever, passage]: NaN where there is none at all; of the pseudo-passage NaN."""
    found = c.memory.get("scores")
    if found is None:
        lists = [c.passages]
        names = [name for name in retrievers_of(lists) if _is_scored(c.passages, name)]
        found = np.array([standardised(c.passages, name) for name in names]).reshape(len(names), c.n)
        found = found[found.std(axis=1) > 0]  # scores that are all equal say nothing
        found[:, c.generated] = np.nan
        c.memory["scores"] = found
    return found


def _is_scored(passages: Sequence[Passage], name: str) -> bool:
    return any(isinstance(p, Scored) and (name in (p.scores or {}) or p.score is not None) for p in passages)


def score_mean(c: Candidates) -> FloatArray:
    """Mean of the standardised scores, in standard deviations: the plain fusion of all retrievers there are."""
    return _reduced(c, np.mean)


def score_best(c: Candidates) -> FloatArray:
    """The highest standardised score: a passage that one retriever is sure of."""
    return _reduced(c, np.max)


def score_worst(c: Candidates) -> FloatArray:
    """The lowest standardised score: a passage that no retriever doubts."""
    return _reduced(c, np.min)


def _reduced(c: Candidates, how: Callable[..., FloatArray]) -> FloatArray:
    z = _scores(c)
    return how(z, axis=0) if len(z) else np.full(c.n, np.nan)


def score_gap(c: Candidates) -> FloatArray:
    """How far the mean standardised score is below the question's best one, in standard deviations."""
    mean = once(c, "score_mean", score_mean)
    return mean - np.nanmax(mean) if np.isfinite(mean).any() else mean


def score_rank(c: Candidates) -> FloatArray:
    """log(1 + rank by the mean standardised score, from 0)."""
    mean = once(c, "score_mean", score_mean)
    return np.log1p(_ranks(mean)) if np.isfinite(mean).any() else mean


def _ranks(values: FloatArray) -> FloatArray:
    """How many are higher; NaN stays NaN."""
    return np.where(np.isnan(values), np.nan, (values[None, :] > values[:, None]).sum(axis=1))


def retriever_z(c: Candidates, name: str) -> FloatArray:
    """The standardised score of one of this library's own retrievers, where it is known that it is that one's."""
    if not any(isinstance(p, Scored) and name in (p.scores or {}) for p in c.passages):
        return np.full(c.n, np.nan)
    z = standardised(c.passages, name)
    return np.where(c.generated | (np.ptp(z) == 0), np.nan, z)


def retriever_raw(c: Candidates, name: str) -> FloatArray:
    """The score itself: a cosine means something beyond the question."""
    return np.array([_raw(p, name) for p in c.passages], dtype=np.float64)


def _raw(passage: Passage, name: str) -> float:
    scores = passage.scores if isinstance(passage, Scored) else None
    return scores.get(name, np.nan) if scores else np.nan


def retriever_gap(c: Candidates, name: str) -> FloatArray:
    """How far the score is below the best one of the question, in the score's own unit."""
    raw = once(c, f"raw_{name}", partial(retriever_raw, name=name))
    return raw - np.nanmax(raw) if np.isfinite(raw).any() else raw


def place(c: Candidates) -> FloatArray:
    """* log(1 + place in the list, from 0): whoever made the list may have known more than the scores say."""
    return np.where(c.generated, np.nan, np.log(np.maximum(1, np.cumsum(~c.generated))))


def candidates(c: Candidates) -> FloatArray:
    """* log(number of candidates): standardised scores of ten and of a hundred are not alike."""
    return np.full(c.n, np.log(max(1, c.n)))


def generated(c: Candidates) -> FloatArray:
    """Whether it is the pseudo-passage, which the language model wrote: 0 or 1."""
    return c.generated.astype(np.float64)
