"""One question at a time, from retrieval to the answer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gainrag.answering import generate_answers
from gainrag.augmentation import write_background
from gainrag.errors import DataError
from gainrag.prompts import PromptForm, for_model
from gainrag.protocols import Generator, Retriever, Selector
from gainrag.records import Question, Scored
from gainrag.selection import Pseudo, as_pseudo, rescored
from gainrag.selectors.lazy import is_enough, threshold_of
from gainrag.settings import Passages, Tokens, checked


@dataclass(frozen=True)
class Result:
    """An answer with what it rests on.

    answer: what the language model said.
    passages: what it read, best first.
    candidates: every passage it might have read, best first; `score` is the selector's.
    pseudo_skipped: whether the pseudo-passage was not written, as a retrieved passage scored high enough.
    """

    answer: str
    passages: list[Scored]
    candidates: list[Scored]
    pseudo_skipped: bool = False

    @property
    def passage(self) -> Scored:
        """The best passage it read."""
        return self.passages[0]

    @property
    def from_pseudo_passage(self) -> bool:
        """Whether the best passage is the one the model wrote itself."""
        return self.passage.origin == "generated"


class GainRAG:
    """Retrieve, add the pseudo-passage, select by gain, answer (METHOD section 5).

    Args:
        depth: passages to retrieve.
        k: passages the language model reads.
        pseudo: when it writes a candidate of its own: eager (or True), for every question; lazy, where no retrieved
            passage reaches the selector's threshold; never (or False).
        prompt: the prompt form, completion or chat.
        max_new_tokens: the longest answer, in tokens.
        background_tokens: the longest pseudo-passage, in tokens.

    Raises:
        ConfigError: `k` or `depth` is below 1, there is no such prompt form or choice of `pseudo`, or it is lazy and
            the selector has no threshold.
    """

    @checked
    def __init__(
        self,
        retriever: Retriever,
        selector: Selector,
        llm: Generator,
        *,
        depth: Passages = 100,
        k: Passages = 1,
        pseudo: Pseudo | bool = "eager",
        prompt: PromptForm = "completion",
        max_new_tokens: Tokens = 16,
        background_tokens: Tokens = 128,
    ) -> None:
        self.retriever, self.selector, self.llm = retriever, selector, llm
        self.depth, self.k, self.pseudo = depth, k, as_pseudo(pseudo)
        self.threshold = threshold_of(selector) if self.pseudo == "lazy" else None
        self.answered = self.skipped = 0
        self.prompt: PromptForm = prompt
        self.prompts = for_model(prompt, llm)
        self.max_new_tokens, self.background_tokens = max_new_tokens, background_tokens

    def answer(self, question: str) -> Result:
        """Answer one question.

        Raises:
            DataError: the question is empty, or there are fewer than k candidates.
        """
        if not question.strip():
            raise DataError("the question is empty", where="GainRAG.answer", hint="ask something")
        candidates = self.retriever.search([question], self.depth)[0]
        scores, skipped = np.empty(0), False
        if self.threshold is not None:
            scores = self.selector.score(question, candidates)
            skipped = is_enough(candidates, scores, self.threshold, self.k)
        if self.pseudo != "never" and not skipped:
            asked = Question(id="question", question=question)
            candidates = candidates + write_background(
                [asked], self.llm, prompt=self.prompt, max_new_tokens=self.background_tokens
            )
        if len(candidates) < self.k:
            raise DataError(
                f"{self.k} passages are wanted of {len(candidates)} candidates",
                where=f"question {question[:40]!r}",
                hint="lower k, or retrieve more",
            )
        unscored = candidates[len(scores) :]
        if unscored:
            scores = np.concatenate([scores, self.selector.score(question, unscored)])
        ranked = rescored(candidates, scores, len(candidates))
        chosen = ranked[: self.k]
        rendered = self.prompts.with_passages(question, chosen, reserve=self.max_new_tokens)
        text = generate_answers(self.llm, self.prompts, [rendered], self.max_new_tokens)[0]
        self.answered, self.skipped = self.answered + 1, self.skipped + skipped
        return Result(answer=text, passages=chosen, candidates=ranked, pseudo_skipped=skipped)

    @property
    def skipped_share(self) -> float | None:
        """Share of the questions answered so far that skipped the pseudo-passage; None before the first."""
        return self.skipped / self.answered if self.answered else None
