"""Losses from engines that tell the most likely tokens at each token of a given text: bounded, or gold alone.

A prompt's ids and an answer's ids go out as one text, a request for each pair. What comes back for an answer's token is
a `Known`: its own log-probability, and those of the most likely tokens. `gainrag.gain.token_loss_bounds` does the rest.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np

from gainrag.errors import ConfigError, ModelError
from gainrag.gain import Known, token_loss_bounds
from gainrag.lms.checking import check_request
from gainrag.lms.remote.calls import BadAnswer, Call, Caller
from gainrag.lms.remote.generation import Message
from gainrag.lms.remote.tokens import Tokens
from gainrag.protocols import FloatArray, Level, ScoringRequest

S = TypeVar("S")
T = TypeVar("T")

# No vocabulary is larger; where an engine does not say how large its own is.
VOCABULARY = 2**19


@dataclass(frozen=True)
class Pair:
    """A prompt and an answer behind it, as texts and, where the engine takes them, as token ids."""

    prompt: str
    answer: str
    prompt_ids: list[int]
    answer_ids: list[int]


class Listing(ABC):
    """An engine that tells, for each token of a given answer, its log-probability and the most likely tokens.

    Args:
        tokens: texts as ids; None sends texts.
        top: how many alternatives it tells at each token; with none, losses are exact at alpha 0 alone.
        floor, vocabulary: see `gainrag.gain.token_loss_bounds`.
    """

    name: str

    def __init__(
        self, caller: Caller, tokens: Tokens | None, *, top: int, floor: float = 0.0, vocabulary: int | None = None
    ) -> None:
        self._caller, self.tokens = caller, tokens
        self.top, self.floor, self.vocabulary = top, floor, vocabulary
        self.level: Level = "bounded" if top else "gold"

    @abstractmethod
    def call(self, pair: Pair, top: int) -> Call:
        """The request for what is known of each token of a pair's answer.

        Args:
            top: how many alternatives to ask for.
        """

    @abstractmethod
    def read(self, value: Any, pair: Pair, top: int) -> list[Any]:
        """What an answer to `call` tells of each token of the pair's answer, `packed`.

        Raises:
            BadAnswer: it is not there.
        """

    def known(self, pairs: Sequence[Pair], top: int, *, keep: bool = True) -> list[list[Known]]:
        """For each pair, for each token of its answer, what is known of its distribution; the gold token comes first.

        Args:
            top: how many alternatives to ask for.
            keep: whether what the engine tells is kept.
        """
        calls = [replace(self.call(pair, top), keep=keep) for pair in pairs]
        every = ask_about(self._caller, calls, pairs, partial(self.read, top=top))
        return [[unpacked(token) for token in told] for told in every]

    def loss_bounds(
        self, requests: Sequence[ScoringRequest], alphas: Sequence[float], *, keep: bool = True
    ) -> list[FloatArray]:
        """The bounds of the losses of each request as an array [passage, answer, alpha, 2] (low, high), nats per token.

        Raises:
            ConfigError: an alpha above 0, of which this engine tells nothing.
            DataError: a request without passages or answers, or an answer without tokens.
        """
        contrast = [alpha for alpha in alphas if alpha != 0]
        if self.level == "gold" and contrast:
            raise ConfigError(
                f"alpha is {contrast[0]:g}, and {self.name} tells the answer's own log-probabilities alone",
                where="alpha",
                hint="use --alpha 0, which is exact there",
            )
        pairs = _pairs(requests, self.tokens)
        # The prompt without a passage is read once for all passages, and not at all at alpha 0.
        asked = [pair for rows in pairs for row in (rows if contrast else rows[1:]) for pair in row]
        different = list({(pair.prompt, pair.answer): pair for pair in asked}.values())
        told = self.known(different, self.top if contrast else 0, keep=keep)
        found = {(pair.prompt, pair.answer): known for pair, known in zip(different, told, strict=True)}

        def loss(pair: Pair, without: Pair, alpha: float) -> FloatArray:
            own = found[pair.prompt, pair.answer]
            other = found[without.prompt, without.answer] if contrast else own
            if len(own) != len(other):
                raise ModelError(
                    f"the answer {pair.answer!r} has {len(own)} tokens with a passage and {len(other)} without",
                    where=self.name,
                    hint="name the model's tokenizer",
                )
            size = self.vocabulary or VOCABULARY
            tokens = zip(own, other, strict=True)
            each = [token_loss_bounds(int(p.ids[0]), p, q, alpha, self.floor, size) for p, q in tokens]
            return np.asarray(np.mean(each, axis=0), dtype=np.float64)

        def losses(rows: Sequence[Sequence[Pair]]) -> FloatArray:
            both = [list(zip(row, rows[0], strict=True)) for row in rows[1:]]
            return np.array([[[loss(*two, alpha) for alpha in alphas] for two in row] for row in both])

        return [losses(rows) for rows in pairs]


def _pairs(requests: Sequence[ScoringRequest], tokens: Tokens | None) -> list[list[list[Pair]]]:
    """Of each request, of the prompt without a passage and then of each passage, a pair for each answer. Without a
    tokenizer they have no ids.

    Raises:
        DataError: a request without passages or answers, or an answer without tokens.
        ConfigError: a chat prompt, and no tokenizer.
    """
    for request in requests:
        check_request(request)
    if tokens is None and any(isinstance(prompt, Message) for r in requests for prompt in r.with_prompts):
        hint = "name the model's tokenizer, or use --prompt completion"
        raise ConfigError("a chat prompt cannot be scored without the model's template", where="llm", hint=hint)
    ids = _Ids(requests, tokens)
    return [
        [[ids.pair(prompt, answer) for answer in r.answers] for prompt in (r.without_prompt, *r.with_prompts)]
        for r in requests
    ]


class _Ids:
    """The ids of every different text of some requests, each tokenized once."""

    def __init__(self, requests: Sequence[ScoringRequest], tokens: Tokens | None) -> None:
        self._prompts: dict[str, list[int]] = {}
        self._answers: dict[str, list[int]] = {}
        if tokens is None:
            return
        self._prompts = prompt_ids(tokens, [p for r in requests for p in (r.without_prompt, *r.with_prompts)])
        answers = list(dict.fromkeys(answer for r in requests for answer in r.answers))
        self._answers = dict(zip(answers, tokens.answers(answers), strict=True))

    def pair(self, prompt: str, answer: str) -> Pair:
        return Pair(prompt, answer, self._prompts.get(prompt, []), self._answers.get(answer, []))


def prompt_ids(tokens: Tokens, prompts: Sequence[str]) -> dict[str, list[int]]:
    """The ids of every different prompt; of a chat message inside its template."""
    chats = list(dict.fromkeys(p for p in prompts if isinstance(p, Message)))
    plain = list(dict.fromkeys(p for p in prompts if not isinstance(p, Message)))
    found = dict(zip(chats, tokens.chats(chats), strict=True))
    return found | dict(zip(plain, tokens.prompts(plain), strict=True))


def ask_about(caller: Caller, calls: Sequence[Call], about: Sequence[S], read: Callable[[Any, S], T]) -> list[T]:
    """`Caller.ask` where an answer cannot be read without what it was asked for.

    Args:
        about: of each call.
        read: takes an answer and what it is about; see `Caller.each`.
    """
    subjects = {id(call): subject for call, subject in zip(calls, about, strict=True)}

    async def send(call: Call) -> Any:
        value = await caller.post(call)
        usage = value.get("usage") if isinstance(value, dict) else None
        return {"usage": usage, "told": read(value, subjects[id(call)])}

    return caller.ask(calls, lambda value: value["told"], send)


# --- what is kept on disk, and back --------------------------------------------------------------------------------


def packed(gold: tuple[int, float], top: Sequence[tuple[int, float]]) -> list[Any]:
    """What is known of a token as plain data: the gold token's id and log-probability, and the most likely ones.

    Raises:
        BadAnswer: a log-probability is none.
    """
    for _, log in (gold, *top):
        if type(log) not in (int, float) or not log <= 1e-3:  # NaN is not
            raise BadAnswer(f"the log-probability {log!r:.20}")
    return [gold[0], gold[1], [i for i, _ in top], [log for _, log in top]]


def unpacked(value: Sequence[Any]) -> Known:
    """What `packed` made of it; the gold token comes first."""
    gold, log, ids, logs = value
    others = [(i, x) for i, x in zip(ids, logs, strict=True) if i != gold]
    return Known(
        ids=np.array([gold, *(i for i, _ in others)], dtype=np.int64),
        logs=np.array([log, *(x for _, x in others)], dtype=np.float64),
        cutoff=min(logs) if logs else 0.0,
    )
