"""How parts are called, and that what comes back is what was asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gainrag.errors import ConfigError, ModelError
from gainrag.protocols.offers import (
    BatchSelector,
    BoundedScorer,
    FloatArray,
    Generator,
    Hardware,
    Listwise,
    Named,
    Retriever,
    SamplingGenerator,
    Scorer,
    ScoringRequest,
    Selector,
    StoppingGenerator,
)
from gainrag.records import Passage, Scored

_CUSTOM = "see gainrag.protocols for what it must return"


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
