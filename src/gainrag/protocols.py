"""What a retriever, a language model and a selector must offer. Batches first; nothing more than is used.

A hosted chat model is a Generator and no Scorer: scoring needs the whole vocabulary's logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from gainrag.records import Passage, Scored

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ScoringRequest:
    """One question to score: a prompt for each passage, the prompt without a passage, and every answer as it is scored.

    The answer owns its leading space: completion prompts end without one, and `answers` are " Paris" there, "Paris"
    after a chat template. `gainrag.prompts` takes care of it.
    """

    with_prompts: Sequence[str]
    without_prompt: str
    answers: Sequence[str]


@runtime_checkable
class Retriever(Protocol):
    """Finds passages for questions."""

    def search(self, questions: Sequence[str], k: int) -> list[list[Scored]]:
        """The k best passages of each question, best first; fewer only when the corpus is smaller."""
        ...


@runtime_checkable
class Scorer(Protocol):
    """A language model whose whole vocabulary's logits can be had."""

    def losses(self, requests: Sequence[ScoringRequest], alphas: Sequence[float]) -> list[FloatArray]:
        """Contrastive loss of each request as an array [passage, answer, alpha], in nats per token."""
        ...


@runtime_checkable
class Generator(Protocol):
    """A language model that continues prompts. Any API will do."""

    def generate(self, prompts: Sequence[str], max_new_tokens: int) -> list[str]:
        """The greedy continuation of each prompt, without the prompt."""
        ...


@runtime_checkable
class Selector(Protocol):
    """Scores passages by how much they would help the language model."""

    def score(self, question: str, passages: Sequence[Passage]) -> FloatArray:
        """One score a passage; higher is better."""
        ...
