"""What a retriever, a language model and a selector must offer, what they may offer beyond it, and how they are called.

Batches first; nothing more than is used. What a part can do beyond its protocol is declared by a protocol of its own
(`StoppingGenerator`, `BatchSelector`, ...), and asked for with `isinstance`. Parts are called through the functions at
the end of this module, which check what comes back: a wrong number of scores must not shift labels without a word.

A hosted chat model is a Generator and no Scorer: scoring needs the whole vocabulary's logits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from gainrag.errors import ConfigError, ModelError
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


# --- how parts are called ------------------------------------------------------------------------------------------


def name_of(part: object) -> str:
    """What messages call a part: its own name, else that of its class."""
    return str(part.name) if isinstance(part, Named) else type(part).__name__


def need(part: object, protocol: type[Any], *, what: str, where: str, hint: str) -> None:
    """Stop where a part does not offer what it must.

    Raises:
        ConfigError: it does not.
    """
    if not isinstance(part, protocol):
        raise ConfigError(f"{what} is {part!r:.60}, not a {protocol.__name__}", where=where, hint=hint)


def chunk_for(lm: object, sizes: Mapping[str, int]) -> int:
    """How many questions a stage works on at a time, by what the language model runs on; the CPU's number for a model
    that does not say."""
    return sizes[lm.kind if isinstance(lm, Hardware) else "cpu"]


def is_listwise(selector: object) -> bool:
    """Whether a passage's score depends on the question's other candidates."""
    return isinstance(selector, Listwise) and selector.listwise


def search_with(retriever: Retriever, questions: Sequence[str], k: int) -> list[list[Scored]]:
    """The k best passages of each question.

    Raises:
        ModelError: not one list for each question.
    """
    found = retriever.search(questions, k)
    _check_number(retriever, found, len(questions), "lists of passages", "questions")
    return found


def continue_with(lm: Generator, prompts: Sequence[str], max_new_tokens: int, stop: str | None = None) -> list[str]:
    """The continuation of each prompt; where the model can, it ends at `stop`.

    Raises:
        ModelError: not one text for each prompt.
    """
    if stop is not None and isinstance(lm, StoppingGenerator):
        texts = lm.generate_until(prompts, max_new_tokens, stop)
    else:
        texts = lm.generate(prompts, max_new_tokens)
    return _texts(lm, texts, len(prompts))


def _texts(lm: Generator, texts: list[str], prompts: int) -> list[str]:
    """What a generator returned, one text for each of so many prompts."""
    _check_number(lm, texts, prompts, "texts", "prompts")
    for text in texts:
        if not isinstance(text, str):
            raise ModelError(f"the generator returned {text!r:.40}, not a text", where=name_of(lm), hint=_CUSTOM)
    return texts


def sample_with(
    lm: SamplingGenerator,
    prompts: Sequence[str],
    max_new_tokens: int,
    stop: str | None,
    *,
    temperature: float,
    seeds: Sequence[int],
) -> list[str]:
    """One continuation of each prompt, drawn at the temperature by its seed.

    Raises:
        ModelError: not one text for each prompt.
    """
    return _texts(lm, lm.sample(prompts, max_new_tokens, stop, temperature=temperature, seeds=seeds), len(prompts))


def losses_with(lm: Scorer, requests: Sequence[ScoringRequest], alphas: Sequence[float]) -> list[FloatArray]:
    """The losses of each request, [passage, answer, alpha], in nats per token.

    Raises:
        ModelError: a loss is not finite, or they are not of this shape.
    """
    found = lm.losses(requests, alphas)
    _check_number(lm, found, len(requests), "arrays of losses", "requests")
    return [
        _array(lm, losses, (len(r.with_prompts), len(r.answers), len(alphas)), "losses")
        for losses, r in zip(found, requests, strict=True)
    ]


def bounds_with(lm: Scorer, requests: Sequence[ScoringRequest], alphas: Sequence[float]) -> list[FloatArray]:
    """The bounds of the losses of each request, [passage, answer, alpha, 2] (low, high), in nats per token; both are
    the loss where the model knows it.

    Raises:
        ModelError: a lower bound is not finite or above the upper one, or they are not of this shape.
    """
    if lm.level != "bounded" or not isinstance(lm, BoundedScorer):
        return [np.stack([losses, losses], axis=-1) for losses in losses_with(lm, requests, alphas)]
    found = lm.loss_bounds(requests, alphas)
    _check_number(lm, found, len(requests), "arrays of bounds", "requests")
    checked = []
    for bounds, r in zip(found, requests, strict=True):
        shape = (len(r.with_prompts), len(r.answers), len(alphas))
        low, high = (np.asarray(bounds, dtype=np.float64)[..., i] for i in (0, 1))
        low = _array(lm, low, shape, "lower bounds")
        if high.shape != low.shape or not (low <= high).all():
            raise ModelError("its lower bounds are above its upper ones", where=name_of(lm), hint=_CUSTOM)
        checked.append(np.stack([low, high], axis=-1))
    return checked


def scores_with(selector: Selector, requests: Sequence[tuple[str, Sequence[Passage]]]) -> list[FloatArray]:
    """The scores of each question's passages, in one go where the selector can.

    Raises:
        ModelError: a score is not finite, or not one for each passage.
    """
    if isinstance(selector, BatchSelector):
        found = selector.score_many(requests)
    else:
        found = [selector.score(question, passages) for question, passages in requests]
    _check_number(selector, found, len(requests), "arrays of scores", "questions")
    return [
        _array(selector, scores, (len(passages),), "scores")
        for scores, (_, passages) in zip(found, requests, strict=True)
    ]


_CUSTOM = "see gainrag.protocols for what it must return"


def _check_number(part: object, found: object, wanted: int, things: str, of: str) -> None:
    if not isinstance(found, Sequence | np.ndarray) or isinstance(found, str | bytes):
        raise ModelError(f"it returned {found!r:.40}, not {things}", where=name_of(part), hint=_CUSTOM)
    if len(found) != wanted:
        raise ModelError(f"it returned {len(found)} {things} for {wanted} {of}", where=name_of(part), hint=_CUSTOM)


def _array(part: object, values: object, shape: tuple[int, ...], what: str) -> FloatArray:
    """Numbers as an array of this shape, all finite."""
    try:
        found = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise ModelError(f"its {what} are {values!r:.40}, not numbers", where=name_of(part), hint=_CUSTOM) from None
    if found.shape != shape:
        raise ModelError(
            f"its {what} have the shape {list(found.shape)}, not {list(shape)}", where=name_of(part), hint=_CUSTOM
        )
    if not np.isfinite(found).all():
        raise ModelError(f"its {what} are NaN or infinite", where=name_of(part), hint="use float32, or another model")
    return found
