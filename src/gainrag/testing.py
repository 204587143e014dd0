"""Fakes for the tests of whoever builds on gainrag: small, deterministic, no model needed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from random import Random

import numpy as np

from gainrag.protocols import FloatArray, Level, ScoringRequest
from gainrag.records import Passage, Scored


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


class TableScorer:
    """A Scorer that looks losses up: by (with-prompt, answer), nats per token; the same at every alpha.

    Raises:
        KeyError: the table has no entry.
    """

    level: Level = "exact"

    def __init__(self, table: Mapping[tuple[str, str], float]) -> None:
        self.table = dict(table)

    def losses(self, requests: Sequence[ScoringRequest], alphas: Sequence[float]) -> list[FloatArray]:
        """The table's losses as [passage, answer, alpha]."""
        return [
            np.array([[[self.table[p, a]] * len(alphas) for a in r.answers] for p in r.with_prompts], dtype=np.float64)
            for r in requests
        ]


class EchoGenerator:
    """A Generator that answers with the last so many words of the prompt; it counts what it was asked."""

    def __init__(self) -> None:
        self.prompts: list[str] = []

    def generate(self, prompts: Sequence[str], max_new_tokens: int) -> list[str]:
        """The last words of each prompt."""
        self.prompts += prompts
        return [" ".join(prompt.split()[-max_new_tokens:]) for prompt in prompts]


class OverlapLM(EchoGenerator):
    """A Scorer and Generator without a model: an answer's loss is low where its words stand in the prompt, and the
    answer generated is the prompt's first capitalised word that the question does not have, or, drawn, any of them."""

    level: Level = "exact"

    def losses(self, requests: Sequence[ScoringRequest], alphas: Sequence[float]) -> list[FloatArray]:
        """Share of the answer's words missing from the prompt, times 5; alpha adds the gap to the bare question's."""
        return [
            np.array(
                [
                    [[(1 + x) * _missing(p, a) - x * _missing(r.without_prompt, a) for x in alphas] for a in r.answers]
                    for p in r.with_prompts
                ],
                dtype=np.float64,
            )
            for r in requests
        ]

    def generate(self, prompts: Sequence[str], max_new_tokens: int) -> list[str]:
        """One word an answer."""
        self.prompts += prompts
        return [_names(prompt)[0] for prompt in prompts]

    def sample(
        self, prompts: Sequence[str], max_new_tokens: int, stop: str | None, *, temperature: float, seeds: Sequence[int]
    ) -> list[str]:
        """One of the words that `generate` could have taken, by the seed."""
        self.prompts += prompts
        return [Random(seed).choice(_names(prompt)) for prompt, seed in zip(prompts, seeds, strict=True)]


def _missing(prompt: str, answer: str) -> float:
    wanted = _words(answer)
    return 5.0 * len(wanted - _words(prompt)) / max(1, len(wanted))


def _names(prompt: str) -> list[str]:
    """The capitalised words of a prompt's first part that the question does not have."""
    passage, _, question = prompt.partition("\n\n")
    known = _words(question)
    return [word for word in re.findall(r"[A-Z]\w+", passage) if word.lower() not in known | {"passage"}] or ["nothing"]


class OverlapSelector:
    """A Selector that counts the words question and passage share.

    Args:
        threshold: so many make the pseudo-passage needless.
    """

    def __init__(self, threshold: float | None = None) -> None:
        self.threshold = threshold

    def score(self, question: str, passages: Sequence[Passage]) -> FloatArray:
        """Shared words, as floats."""
        return np.array([len(_words(question) & _words(f"{p.title} {p.text}")) for p in passages], dtype=np.float64)


class OverlapRetriever:
    """A Retriever over a list of passages that ranks by shared words; equals in the list's order."""

    def __init__(self, passages: Sequence[Passage]) -> None:
        self.passages = list(passages)

    def search(self, questions: Sequence[str], k: int) -> list[list[Scored]]:
        """The k best passages of each question."""
        found = []
        for question in questions:
            scores = OverlapSelector().score(question, self.passages)
            best = np.argsort(-scores, kind="stable")[:k]
            found.append(
                [
                    Scored(
                        id=self.passages[i].id,
                        title=self.passages[i].title,
                        text=self.passages[i].text,
                        origin=self.passages[i].origin,
                        score=float(scores[i]),
                    )
                    for i in map(int, best)
                ]
            )
        return found
