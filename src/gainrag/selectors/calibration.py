"""What the retriever's order adds to a cross-encoder's score, learned on training questions.

A cross-encoder that learns from a few hundred questions knows less than a retriever that learned from millions of
pairs, and knows something else. Put together as the two parts of a log-odds:

    score(p) = scale * cross_encoder(p) + weight * log prior(p) + (p is the pseudo-passage) * pseudo

prior(p): the share of the teacher's mass that training questions put on the retrieval rank of p; the pseudo-passage,
which no retriever ranked, has a share of its own. Where several retrievers were fused, the rank is that of the fusion
or of the one retriever whose first passages were best on the training questions. `scale`, `weight` and `pseudo` are
those that minimise the cross-entropy of the teacher on questions the cross-encoder did not learn from; where the
retriever has nothing to add, weight comes out 0. `pseudo` sets right what the cross-encoder, which learned from few
pseudo-passages, takes their level to be.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from gainrag.protocols import FloatArray
from gainrag.records import Passage
from gainrag.selectors.learned import Learned


class Calibration(Learned, frozen=True):
    """How cross-encoder and retrieval rank are weighed.

    log_prior: by retrieval rank from the first; passages further down have the last one's.
    log_prior_generated: of the pseudo-passage.
    order: whose ranking: "" is the passages' own score, else one of the retrievers in their "scores".
    pseudo: added to the score of the pseudo-passage.
    """

    FILE: ClassVar[str] = "calibration.json"

    scale: float
    weight: float
    log_prior: list[float]
    log_prior_generated: float
    order: str = ""
    pseudo: float = 0.0

    def apply(self, passages: Sequence[Passage], scores: FloatArray) -> FloatArray:
        """The combined score of each passage."""
        return self.scale * scores + self.weight * self.prior(passages) + self.pseudo * _generated(passages)

    def prior(self, passages: Sequence[Passage]) -> FloatArray:
        """log prior of each passage."""
        return np.array(
            [
                self.log_prior_generated if rank is None else self.log_prior[min(rank, len(self.log_prior) - 1)]
                for rank in ranks(passages, self.order)
            ],
            dtype=np.float64,
        )


def ranks(passages: Sequence[Passage], order: str = "") -> list[int | None]:
    """Retrieval rank of each passage from 0, by its score and not by where it stands; None for the pseudo-passage.
    Passages without scores rank in their order, behind those with one."""
    retrieved = [i for i, passage in enumerate(passages) if passage.origin != "generated"]
    best_first = sorted(retrieved, key=lambda i: -_score(passages[i], order))
    found: list[int | None] = [None] * len(passages)
    for rank, i in enumerate(best_first):
        found[i] = rank
    return found


def _score(passage: Passage, order: str) -> float:
    score = _scores(passage).get(order) if order else getattr(passage, "score", None)
    return float("-inf") if score is None else float(score)


def _scores(passage: Passage) -> dict[str, float]:
    """What each of several retrievers scored a passage with, see gainrag.retrievers.hybrid; foreign keys may differ."""
    found = passage.extra.get("scores")
    return {k: v for k, v in found.items() if isinstance(v, int | float)} if isinstance(found, dict) else {}


def choose_order(lists: Sequence[Sequence[Passage]], targets: Sequence[Sequence[float]]) -> str:
    """The ranking whose first passages have the highest labels on average; the fusion's own of equals.

    Args:
        targets: the label of each passage, by list.
    """
    names = sorted({name for passages in lists for p in passages for name in _scores(p)})

    def mean_of_first(order: str) -> float:
        found = [(ranks(passages, order), t) for passages, t in zip(lists, targets, strict=True)]
        first = [t[order_of.index(0)] for order_of, t in found if 0 in order_of]
        return float(np.mean(first)) if first else 0.0

    return max(["", *names], key=mean_of_first)


def learn_prior(
    lists: Sequence[Sequence[Passage]], teachers: Sequence[FloatArray], order: str = ""
) -> tuple[list[float], float, str]:
    """Log of the teacher's mean mass by retrieval rank, and of the pseudo-passage; and the order it was asked for.

    A hundredth of a flat share is added, so that no rank is impossible.
    """
    longest = max(len(passages) for passages in lists)
    mass, seen = np.zeros(longest + 1), np.zeros(longest + 1)
    for passages, teacher in zip(lists, teachers, strict=True):
        for rank, share in zip(ranks(passages, order), teacher, strict=True):
            at = longest if rank is None else rank
            mass[at] += share
            seen[at] += 1
    flat = 0.01 / longest
    means = np.log(np.where(seen > 0, mass / np.maximum(seen, 1), 0) + flat)
    known = int(np.max(np.flatnonzero(seen[:longest]), initial=0)) + 1
    return [float(x) for x in means[:known]], float(means[longest]), order


def fit(
    lists: Sequence[Sequence[Passage]],
    scores: Sequence[FloatArray],
    teachers: Sequence[FloatArray],
    prior: tuple[list[float], float, str],
) -> tuple[Calibration, float, float]:
    """The weights of least cross-entropy, that cross-entropy, and the one of the cross-encoder alone (nats).

    Args:
        lists, scores, teachers: of held-out questions: passages, cross-encoder scores, target distributions.
        prior: what `learn_prior` learned on the others.
    """
    plain = Calibration(1.0, 1.0, *prior)
    columns = [
        np.stack([mine, plain.prior(passages), _generated(passages)], axis=1)
        for passages, mine in zip(lists, scores, strict=True)
    ]
    (scale, weight, pseudo), loss = _least_cross_entropy(columns, teachers)
    _, alone = _least_cross_entropy([x[:, :1] for x in columns], teachers)
    return Calibration(scale, weight, *prior, pseudo=pseudo), loss, alone


def _least_cross_entropy(
    columns: Sequence[FloatArray], teachers: Sequence[FloatArray]
) -> tuple[tuple[float, ...], float]:
    """The weights of the columns at which softmax(columns @ weights) is nearest to the teachers, and the mean
    cross-entropy there. It is convex in the weights. Those of scores and prior are not below 0: neither can be so
    wrong that its opposite is right, and on few questions it might look so.

    Args:
        columns: by question [passage, column].
    """
    from scipy.optimize import minimize

    def objective(weights: FloatArray) -> tuple[float, FloatArray]:
        total, slope = 0.0, np.zeros_like(weights)
        for x, teacher in zip(columns, teachers, strict=True):
            z = x @ weights
            log_share = z - np.logaddexp.reduce(z)
            total -= float(teacher @ log_share)
            slope -= x.T @ (teacher - np.exp(log_share))
        return total / len(columns), slope / len(columns)

    bounds = [(0.0, None), (0.0, None), (None, None)][: columns[0].shape[1]]
    found = minimize(objective, np.ones(len(bounds)), jac=True, bounds=bounds, method="L-BFGS-B")
    return tuple(round(float(x), 6) for x in found.x), float(found.fun)


def _generated(passages: Sequence[Passage]) -> FloatArray:
    """1 for the pseudo-passage, 0 for others."""
    return np.array([float(p.origin == "generated") for p in passages])
