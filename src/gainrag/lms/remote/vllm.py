"""vLLM's server: the most likely tokens at each token of a given text, by `prompt_logprobs` of /v1/completions.

It answers for every token of the prompt, too, which is left out here. Such a request skips vLLM's prefix cache. More
than 20 alternatives must be allowed when the server is started, by --max-logprobs.
"""

from __future__ import annotations

from typing import Any

from gainrag.lms.remote.calls import BadAnswer, Call, Caller
from gainrag.lms.remote.facts import Facts
from gainrag.lms.remote.positions import Listing, Pair, packed
from gainrag.lms.remote.tokens import ServerTokens

# What the server allows when it is started without a number of its own.
TOP = 20


class Vllm(Listing):
    """vLLM behind HTTP. Its alternatives are TOP unless others are asked for."""

    name = "vLLM"

    def __init__(self, caller: Caller, facts: Facts, *, top: int | None = None, floor: float = 0.0) -> None:
        tokens = ServerTokens(caller, text="prompt")
        super().__init__(
            caller, tokens, top=TOP if top is None else top, floor=floor, vocabulary=facts.vocabulary
        )

    def call(self, pair: Pair, top: int) -> Call:
        """The request for what is known of each token of a pair's answer."""
        return Call(
            "completions",
            {
                "model": self._caller.address.name,
                "prompt": [*pair.prompt_ids, *pair.answer_ids],
                "max_tokens": 1,  # it wants to write one
                "temperature": 0.0,
                "prompt_logprobs": top,
            },
            reader=f"vllm 1: the last {len(pair.answer_ids)}",
            tokens=len(pair.prompt_ids) + len(pair.answer_ids) + 1,
        )

    def read(self, value: Any, pair: Pair, top: int) -> list[Any]:
        """The answer's tokens in `prompt_logprobs`: for each token of the prompt null or {id: {logprob, rank, ..}},
        with the token itself beside the most likely ones.

        Raises:
            BadAnswer: they are not there.
        """
        try:
            rows = value["choices"][0]["prompt_logprobs"]
            wanted = len(pair.prompt_ids) + len(pair.answer_ids)
            if not isinstance(rows, list) or len(rows) != wanted:
                found = len(rows) if isinstance(rows, list) else "no"
                raise BadAnswer(f"{found} log-probabilities for {wanted} tokens")
            told = []
            for token, row in zip(pair.answer_ids, rows[-len(pair.answer_ids) :], strict=True):
                own = {int(i): (entry["logprob"], entry["rank"]) for i, entry in row.items()}
                listed = [(i, log) for i, (log, rank) in own.items() if rank <= top]
                if token not in own or len(listed) < top:
                    raise BadAnswer(f"{len(listed)} of {top} alternatives at token {token}")
                told.append(packed((token, own[token][0]), listed))
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise BadAnswer(f"no prompt_logprobs as vLLM has them ({type(error).__name__}: {error})") from None
        return told
