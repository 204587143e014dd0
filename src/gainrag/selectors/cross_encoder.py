"""A cross-encoder as a Selector: reads question and passage together, gives one score."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gainrag.errors import ModelError
from gainrag.protocols import FloatArray
from gainrag.records import Passage
from gainrag.selectors.backends import Backend, choose_backend, open_model
from gainrag.selectors.calibration import Calibration
from gainrag.selectors.fetching import selector_folder
from gainrag.selectors.lazy import Laziness, threshold_in
from gainrag.selectors.learned import read_learned
from gainrag.selectors.scoring import score_pairs
from gainrag.settings import Batch, Device, Dtype, checked

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

# What is no further than this from the best may be the best. Measured: a score is off by a hundredth in bfloat16 and
# by a twentieth in int8, a tenth and almost one at the most; the true best was up to a third behind in int8.
ROUNDING = {"bfloat16": 0.1, "int8": 0.4}
# So many of those are scored again at the most; a reranker whose scores all lie between 0 and 1 has many.
CLOSE = 8


class CrossEncoderSelector:
    """A trained selector, or any cross-encoder reranker with one output.

    A selector trained with `retrieval_prior` also weighs the retrievers' scores, see gainrag.selectors.calibration;
    passages that come without those of the same retrievers have the cross-encoder's alone. One trained on gains knows
    when a retrieved passage is good enough to do without the pseudo-passage, see gainrag.selectors.lazy.

    Several threads may use it: it scores for one of them at a time, since its tokenizer keeps how long a pair may be.

    Args:
        path: a selector folder, a Hugging Face id or embedded:NAME.
        backend: torch, or onnx or openvino where `gainrag export` put such a model into the folder; auto is an
            exported model whose runtime is installed, else torch.
        dtype: of torch: float32, bfloat16, or auto (bfloat16 where the machine multiplies it natively). On a CPU
            passages that bfloat16, or an exported model's int8, cannot tell from the best are scored again in
            float32, by a copy loaded for that.
        device: auto, cpu, cuda, ...
        batch_tokens: tokens that go through the model at once, padding included; by the device when left out.

    Raises:
        ModelError: it cannot be loaded, its files lack weights or a tokenizer, it has more than one output, or the
            backend or exported model is not there.
        ConfigError: no such backend, dtype or device, or a dtype or device that an exported model cannot have.
    """

    @checked
    def __init__(
        self,
        path: str | Path,
        *,
        backend: Backend = "auto",
        dtype: Dtype = "auto",
        device: Device = "auto",
        batch_tokens: Batch | None = None,
    ) -> None:
        self.name, self.batch_tokens = str(path), batch_tokens
        self._lock = threading.RLock()
        folder = selector_folder(self.name)
        self.backend = choose_backend(folder, backend, dtype, device)
        self.model, self.dtype = open_model(self.name, folder, self.backend, dtype, device)
        self.calibration = read_learned(folder, Calibration)
        self.laziness = read_learned(folder, Laziness)
        if self.model.num_labels != 1:
            raise ModelError(
                f"the model has {self.model.num_labels} outputs, a selector has one",
                where=self.name,
                hint="train one with `gainrag train`, or name a reranker",
            )

    @property
    def settings(self) -> dict[str, str]:
        """What its scores depend on beside the folder's content."""
        return {"model": self.name, "backend": self.backend, "dtype": self.dtype}

    @property
    def threshold(self) -> float | None:
        """The score from which a retrieved passage makes the pseudo-passage needless: infinite where none does, None
        where it was not learned."""
        return threshold_in(self.laziness)

    @property
    def bounded(self) -> bool:
        """Whether its scores lie between 0 and 1: rerankers of others often end in a sigmoid."""
        import torch

        return self.calibration is None and isinstance(self.model.activation_fn, torch.nn.Sigmoid)

    @property
    def weighs(self) -> tuple[str, ...]:
        """The retrievers whose scores it weighs."""
        weights = self.calibration.weights if self.calibration else {}
        return tuple(name for name, weight in weights.items() if weight)

    @property
    def context(self) -> int:
        """How many tokens of a question and a passage it reads together; what is longer is cut."""
        special = int(self.model.tokenizer.num_special_tokens_to_add(pair=True))
        return int(self.model.max_seq_length or 1_000_000) - special

    def count_tokens(self, text: str) -> int:
        """How many tokens a question or a passage has."""
        with self._lock:
            return len(self._tokens(text)["input_ids"])

    def truncate(self, text: str, tokens: int) -> str:
        """The beginning of a text, of at most so many tokens."""
        with self._lock:
            ends = self._tokens(text, return_offsets_mapping=True)["offset_mapping"]
        return text[: ends[tokens - 1][1]] if len(ends) > tokens else text

    def _tokens(self, text: str, **more: bool) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.model.tokenizer(text, add_special_tokens=False, verbose=False, **more)
        return found

    def score(self, question: str, passages: Sequence[Passage]) -> FloatArray:
        """One score a passage; higher is better."""
        return self.score_many([(question, passages)])[0]

    def score_many(self, requests: Sequence[tuple[str, Sequence[Passage]]]) -> list[FloatArray]:
        """The scores of several questions' passages, computed in common batches sorted by length.

        Raises:
            ModelError: a score is not finite.
        """
        with self._lock:
            return self._score(requests)

    def own_scores(self, requests: Sequence[tuple[str, Sequence[Passage]]]) -> list[FloatArray]:
        """What the model itself says: not calibrated, and in its dtype where two passages are close, too.

        Raises:
            ModelError: a score is not finite.
        """
        with self._lock:
            found = score_pairs(self.model, requests, batch_tokens=self.batch_tokens)
        if not all(np.isfinite(scores).all() for scores in found):
            raise ModelError("the selector returned NaN or infinite scores", where=self.name, hint="train it again")
        return found

    def _score(self, requests: Sequence[tuple[str, Sequence[Passage]]]) -> list[FloatArray]:
        found = self.own_scores(requests)
        if self.dtype in ROUNDING and self.model.device.type == "cpu":
            self._settle(requests, found)
        return self._calibrated(requests, found)

    def _calibrated(
        self, requests: Sequence[tuple[str, Sequence[Passage]]], scores: Sequence[FloatArray]
    ) -> list[FloatArray]:
        if self.calibration is None:
            return list(scores)
        return [self.calibration.apply(passages, part) for (_, passages), part in zip(requests, scores, strict=True)]

    @cached_property
    def _exact(self) -> CrossEncoder:
        """The same model in float32, loaded when something is close for the first time."""
        return open_model(self.name, selector_folder(self.name), "torch", "float32", "cpu")[0]

    def _settle(self, requests: Sequence[tuple[str, Sequence[Passage]]], found: Sequence[FloatArray]) -> None:
        """Replace the scores of passages that may be the best of their question by exact ones."""
        margin = ROUNDING[self.dtype] * (1.0 if self.calibration is None else self.calibration.scale)
        close: dict[int, list[int]] = {}  # by question, where the passages are; none where the best stands alone
        for n, scores in enumerate(self._calibrated(requests, found)):
            first = np.argsort(-scores, kind="stable")[:CLOSE]
            near = first[scores[first] >= scores.max(initial=-np.inf) - margin].tolist()
            if len(near) > 1:
                close[n] = near
        if not close:
            return
        again = [(requests[n][0], [requests[n][1][i] for i in near]) for n, near in close.items()]
        settled = score_pairs(self._exact, again, batch_tokens=self.batch_tokens)
        for (n, near), scores in zip(close.items(), settled, strict=True):
            found[n][near] = scores
