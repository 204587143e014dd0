"""Tokens drawn at random, each row of a batch by random numbers of its own.

A library's sampling takes one stream of random numbers for the whole batch, so that what a row becomes depends on the
rows beside it. Here a row has a seed. Its n-th token is the one at which the cumulative probabilities, in the
vocabulary's order, pass the n-th number of the seed's stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

    from gainrag.protocols import FloatArray


def draws_of(seed: int, tokens: int) -> FloatArray:
    """The numbers from 0 to 1 by which a row with this seed draws its tokens; of fewer tokens they are the first of
    those of more."""
    return np.random.default_rng(seed).random(tokens)


class Drawn:
    """Leaves each row's drawn token alone possible, as the last of transformers' logits processors.

    Args:
        draws: of each row of the batch, its numbers.
        temperature: what logits are divided by.
    """

    def __init__(self, draws: Sequence[FloatArray], temperature: float) -> None:
        self.draws, self.temperature = np.stack(draws), temperature
        self.step = 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """The scores [row, vocabulary] of the next token, all but the drawn one minus infinity."""
        import torch

        # In float64: of many thousand small probabilities a float32 sum loses the last ones.
        passed = torch.softmax(scores.double() / self.temperature, dim=-1).cumsum(dim=-1)
        at = torch.tensor(self.draws[:, self.step : self.step + 1], device=scores.device) * passed[:, -1:]
        self.step += 1
        drawn = torch.searchsorted(passed, at, right=True).clamp(max=scores.shape[-1] - 1)
        return torch.full_like(scores, float("-inf")).scatter(-1, drawn, 0.0)
