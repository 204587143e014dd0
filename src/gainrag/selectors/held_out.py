"""How well a selector in training does on questions it does not learn from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sentence_transformers.base.evaluation import BaseEvaluator

from gainrag.prompts import selector_text
from gainrag.records import GainRecord, Retrieved


class HeldOut(BaseEvaluator):  # type: ignore[misc]
    """Mean top-1 regret: by how much the label of the chosen passage falls short of the best one's (nats for gains)."""

    REGRET = "held-out regret"

    def __init__(self, held: Sequence[tuple[Retrieved | GainRecord, list[float]]]) -> None:
        super().__init__()
        self.held = held
        self.primary_metric = self.REGRET

    def __call__(
        self, model: Any, output_path: str | None = None, epoch: int = -1, steps: int = -1
    ) -> dict[str, float]:
        """The regret of a model as it is now."""
        pairs = [(record.question, selector_text(ctx)) for record, _ in self.held for ctx in record.ctxs]
        scores = model.predict(pairs, show_progress_bar=False)
        regrets, first = [], 0
        for record, targets in self.held:
            mine = scores[first : first + len(record.ctxs)]
            first += len(record.ctxs)
            regrets.append(max(targets) - targets[int(np.argmax(mine))])
        return {self.REGRET: float(np.mean(regrets))}
