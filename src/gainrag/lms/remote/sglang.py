"""SGLang's server: the most likely tokens at each token of a given text, by /generate.

`logprob_start_len` is the prompt's last token: the prefix cache serves what lies before, so a prompt with several
answers is computed once. The number of alternatives has no cap.
"""

from __future__ import annotations

from typing import Any

from gainrag.lms.remote.calls import BadAnswer, Call, Caller
from gainrag.lms.remote.facts import Facts
from gainrag.lms.remote.positions import Listing, Pair, packed
from gainrag.lms.remote.tokens import ServerTokens

TOP = 100


class Sglang(Listing):
    """SGLang behind HTTP. Its alternatives are TOP unless others are asked for."""

    name = "SGLang"

    def __init__(self, caller: Caller, facts: Facts, *, top: int | None = None, floor: float = 0.0) -> None:
        tokens = ServerTokens(caller, text="text")
        super().__init__(
            caller, tokens, top=TOP if top is None else top, floor=floor, vocabulary=facts.vocabulary
        )

    def call(self, pair: Pair, top: int) -> Call:
        """The request for what is known of each token of a pair's answer."""
        return Call(
            "/generate",
            {
                "input_ids": [*pair.prompt_ids, *pair.answer_ids],
                "sampling_params": {"max_new_tokens": 1, "temperature": 0.0},
                "return_logprob": True,
                "logprob_start_len": len(pair.prompt_ids) - 1,
                "top_logprobs_num": top,
            },
            reader=f"sglang 1: the last {len(pair.answer_ids)}",
            tokens=len(pair.prompt_ids) + len(pair.answer_ids) + 1,
        )

    def read(self, value: Any, pair: Pair, top: int) -> list[Any]:
        """The answer's tokens in `meta_info`: input_token_logprobs has [log-probability, id, text] from the prompt's
        last token on, whose own is null; input_top_logprobs a list of such for each, null for the first.

        Raises:
            BadAnswer: they are not there.
        """
        try:
            meta = value["meta_info"]
            rows, wanted = meta["input_token_logprobs"], len(pair.answer_ids) + 1
            if len(rows) != wanted:
                raise BadAnswer(f"{len(rows)} log-probabilities for {wanted} tokens")
            tops = meta["input_top_logprobs"] if top else [[]] * wanted
            if len(tops) != wanted:
                raise BadAnswer(f"{len(tops)} lists of alternatives for {wanted} tokens")
            told = []
            for token, row, listed in zip(pair.answer_ids, rows[1:], tops[1:], strict=True):
                if row[1] != token:
                    raise BadAnswer(f"token {row[1]} for token {token}")
                if len(listed) < top:
                    raise BadAnswer(f"{len(listed)} of {top} alternatives at token {token}")
                told.append(packed((token, row[0]), [(entry[1], entry[0]) for entry in listed]))
        except (KeyError, IndexError, TypeError) as error:
            raise BadAnswer(f"no meta_info as SGLang has it ({type(error).__name__}: {error})") from None
        return told
