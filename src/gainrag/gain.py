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
"""

from __future__ import annotations

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
    """Where the highest gain is; the first of equals, so that retrieval order breaks ties."""
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
    """Shannon entropy in nats; 0 log 0 counts as 0."""
    p = np.asarray(distribution, dtype=np.float64)
    return float(-np.sum(p * np.log(np.where(p > 0, p, 1.0))))
