"""A cross-encoder as a Selector: reads question and passage together, gives one score."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gainrag.errors import ModelError
from gainrag.lms.embedded import resolve
from gainrag.lms.loading import check_reachable, choose_device, loading_errors, quiet
from gainrag.prompts import selector_text
from gainrag.protocols import FloatArray
from gainrag.records import Passage
from gainrag.selectors.calibration import Calibration


class CrossEncoderSelector:
    """A trained selector, or any cross-encoder reranker with one output.

    A selector trained with `rank_prior` also weighs the retriever's order, see gainrag.selectors.calibration.

    Args:
        path: a selector folder, a Hugging Face id or embedded:NAME.

    Raises:
        ModelError: it cannot be loaded, or has more than one output.
    """

    def __init__(self, path: str | Path, *, device: str = "auto", batch_size: int = 32) -> None:
        from sentence_transformers import CrossEncoder

        self.name, self.batch_size = str(path), batch_size
        folder = resolve(self.name)
        with loading_errors(self.name), quiet():
            check_reachable(folder)
            self.model = CrossEncoder(
                folder,
                device=choose_device(device),
                trust_remote_code=False,
                model_kwargs={"use_safetensors": True},
            )
        self.calibration = Calibration.read(folder)
        if self.model.num_labels != 1:
            raise ModelError(
                f"the model has {self.model.num_labels} outputs, a selector has one",
                where=self.name,
                hint="train one with `gainrag train`, or name a reranker",
            )

    def score(self, question: str, passages: Sequence[Passage]) -> FloatArray:
        """One score a passage; higher is better."""
        return self.score_many([(question, passages)])[0]

    def score_many(self, requests: Sequence[tuple[str, Sequence[Passage]]]) -> list[FloatArray]:
        """The scores of several questions' passages, computed in common batches sorted by length.

        Raises:
            ModelError: a score is not finite.
        """
        pairs = [(question, selector_text(p)) for question, passages in requests for p in passages]
        scores = np.asarray(
            self.model.predict(pairs, batch_size=self.batch_size, show_progress_bar=False) if pairs else [],
            dtype=np.float64,
        )
        if not np.isfinite(scores).all():
            raise ModelError("the selector returned NaN or infinite scores", where=self.name, hint="train it again")
        ends = np.cumsum([len(passages) for _, passages in requests])
        parts = np.split(scores, ends[:-1])
        if self.calibration is None:
            return [np.asarray(part) for part in parts]
        return [self.calibration.apply(passages, part) for (_, passages), part in zip(requests, parts, strict=True)]
