"""What the retrievers' own scores add to a cross-encoder's, learned on held-out questions.

A cross-encoder that learns from a few hundred questions knows less than retrievers that learned from millions of pairs
or count words, and knows something else. Put together as the parts of a log-odds:

    score(p) = scale * cross_encoder(p) + sum over retrievers of weight * z(p) + (p is the pseudo-passage) * pseudo

z(p): the retriever's score of p, less the mean over the question's retrieved passages and divided by their standard
deviation, since scores of different questions and retrievers are not alike. The pseudo-passage, which no retriever
scored, has 0. Weights are those that minimise the cross-entropy of the teacher on questions that the cross-encoder did
not learn from; where a retriever has nothing to add, its weight comes out 0. `pseudo` sets right what the
cross-encoder, which learned from few pseudo-passages, takes their level to be.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from gainrag.protocols import FloatArray
from gainrag.records import Passage, Scored
from gainrag.selectors.learned import Learned
from gainrag.statistics import least_cross_entropy, standardise

# What passages are ordered by that came from one retriever, with its scores or in its order alone.
OWN = "retrieval"


class Calibration(Learned, frozen=True):
    """How a cross-encoder's score and the retrievers' are weighed.

    weights: by retriever: those named in the passages' "scores" (see gainrag.retrievers.hybrid), or OWN.
    pseudo: added to the score of the pseudo-passage.
    """

    FILE: ClassVar[str] = "calibration.json"

    scale: float
    weights: dict[str, float]
    pseudo: float = 0.0

    def apply(self, passages: Sequence[Passage], scores: FloatArray) -> FloatArray:
        """The combined scores [passage], of the selector's own ones [passage]."""
        combined = self.scale * scores + self.pseudo * _generated(passages)
        for name, weight in self.weights.items():
            combined = combined + weight * standardised(passages, name)
        return combined


def retrievers_of(lists: Sequence[Sequence[Passage]]) -> list[str]:
    """The retrievers that scored the passages of some lists: those whose fusion they are, else OWN."""
    return sorted({name for passages in lists for passage in passages for name in _scores(passage)}) or [OWN]


def standardised(passages: Sequence[Passage], name: str = OWN) -> FloatArray:
    """What a retriever thinks of each passage beside the question's others, in standard deviations; 0 of the
    pseudo-passage.

    A passage that the retriever did not return has the lowest score of those it did. Where none has a score of
    this retriever, OWN is their own score, or else minus the logarithm of their place.
    """
    retrieved = [i for i, passage in enumerate(passages) if passage.origin != "generated"]
    given = [_scores(passages[i]).get(name) if name != OWN else _own_score(passages[i]) for i in retrieved]
    known = [float(score) for score in given if score is not None]
    if known:
        values = np.array([min(known) if score is None else float(score) for score in given])
    else:
        values = -np.log1p(np.arange(len(retrieved))) if name == OWN else np.zeros(len(retrieved))
    found = np.zeros(len(passages))
    found[retrieved] = standardise(values)
    return found


def fit(
    lists: Sequence[Sequence[Passage]], scores: Sequence[FloatArray], teachers: Sequence[FloatArray]
) -> tuple[Calibration, float, float]:
    """The weights of least cross-entropy, that cross-entropy, and the one of the cross-encoder alone (nats).

    Args:
        lists, scores, teachers: of held-out questions: passages, cross-encoder scores, target distributions.
    """
    names = retrievers_of(lists)
    columns = [
        np.stack([mine, *(standardised(passages, name) for name in names), _generated(passages)], axis=1)
        for passages, mine in zip(lists, scores, strict=True)
    ]
    (scale, *weights, pseudo), loss = least_cross_entropy(columns, teachers, free=1)
    _, alone = least_cross_entropy([x[:, :1] for x in columns], teachers, free=0)
    return Calibration(scale, dict(zip(names, weights, strict=True)), pseudo), loss, alone


def _scores(passage: Passage) -> dict[str, float]:
    """What each of several retrievers scored a passage with, see gainrag.retrievers.hybrid."""
    return (passage.scores or {}) if isinstance(passage, Scored) else {}


def _own_score(passage: Passage) -> float | None:
    """What the passage was retrieved with."""
    return passage.score if isinstance(passage, Scored) else None


def _generated(passages: Sequence[Passage]) -> FloatArray:
    """1 for the pseudo-passage, 0 for others."""
    return np.array([float(p.origin == "generated") for p in passages])
