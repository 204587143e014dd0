"""llama.cpp's server: the whole vocabulary behind a given text, by /completion with `n_probs`, so losses are exact.

It tells nothing of a text's own tokens (its /v1/completions takes `echo` and ignores it), only of the token that it
would write next. So an answer is scored a token at a time: prompt and the answer's beginning go out as ids, and what
comes back is the distribution of the next token. Answers that begin alike share their steps. The steps of a prompt go
to one of the server's slots one after the other, whose cache makes each but the first as cheap as one token.

At alpha 0 the gold token is all that is asked for: it is mostly among the first few, and only where it is not, the
whole vocabulary is sent. Above 0 the distribution without a passage is held, and each one with a passage is reduced to
the sums that the losses take, as it comes in: a whole vocabulary is megabytes of JSON.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gainrag.gain import FloatArray
from gainrag.lms.checking import check_request
from gainrag.lms.packing import AnswerTree
from gainrag.lms.remote.calls import BadAnswer, Call, Caller
from gainrag.lms.remote.facts import Facts
from gainrag.lms.remote.positions import ask_about, prompt_ids
from gainrag.lms.remote.tokens import LlamaCppTokens, Tokens
from gainrag.protocols import Level, ScoringRequest

# Alternatives that are asked for where the gold token alone is wanted.
FEW = 64
# More than any vocabulary has: the server sends what there is.
ALL = 2**20
# The server computes in float32, and writes a probability that is none there as the least number that there is.
LEAST = -104.0


@dataclass(frozen=True)
class _Step:
    """One distribution that is wanted.

    prompt, position: which prompt's it is, and where in the tree of its answers.
    ids: the prompt's and the answers' beginning.
    tokens: those whose log-probabilities are wanted.
    """

    prompt: int
    position: int
    ids: list[int]
    tokens: tuple[int, ...]


class LlamaCpp:
    """llama.cpp's server. Its losses are exact for the weights and the arithmetic that it has."""

    name = "llama.cpp"
    level: Level = "exact"

    def __init__(self, caller: Caller, facts: Facts) -> None:
        self._caller = caller
        self.vocabulary, self._slots = facts.vocabulary, facts.slots or 1
        self.tokens: Tokens = LlamaCppTokens(caller, facts.bos)

    def loss_bounds(
        self, requests: Sequence[ScoringRequest], alphas: Sequence[float], *, keep: bool = True
    ) -> list[FloatArray]:
        """The losses of each request as an array [passage, answer, alpha, 2]; both ends are the same."""
        found = [self._losses(request, alphas, keep) for request in requests]
        return [np.stack([losses, losses], axis=-1) for losses in found]

    def _losses(self, request: ScoringRequest, alphas: Sequence[float], keep: bool) -> FloatArray:
        """The losses of a request [passage, answer, alpha]."""
        check_request(request)
        ids = prompt_ids(self.tokens, [request.without_prompt, *request.with_prompts])
        tree = AnswerTree.build(self.tokens.answers(request.answers))
        prompts = list(dict.fromkeys(request.with_prompts))
        steps = self._steps(tree, [ids[prompt] for prompt in prompts])
        without: list[FloatArray] = []
        if any(alpha != 0 for alpha in alphas):
            bare = self._steps(tree, [ids[request.without_prompt]])
            without = self._whole(bare)
            told = self._contrasted(steps, bare, without, alphas, keep)
        else:
            told = [[logs, [0.0] * len(alphas)] for logs in self._gold(steps, keep)]
        found = {(step.prompt, step.position): (step, *own) for step, own in zip(steps, told, strict=True)}

        def loss(prompt: int, position: int, token: int, i: int) -> float:
            step, logs, sums = found[prompt, position]
            z = logs[step.tokens.index(token)]
            return float(sums[i] - (z + alphas[i] * (z - without[position][token]) if alphas[i] else z))

        losses = [
            [[np.mean([loss(p, *at, i) for at in path]) for i in range(len(alphas))] for path in tree.steps]
            for p in range(len(prompts))
        ]
        return np.array([losses[prompts.index(prompt)] for prompt in request.with_prompts])

    def _steps(self, tree: AnswerTree, prompts: Sequence[list[int]]) -> list[_Step]:
        """The distributions that the answers take behind each prompt, in the order to ask for them: each slot has a
        prompt of its own."""
        wanted: list[set[int]] = [set() for _ in range(tree.outputs)]
        for position, token in (step for path in tree.steps for step in path):
            wanted[position].add(token)
        beginnings = _beginnings(tree)
        return [
            _Step(p, position, [*prompts[p], *beginnings[position]], tuple(sorted(wanted[position])))
            for first in range(0, len(prompts), self._slots)
            for position in range(tree.outputs)
            for p in range(first, min(first + self._slots, len(prompts)))
        ]

    def _whole(self, steps: Sequence[_Step]) -> list[FloatArray]:
        """Each step's distribution [vocabulary], log-probabilities. Not kept: it is large, and cheap to ask again."""
        calls = [self._call(step, ALL, "llama.cpp whole", keep=False) for step in steps]
        return ask_about(self._caller, calls, steps, lambda value, _: self._vocabulary(value))

    def _contrasted(
        self,
        steps: Sequence[_Step],
        bare: Sequence[_Step],
        without: Sequence[FloatArray],
        alphas: Sequence[float],
        keep: bool,
    ) -> list[Any]:
        """Of each step the log-probabilities of its tokens, and log Z by alpha, see `gainrag.gain`.

        Args:
            bare, without: by position, the step without a passage and its distribution.
        """
        bases = [hashlib.sha256(str(step.ids).encode()).hexdigest()[:16] for step in bare]
        what = f"llama.cpp contrast 1 {list(alphas)}"
        calls = [self._call(step, ALL, f"{what} {step.tokens} {bases[step.position]}", keep=keep) for step in steps]

        def read(value: Any, step: _Step) -> Any:
            logs, base = self._vocabulary(value), without[step.position]
            if len(logs) != len(base):
                raise BadAnswer(f"{len(logs)} log-probabilities, and {len(base)} without a passage")
            sums = [float(np.logaddexp.reduce(logs + alpha * (logs - base))) if alpha else 0.0 for alpha in alphas]
            return [[float(logs[token]) for token in step.tokens], sums]

        return ask_about(self._caller, calls, steps, read)

    def _gold(self, steps: Sequence[_Step], keep: bool) -> list[list[float]]:
        """Of each step the log-probabilities of its tokens."""

        def read(value: Any, step: _Step) -> Any:
            known = dict(_alternatives(value))
            return [known.get(token) for token in step.tokens]

        def read_all(value: Any, step: _Step) -> Any:
            logs = self._vocabulary(value)
            return [float(logs[token]) for token in step.tokens]

        calls = [self._call(step, FEW, f"llama.cpp gold 1 {step.tokens}", keep=keep) for step in steps]
        found = ask_about(self._caller, calls, steps, read)
        rare = [i for i, logs in enumerate(found) if None in logs]
        calls = [self._call(steps[i], ALL, f"llama.cpp gold 1 {steps[i].tokens}", keep=keep) for i in rare]
        for i, logs in zip(rare, ask_about(self._caller, calls, [steps[i] for i in rare], read_all), strict=True):
            found[i] = logs
        return found

    def _vocabulary(self, value: Any) -> FloatArray:
        """The whole distribution in an answer: log-probabilities [vocabulary].

        Raises:
            BadAnswer: it is not whole.
        """
        found = _alternatives(value)
        ids = np.fromiter((i for i, _ in found), dtype=np.int64, count=len(found))
        size = self.vocabulary or len(found)
        if len(found) != size or not np.array_equal(np.sort(ids), np.arange(size)):
            raise BadAnswer(f"{len(found)} log-probabilities of a vocabulary of {size}")
        logs = np.empty(size)
        logs[ids] = np.fromiter((log for _, log in found), dtype=np.float64, count=size)
        logs = np.maximum(logs, LEAST)
        if abs(total := float(np.exp(logs).sum()) - 1) > 0.01:
            raise BadAnswer(f"probabilities that sum to {1 + total:.3f}")
        return logs

    def _call(self, step: _Step, n_probs: int, reader: str, *, keep: bool) -> Call:
        """The request for a distribution."""
        body = {
            "prompt": step.ids,
            "n_predict": 1,
            "n_probs": n_probs,
            "temperature": -1.0,  # greedy; the probabilities are the model's own, before any sampler
            "post_sampling_probs": False,
            "cache_prompt": True,
            "id_slot": step.prompt % self._slots,
            "response_fields": ["completion_probabilities", "truncated", "tokens_evaluated"],
        }
        return Call("/completion", body, reader=reader, tokens=len(step.ids) + 1, keep=keep)


def _alternatives(value: Any) -> list[tuple[int, float]]:
    """Ids and log-probabilities of the alternatives in an answer.

    Raises:
        BadAnswer: there are none.
    """
    try:
        if value.get("truncated"):
            raise BadAnswer("a text that it cut to its context")
        told = value["completion_probabilities"]
        if len(told) != 1:
            raise BadAnswer(f"log-probabilities of {len(told)} tokens for 1")
        found = [(entry["id"], entry["logprob"]) for entry in told[0]["top_logprobs"]]
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise BadAnswer(f"no completion_probabilities ({type(error).__name__}: {error})") from None
    for token, log in found:
        if type(token) is not int or type(log) not in (int, float) or not log <= 1e-3:  # NaN is not
            raise BadAnswer(f"the log-probability {log!r:.20} of token {token!r:.20}")
    return found


def _beginnings(tree: AnswerTree) -> list[list[int]]:
    """Of each position of a tree the answers' tokens before it."""
    found: list[list[int]] = [[]]
    for token, parent in zip(tree.tokens, tree.parent, strict=True):
        found.append([*found[parent + 1], token])
    return found
