"""Any server whose /v1/completions repeats the prompt with its log-probabilities: `echo` of the first OpenAI API.

Its alternatives are named by their texts, which several tokens may share, so the answer's own log-probabilities alone
are used: losses are exact at alpha 0. Token ids are sent where a tokenizer is at hand; without one, texts are, and then
the answer's tokens are those at the end of the text that together are the answer. Where no token ends where the prompt
does, the engine is refused: it would score another answer behind another prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gainrag.lms.remote.calls import BadAnswer, Call, Caller
from gainrag.lms.remote.positions import Listing, Pair, packed
from gainrag.lms.remote.tokens import Tokens


class Echo(Listing):
    """An OpenAI-compatible completions endpoint that echoes.

    Args:
        tokens: the model's tokenizer; without one, texts are sent.
    """

    name = "an echo endpoint"

    def __init__(self, caller: Caller, tokens: Tokens | None = None) -> None:
        super().__init__(caller, tokens, top=0)

    def call(self, pair: Pair, top: int) -> Call:
        """The request for what is known of each token of a pair's answer."""
        return Call(
            "completions",
            {
                "model": self._caller.address.name,
                "prompt": [*pair.prompt_ids, *pair.answer_ids] or pair.prompt + pair.answer,
                "max_tokens": 1,  # some refuse 0
                "temperature": 0.0,
                "echo": True,
                "logprobs": 1,
            },
            reader=f"echo 1: {pair.answer}" if not pair.answer_ids else f"echo 1: the last {len(pair.answer_ids)}",
            tokens=(len(pair.prompt_ids) or len(pair.prompt) // 4) + len(pair.answer_ids) + 1,
        )

    def read(self, value: Any, pair: Pair, top: int) -> list[Any]:
        """The answer's tokens in `logprobs`: tokens and token_logprobs of the prompt and of the one token behind it.

        Raises:
            BadAnswer: they are not there.
        """
        try:
            found = value["choices"][0]["logprobs"]
            texts, logs = found["tokens"], found["token_logprobs"]
            if len(texts) != len(logs):
                raise BadAnswer(f"{len(logs)} log-probabilities for {len(texts)} tokens")
            if not isinstance(value["choices"][0]["text"], str):
                raise BadAnswer("no text")
            written = value["usage"]["completion_tokens"]
        except (KeyError, IndexError, TypeError) as error:
            raise BadAnswer(f"no logprobs as echo has them ({type(error).__name__}: {error})") from None
        texts, logs = texts[: len(texts) - written], logs[: len(logs) - written]
        if len(texts) < 2:
            raise BadAnswer("no log-probabilities of the prompt: it ignores echo")
        if pair.answer_ids:
            wanted = len(pair.prompt_ids) + len(pair.answer_ids)
            if len(logs) != wanted:
                raise BadAnswer(f"{len(logs)} log-probabilities for {wanted} tokens of the prompt")
            return [packed((i, log), []) for i, log in zip(pair.answer_ids, logs[-len(pair.answer_ids) :], strict=True)]
        return [packed((i, log), []) for i, log in enumerate(logs[-answer_tokens(texts, pair.answer) :])]


def answer_tokens(texts: Sequence[str], answer: str) -> int:
    """How many tokens at the end of a text are the answer.

    >>> answer_tokens(["The", " capital", ":", " Par", "is"], " Paris")
    2

    Raises:
        BadAnswer: no token ends where the prompt does.
    """
    found, count = "", 0
    for text in reversed(texts):
        if len(found) >= len(answer):
            break
        found, count = text + found, count + 1
    if found != answer:
        raise BadAnswer(
            f"tokens that do not end where the prompt does ({found[:30]!r} for the answer {answer[:30]!r}): "
            "name the model's tokenizer"
        )
    return count
