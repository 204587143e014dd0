"""A model behind HTTP whose engine tells log-probabilities: a Generator that is a Scorer, too.

| engine | level | how |
|---|---|---|
| llama.cpp | exact | the whole vocabulary, a token of the answer at a time |
| vLLM, SGLang | bounded | the most likely tokens at each of the answer's; exact at alpha 0 |
| any with `echo` | gold | the answer's own tokens: alpha 0 alone, which is exact |

Before its first use an engine is probed: one that ignores what it is asked is refused.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from gainrag.errors import ConfigError, GainragError, ModelError
from gainrag.files.progress import say
from gainrag.lms.remote.calls import Caller, Limits
from gainrag.lms.remote.echo import Echo
from gainrag.lms.remote.facts import Engine, Facts
from gainrag.lms.remote.generation import BYTES_PER_TOKEN, RemoteLM
from gainrag.lms.remote.llama_cpp import LlamaCpp
from gainrag.lms.remote.positions import prompt_ids
from gainrag.lms.remote.sglang import Sglang
from gainrag.lms.remote.tokens import FolderTokens, Tokens
from gainrag.lms.remote.vllm import Vllm
from gainrag.protocols import FloatArray, Level, ScoringRequest

# Tokens of the context that are kept free for what a chat template writes around a message.
TEMPLATE = 64
# Of an engine that does not say how long its context is: it will refuse what is too long.
UNBOUNDED = 2**31
# A model that reads its prompt finds the first answer likely, and the second one not.
PROBE = ScoringRequest(
    with_prompts=["one, two, three, four, five, six,"],
    without_prompt="Some words: apple, pear,",
    answers=[" seven,", " purple"],
)
# How much more likely it is, in nats per token, at the least.
CLEARLY = 1.0


class ScoringEngine(Protocol):
    """What an engine's adapter offers."""

    name: str
    level: Level

    @property
    def tokens(self) -> Tokens | None:
        """Texts as token ids; None where it is sent texts."""
        ...

    def loss_bounds(
        self, requests: Sequence[ScoringRequest], alphas: Sequence[float], *, keep: bool = True
    ) -> list[FloatArray]:
        """Bounds of the losses [passage, answer, alpha, 2] (low, high) of each request, nats per token."""
        ...


@dataclass(frozen=True)
class Scoring:
    """How an engine is asked for log-probabilities.

    engine: which it is; found out when left out.
    tokenizer: a model on this machine whose tokenizer is the engine's; the engine's own endpoint when left out.
    top: alternatives to ask for at each token; the engine's usual number when left out.
    floor: see `gainrag.gain.token_loss_bounds`.
    """

    engine: Engine | None = None
    tokenizer: str | None = None
    top: int | None = None
    floor: float = 0.0


def adapter(facts: Facts, scoring: Scoring | None = None) -> Callable[[Caller], ScoringEngine]:
    """What makes the adapter of an engine.

    Raises:
        ConfigError: the engine has no such setting, or it does not score.
        ModelError: the tokenizer cannot be loaded.
    """
    scoring = scoring or Scoring()
    top, floor = scoring.top, scoring.floor
    if facts.engine not in ("vllm", "sglang") and (top is not None or floor):
        name = "top_logprobs" if top is not None else "floor"
        what = f"{name} is of engines that tell a part of the vocabulary, and this is {facts.engine}"
        raise ConfigError(what, where=f"llm {name}", hint="leave it out")
    if floor and top == 0:
        raise ConfigError("floor is of bounds, and top_logprobs is 0", where="llm floor", hint="leave it out")
    own = FolderTokens(scoring.tokenizer) if scoring.tokenizer else None

    def make(caller: Caller) -> ScoringEngine:
        engine: LlamaCpp | Vllm | Sglang | Echo
        if facts.engine == "llama.cpp":
            engine = LlamaCpp(caller, facts)
        elif facts.engine == "vllm":
            engine = Vllm(caller, facts, top=top, floor=floor)
        elif facts.engine == "sglang":
            engine = Sglang(caller, facts, top=top, floor=floor)
        elif facts.engine == "echo":
            engine = Echo(caller)
        else:
            hint = "set engine = echo if its completions echo a prompt's log-probabilities, or use --labels sampled"
            raise ConfigError("its engine tells no log-probabilities", where=str(caller.address), hint=hint)
        if own is not None:
            engine.tokens = own
        return engine

    return make


class RemoteScorer(RemoteLM):
    """A language model behind HTTP that scores.

    Args:
        facts: what the engine says of itself.
        make: makes its adapter, see `adapter`.
        others: as of RemoteLM.
    """

    def __init__(
        self, caller: Caller, facts: Facts, make: Callable[[Caller], ScoringEngine], **others: Any
    ) -> None:
        super().__init__(caller.address, caller, context=facts.context, **others)
        self.facts, self.engine, self._make = facts, make(caller), make
        self.level: Level = self.engine.level
        self.context = (facts.context or UNBOUNDED) - TEMPLATE
        self._probing = threading.Lock()
        self._probed = False

    def described(self) -> str:
        """A line that says what this is."""
        return f"{super().described()}; {self.engine.name}: losses are {self.level}"

    # --- as a Scorer --------------------------------------------------------------------------------------------------

    def losses(self, requests: Sequence[ScoringRequest], alphas: Sequence[float]) -> list[FloatArray]:
        """The contrastive loss of each request [passage, answer, alpha], see gainrag.gain, in nats per token; where it
        is bounded, its lower bound.

        Raises:
            ModelError: the engine ignores what it is asked, or returns something else.
            ConfigError: an alpha of which it tells nothing.
            DataError: an answer without tokens, no answers, or no passages.
        """
        return [found[..., 0] for found in self.loss_bounds(requests, alphas)]

    def loss_bounds(self, requests: Sequence[ScoringRequest], alphas: Sequence[float]) -> list[FloatArray]:
        """The same with an upper bound beside it: [passage, answer, alpha, 2]."""
        self.probe()
        return self.engine.loss_bounds(requests, alphas)

    def announce_losses(self, what: str, requests: Iterable[ScoringRequest], alphas: Sequence[float]) -> None:
        """Say what these losses will cost, before the first is asked for.

        Raises:
            ConfigError: it is more than the budget allows.
        """
        asked = read = 0
        for request in requests:
            prompts = request.with_prompts if not any(alphas) else [*request.with_prompts, request.without_prompt]
            longest = [len(answer.encode()) // BYTES_PER_TOKEN + 1 for answer in request.answers]
            # llama.cpp is asked for each of an answer's tokens, and reads the prompt for the first alone.
            stepping = self.facts.engine == "llama.cpp"
            tokens = sum(len(prompt.encode()) // BYTES_PER_TOKEN for prompt in prompts)
            asked += len(prompts) * (sum(longest) if stepping else len(longest))
            read += tokens * (1 if stepping else len(longest)) + len(prompts) * sum(longest)
        cost = self.prices.cost(read, 0.0 if self.facts.engine == "llama.cpp" else asked)
        line = f"{what}: about {asked:,} requests to {self.address}, and {read:,} tokens to read"
        say(line + (f", about {cost:.2f} by the given prices" if cost is not None else ""))
        limits, spent = self.caller.limits, self.caller.spent
        for name, limit, used, wanted in (
            ("max_requests", limits.max_requests, spent.sent, asked),
            ("max_total_tokens", limits.max_total_tokens, spent.tokens, read),
        ):
            if limit is not None and used + wanted > limit:
                what_is_wrong = f"{what} want about {wanted:,}, and {name} is {limit:,}"
                hint = "raise it, or label fewer questions; nothing was asked"
                raise ConfigError(what_is_wrong, where=str(self.address), hint=hint)

    def probe(self) -> None:
        """Find out whether the engine does what it is asked, once.

        Raises:
            ModelError: it does not.
        """
        with self._probing:
            if self._probed:
                return
            limits = Limits(concurrency=2, timeout=self.caller.limits.timeout, retries=1)
            caller = Caller(self.address, limits, key=self.caller.key)
            try:
                probe(self._make(caller), str(self.address))
            finally:
                caller.close()
            self._probed = True

    # --- a context that has an end ------------------------------------------------------------------------------------

    def count_tokens(self, text: str) -> int:
        """How many tokens a text has as a prompt; where the engine tokenizes nothing, its bytes, which are no fewer."""
        if self.engine.tokens is None:
            return len(text.encode())
        return len(prompt_ids(self.engine.tokens, [text])[text])

    def truncate(self, text: str, tokens: int) -> str:
        """The beginning of a text, of at most so many tokens."""
        if self.engine.tokens is None:
            return text.encode()[: max(0, tokens)].decode(errors="ignore")
        return self.engine.tokens.beginning(text, tokens)


def probe(engine: ScoringEngine, where: str) -> None:
    """Score two answers of which one is clearly the likelier.

    Raises:
        ModelError: the engine says otherwise, or not what it was asked; an EngineError where it answers nothing.
    """
    alphas = [0.0] if engine.level == "gold" else [0.0, 0.5]
    hint = "set engine to another one, or use --labels sampled, which takes answers alone"
    try:
        found = engine.loss_bounds([PROBE], alphas, keep=False)[0]
    except GainragError as error:
        raise ModelError(f"as {engine.name} it is of no use: {error.what}", where=where, hint=error.hint) from None
    likely, unlikely = found[0, :, 0, 0]
    if not np.isfinite(found[..., 0]).all() or not likely + CLEARLY < unlikely:
        raise ModelError(
            f"as {engine.name} it is of no use: behind {PROBE.with_prompts[0]!r} it finds {PROBE.answers[0]!r} "
            f"({likely:.2f} nats a token) no likelier than {PROBE.answers[1]!r} ({unlikely:.2f})",
            where=where,
            hint=hint,
        )
