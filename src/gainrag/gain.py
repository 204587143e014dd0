"""From contrastive losses to gains and labels: pure mathematics on arrays, no models, no files.

For a question q, a passage p and a gold answer a of T tokens, z are the logits of the language model:

    z_cd[t]    = (1 + alpha) * z( . | prompt with q and p, a[<t]) - alpha * z( . | prompt with q alone, a[<t])
    loss(a, p) = -(1/T) * sum over t of log_softmax(z_cd[t])[a[t]]      the contrastive loss, in nats per token
    PPL_cd(p)  = min over the gold answers a of exp(loss(a, p))
    gain(p)    = -log(PPL_cd(p) + 1)

Of a question with choices c, the right one r among them, there is the normalised gain, too:

    choice_gain(p) = log( exp(-loss(r, p) / T) / sum over c of exp(-loss(c, p) / T) )      at a temperature T

Of a language model that tells no probabilities n answers are drawn, c of them right:

    utility(p) = (c + 1/2) / (n + 1)       the mean of Jeffreys' posterior for the chance of a right answer
    gain(p)    = log utility(p)            nats; a softmax of it is in proportion to that chance, as of losses' gains

Of a model that tells only the most likely tokens there are bounds of the loss: see `token_loss_bounds`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# What a selector is taught of choices. Losses are means over an answer's tokens, and so nearer to one another than the
# answers' own log-probabilities are.
CHOICE_TEMPERATURE = 0.25

FloatArray = npt.NDArray[np.float64]


def best_loss(losses: npt.ArrayLike) -> FloatArray:
    """The least loss over the answers: [passage, answer, alpha] -> [passage, alpha], nats per token.

    >>> best_loss([[[2.0], [0.5]], [[1.0], [3.0]]]).tolist()
    [[0.5], [1.0]]
    """
    return np.asarray(np.asarray(losses, dtype=np.float64).min(axis=1), dtype=np.float64)


def gain_from_loss(loss: npt.ArrayLike) -> FloatArray:
    """gain = -log(exp(loss) + 1) = -softplus(loss), in log space, so that no large loss overflows.

    >>> gain_from_loss([0.0, 1000.0]).round(4).tolist()
    [-0.6931, -1000.0]
    """
    return -np.logaddexp(0.0, np.asarray(loss, dtype=np.float64))


def choice_gain(losses: npt.ArrayLike, right: int, temperature: float = 1.0) -> FloatArray:
    """log softmax(-loss / temperature) over the choices at the right one: [.., choice] -> [..], nats; 0 is the best.

    >>> choice_gain([[2.0, 2.0], [3.0, 1.0]], right=0).round(4).tolist()
    [-0.6931, -2.1269]
    """
    scaled = -np.asarray(losses, dtype=np.float64) / temperature
    return np.asarray(scaled[..., right] - np.logaddexp.reduce(scaled, axis=-1), dtype=np.float64)


def gain_from_answers(right: float, n: int) -> float:
    """log((right + 1/2) / (n + 1)), the gain of a passage by `right` of n answers: finite where none is right, too.

    >>> round(gain_from_answers(0, 1), 4), round(gain_from_answers(3, 5), 4)
    (-1.3863, -0.539)
    """
    return float(np.log((right + 0.5) / (n + 1)))


def silver_index(gains: npt.ArrayLike) -> int:
    """The index of the highest of the gains [passage]; the first of equals, so that retrieval order breaks ties."""
    return int(np.argmax(np.asarray(gains, dtype=np.float64)))


def teacher(gains: npt.ArrayLike, temperature: float = 1.0) -> FloatArray:
    """The target distribution softmax(gain / temperature) over a group of passages.

    >>> teacher([-1.0, -1.0]).tolist()
    [0.5, 0.5]
    """
    scaled = np.asarray(gains, dtype=np.float64) / temperature
    weights = np.exp(scaled - scaled.max())
    return np.asarray(weights / weights.sum(), dtype=np.float64)


def entropy(distribution: npt.ArrayLike) -> float:
    """Shannon entropy in nats of shares [passage] that sum to 1; 0 log 0 counts as 0."""
    p = np.asarray(distribution, dtype=np.float64)
    return float(-np.sum(p * np.log(np.where(p > 0, p, 1.0))))


# Less than any probability that a model tells, so that none is divided by nothing.
_TINY = 1e-300
# Engines compute in float32: what their log-probabilities leave of 1 is not known better than this.
_ROUNDING = 1e-6

# --- a part of the vocabulary --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Known:
    """What is known of the distribution of one token: log-probabilities of a part of the vocabulary.

    ids: [known], whole numbers, none twice; the gold token is one of them.
    logs: [known], nats, of these tokens.
    cutoff: nats; no other token has a higher one.
    """

    ids: npt.NDArray[np.int64]
    logs: FloatArray
    cutoff: float

    def at(self, token: int) -> float:
        """The log-probability of a token that is known."""
        return float(self.logs[np.flatnonzero(self.ids == token)[0]])


def token_loss_bounds(
    gold: int, with_passage: Known, without: Known, alpha: float, floor: float = 0.0, vocabulary: int | None = None
) -> tuple[float, float]:
    """The contrastive loss of one token, from below and above, where a part of the vocabulary is known.

        loss = log Z - (1 + alpha) log p(gold) + alpha log q(gold),   Z = sum over v of p(v)^(1 + alpha) q(v)^(-alpha)

    with p the distribution behind the prompt with the passage, and q the one behind the prompt without it. At alpha 0
    Z is 1: the gold token alone says all. Else the sum over tokens that are known on both sides is known, and the rest
    bounded:

    | token | lower | upper |
    |---|---|---|
    | known in p alone | q at most its cut-off | q at least `floor` |
    | known in q alone | p at most its cut-off | " |
    | known in neither | both | " |

    together with the masses that are left, m of p and n of q: f(x, y) = x^(1 + alpha) y^(-alpha) is jointly convex, and
    so the rest is at least f(m, n), which the cut-offs only raise (see `_least`). The lower bound is the estimate, too.

    Args:
        floor: q is taken as at least this probability, which is another label unless no token has less: the contrast
            of a token that the model never writes is bounded. 0 is the published label, which has no upper bound.
        vocabulary: how many tokens there are, or more than that; needed with a floor.

    Returns:
        Lower and upper bound in nats; the upper one is infinite without a floor, unless all is known.
    """
    if alpha == 0:
        exact = -with_passage.at(gold)
        return exact, exact
    own = -(1 + alpha) * with_passage.at(gold) + alpha * max(without.at(gold), _log(floor))
    low, high = _sum_bounds(with_passage, without, alpha, floor, vocabulary)
    return own + _log(low), own + _log(high)


def _sum_bounds(p: Known, q: Known, alpha: float, floor: float, vocabulary: int | None) -> tuple[float, float]:
    """Z of `token_loss_bounds` from below and above."""
    order = np.argsort(q.ids)
    at = order[np.minimum(np.searchsorted(q.ids, p.ids, sorter=order), len(q.ids) - 1)]
    both = q.ids[at] == p.ids
    log_y = np.maximum(q.logs, _log(floor))
    x, y = np.exp(p.logs), np.exp(log_y)
    x_only = x[~both]
    y_only = y[np.isin(q.ids, p.ids, assume_unique=True, invert=True)]
    # In logarithms: of a token that neither side ever writes, the product is nothing, and its factors 0 and infinite.
    known = float(np.sum(np.exp((1 + alpha) * p.logs[both] - alpha * log_y[at[both]])))
    m = max(0.0, 1.0 - float(x.sum()))
    n = max(0.0, 1.0 - float(np.exp(q.logs).sum()))
    if vocabulary is not None and len(p.ids) >= vocabulary and len(q.ids) >= vocabulary:
        return known, known
    # A floor adds to what is left of q: so much for each of its tokens.
    left = n + _ROUNDING + floor * max(0, (vocabulary or 0) - len(q.ids))
    most_x, most_y = float(np.exp(p.cutoff)), max(float(np.exp(q.cutoff)), floor, _TINY)
    least_m = max(0.0, m - _ROUNDING)
    all_x, all_y = float(x_only.sum()) + least_m, float(y_only.sum()) + left
    low = known + _least(x_only, y_only, all_x, all_y, most_x, most_y, alpha)
    if floor <= 0:
        return low, np.inf
    most_m = m + _ROUNDING
    return low, known + float(np.sum(x_only * (x_only / floor) ** alpha)) + most_m * (most_x / floor) ** alpha


def _least(
    x_only: FloatArray, y_only: FloatArray, m: float, n: float, most_x: float, most_y: float, alpha: float
) -> float:
    """The least sum of f(x, y) = x^(1 + alpha) y^(-alpha) over the tokens that are not known on both sides.

    By duality, for any ratio r: f(x, y) >= (1 + alpha) r^alpha x - alpha r^(1 + alpha) y, the tangent plane where
    x = r y. A token whose cut-off keeps it from this ratio counts at its cut-off. Every r gives a bound; that of the
    masses that are left gives the best.

    Args:
        x_only: p of the tokens that are known in p alone; y_only: q of those in q alone.
        m, n: the masses of p and q over all these tokens, the known ones among them.
        most_x, most_y: the cut-offs of p and q.
    """
    # The known ones of one side are part of its mass, and of the other side's unknown mass none is known.
    best, ratio = 0.0, m / n if n > 0 else 0.0
    for _ in range(32):
        if not 0 < ratio < np.inf:
            break
        bound_x, bound_y = x_only[x_only > ratio * most_y], y_only[ratio * y_only > most_x]
        rest_m = m - float(bound_x.sum()) - len(bound_y) * most_x
        rest_n = n - float(bound_y.sum()) - len(bound_x) * most_y
        value = float(np.sum(bound_x ** (1 + alpha))) * most_y**-alpha if len(bound_x) else 0.0
        value += float(np.sum(bound_y**-alpha)) * most_x ** (1 + alpha)
        value += (1 + alpha) * ratio**alpha * rest_m - alpha * ratio ** (1 + alpha) * rest_n
        best = max(best, value)
        following = rest_m / rest_n if rest_m > 0 and rest_n > 0 else 0.0
        if abs(following - ratio) <= 1e-12 * ratio:
            break
        ratio = following
    return best


def _log(value: float) -> float:
    return float(np.log(value)) if value > 0 else -np.inf
