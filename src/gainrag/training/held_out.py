"""How well a cross-encoder in training does on questions it does not learn from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sentence_transformers.base.evaluation import BaseEvaluator

from gainrag.protocols import FloatArray
from gainrag.records import GainRecord, Retrieved
from gainrag.selectors.scoring import score_pairs


class HeldOut(BaseEvaluator):  # type: ignore[misc]
    """Mean cross-entropy of teacher and student over whole candidate lists, in nats: the list-wise training loss,
    unseen. Point-wise labels are learned towards the same scores, see gainrag.training.labels."""

    METRIC = "held-out cross-entropy"

    def __init__(self, held: Sequence[tuple[Retrieved | GainRecord, FloatArray]], *, bf16: bool) -> None:
        super().__init__()
        self.held, self.bf16 = held, bf16
        self.primary_metric = self.METRIC

    def __call__(
        self, model: Any, output_path: str | None = None, epoch: int = -1, steps: int = -1
    ) -> dict[str, float]:
        """The cross-entropy of a model as it is now."""
        found = score_pairs(model, [(record.question, record.ctxs) for record, _ in self.held], bf16=self.bf16)
        losses = [
            -float(teacher @ (scores - np.logaddexp.reduce(scores)))
            for scores, (_, teacher) in zip(found, self.held, strict=True)
        ]
        return {self.METRIC: float(np.mean(losses))}
