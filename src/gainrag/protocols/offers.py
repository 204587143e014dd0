"""What a retriever, a language model and a selector must offer, and what they may offer beyond it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from gainrag.records import Passage, Scored

FloatArray = npt.NDArray[np.float64]
# What losses are: exact over the whole vocabulary, bounded from below and above, or of the gold answer alone.
Level = Literal["exact", "bounded", "gold"]


@dataclass(frozen=True)
class ScoringRequest:
    """One question to score: a prompt for each passage, the prompt without a passage, and every answer as it is scored.

    The answer owns its leading space: completion prompts end without one, and `answers` are " Paris" there, "Paris"
    after a chat template. `gainrag.prompts` takes care of it.
    """

    with_prompts: Sequence[str]
    without_prompt: str
    answers: Sequence[str]


# --- what a part must offer ----------------------------------------------------------------------------------------


@runtime_checkable
class Retriever(Protocol):
    """Finds passages for questions."""

    def search(self, questions: Sequence[str], k: int) -> list[list[Scored]]:
        """The k best passages of each question, best first; fewer only when the corpus is smaller."""
        ...


@runtime_checkable
class Scorer(Protocol):
    """A language model that says how likely an answer is."""

    level: Level  # what its losses are

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
class ScorerGenerator(Scorer, Generator, Protocol):
    """A model that is both, as synthesis needs it."""


@runtime_checkable
class Selector(Protocol):
    """Scores passages by how much they would help the language model."""

    def score(self, question: str, passages: Sequence[Passage]) -> FloatArray:
        """One score a passage; higher is better."""
        ...


# --- what a part may offer -----------------------------------------------------------------------------------------


@runtime_checkable
class StoppingGenerator(Generator, Protocol):
    """A Generator that can end a row at a string, which saves the tokens behind it."""

    def generate_until(self, prompts: Sequence[str], max_new_tokens: int, stop: str | None) -> list[str]:
        """Like `generate`; what follows the stop is not specified."""
        ...


@runtime_checkable
class SamplingGenerator(Generator, Protocol):
    """A Generator that can draw a continuation at random, too."""

    def sample(
        self, prompts: Sequence[str], max_new_tokens: int, stop: str | None, *, temperature: float, seeds: Sequence[int]
    ) -> list[str]:
        """One continuation of each prompt, drawn at a temperature above 0; what follows `stop` is not specified.

        The same prompt and seed give the same text, whatever is in the batch, as far as the engine can. A seed is from
        0 to 2**31 - 1, which every engine takes.
        """
        ...


@runtime_checkable
class Windowed(Protocol):
    """A model whose context has an end; a selector's holds question and passage together."""

    context: int  # tokens

    def count_tokens(self, text: str) -> int:
        """How many tokens a text has as a prompt."""
        ...

    def truncate(self, text: str, tokens: int) -> str:
        """The beginning of a text, of at most so many tokens."""
        ...


@runtime_checkable
class Chat(Protocol):
    """A language model with a chat template of its own."""

    def render_chat(self, message: str) -> str:
        """One user message inside the template, up to where the answer begins."""
        ...


@runtime_checkable
class ChatFirst(Protocol):
    """A language model that may want the chat form unless one asks for the other."""

    chat_first: bool


@runtime_checkable
class Metered(Protocol):
    """A language model whose every prompt costs something."""

    def announce(
        self,
        what: str,
        prompts: Sequence[str],
        max_new_tokens: int,
        stop: str | None = None,
        *,
        temperature: float = 0.0,
        seeds: Sequence[int] | None = None,
    ) -> None:
        """Say what these prompts will cost, before the first is asked; ConfigError where that is too much. With seeds,
        one a prompt, they are drawn."""
        ...


@runtime_checkable
class Hardware(Protocol):
    """A language model that says what it runs on."""

    kind: str  # cpu, cuda for any GPU, or remote

    def rate(self) -> str:
        """How fast scoring went so far, in a few words for a progress line."""
        ...


@runtime_checkable
class BoundedScorer(Scorer, Protocol):
    """A Scorer that may know its losses only within bounds: where its level is `bounded`."""

    def loss_bounds(self, requests: Sequence[ScoringRequest], alphas: Sequence[float]) -> list[FloatArray]:
        """Bounds of the losses of each request as an array [passage, answer, alpha, 2] (low, high), in nats per token;
        an upper one may be infinite, and the lower one is the estimate that `losses` gives."""
        ...


@runtime_checkable
class MeteredScorer(Scorer, Protocol):
    """A Scorer whose every request costs something."""

    def announce_losses(self, what: str, requests: Iterable[ScoringRequest], alphas: Sequence[float]) -> None:
        """Say what these losses will cost, before the first is asked for; ConfigError where that is too much."""
        ...


@runtime_checkable
class BatchSelector(Selector, Protocol):
    """A Selector that is faster with several questions at a time."""

    def score_many(self, requests: Sequence[tuple[str, Sequence[Passage]]]) -> list[FloatArray]:
        """The scores of each question's passages."""
        ...


@runtime_checkable
class Lazy(Protocol):
    """A selector that may know when the pseudo-passage is needless."""

    @property
    def threshold(self) -> float | None:
        """The score from which it is, infinite where it never is; None where that was not learned."""
        ...


@runtime_checkable
class Listwise(Protocol):
    """A selector whose score of a passage depends on the other candidates: with the pseudo-passage among them all are
    scored again."""

    listwise: bool


@runtime_checkable
class Bounded(Protocol):
    """A selector that says whether its scores lie between 0 and 1 of themselves, as many rerankers' do."""

    @property
    def bounded(self) -> bool:
        """Whether they do."""
        ...


@runtime_checkable
class Weighing(Protocol):
    """A selector that was trained with retrievers' scores, and weighs them."""

    @property
    def weighs(self) -> tuple[str, ...]:
        """The retrievers' names, see `Scored.scores`; empty where it weighs none."""
        ...


@runtime_checkable
class Named(Protocol):
    """A part that was opened by a name, which messages call it by."""

    name: str
