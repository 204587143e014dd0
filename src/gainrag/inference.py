"""One question at a time, from retrieval to the answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import msgspec
import numpy as np

from gainrag.answering import Threshold, answer_together, check_question
from gainrag.augmentation import write_background
from gainrag.errors import DataError
from gainrag.prompts import PromptForm, for_model
from gainrag.protocols import (
    FloatArray,
    Generator,
    Lazy,
    Retriever,
    Selector,
    is_listwise,
    name_of,
    need,
    search_with,
)
from gainrag.records import Retrieved, Scored, row_of, views
from gainrag.selection import Pseudo, as_pseudo, rescored, score_all
from gainrag.selectors import PRIOR, open_selector
from gainrag.selectors.lazy import is_enough, threshold_of
from gainrag.settings import Passages, Tokens, checked


@dataclass(frozen=True, repr=False)
class Result:
    """An answer with what it rests on.

    answer: what the language model said.
    passages: what it read, best first.
    candidates: every passage it might have read, best first; `score` is the selector's.
    pseudo_skipped: whether the pseudo-passage was not written, as a retrieved passage scored high enough.
    choice_losses: of a question with choices, the loss of each, in nats per token; the answer is the one of least loss.
    retrieved: what the retriever found, in its order and with its scores.
    seconds: how long each step took: retrieved, written (the pseudo-passage), selected, answered.
    """

    answer: str
    passages: list[Scored]
    candidates: list[Scored]
    pseudo_skipped: bool = False
    choice_losses: list[float] | None = None
    retrieved: list[Scored] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def passage(self) -> Scored:
        """The best passage it read."""
        return self.passages[0]

    @property
    def from_pseudo_passage(self) -> bool:
        """Whether the best passage is the one the model wrote itself."""
        return self.passage.origin == "generated"

    def __repr__(self) -> str:
        return views.screen(*self._view())

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return views.page(*self._view())

    def _view(self) -> tuple[dict[str, str], list[views.Row]]:
        """What matters: the answer, how long it took, and the candidates, with those that were read."""
        read = {passage.id for passage in self.passages}
        spent = ", ".join(f"{step} {seconds:.2f}" for step, seconds in self.seconds.items())
        facts = {"answer": self.answer, **({"seconds": spent} if spent else {})}
        return facts, [row_of(c, *(["read"] if c.id in read else [])) for c in self.candidates]


# Is told of each step of an answer when it is done: its name as in `Result.seconds`, and the passages there are then.
Tell = Callable[[str, Sequence[Scored]], None]


class _Steps:
    """How long each step takes; whoever follows is told of it."""

    def __init__(self, tell: Tell | None) -> None:
        self.seconds: dict[str, float] = {}
        self._tell, self._at = tell, time.perf_counter()

    def done(self, step: str, passages: Sequence[Scored] = (), *, last: bool = True) -> None:
        """What was done since the last call belongs to this step.

        Args:
            last: it is finished.
        """
        now = time.perf_counter()
        self.seconds[step] = self.seconds.get(step, 0.0) + now - self._at
        if last and self._tell is not None:
            self._tell(step, passages)
        self._at = time.perf_counter()


class GainRAG:
    """Retrieve, add the pseudo-passage, select by gain, answer.

    Several threads may ask at a time; each gets what it would get alone. A model works for one of them at a time.

    Args:
        retriever: an opened index: `open_index(..)`.
        selector: `open_selector(..)`, or a Selector of your own; the one that ships with the package when left out.
        llm: `open_lm(..)`, or a Generator of your own.
        depth: passages to retrieve.
        k: passages the language model reads.
        pseudo: when it writes a candidate of its own: eager (or True), for every question; lazy, where no retrieved
            passage reaches the selector's threshold; never (or False); auto, lazy where the selector has learned a
            threshold, else eager.
        prompt: the prompt form: completion, chat, or instruction_first, a completion whose beginning a GPU runs once
            for many; when left out chat for a model behind an endpoint, else completion.
        max_new_tokens: the longest answer, in tokens.
        background_tokens: the longest pseudo-passage, in tokens.

    Raises:
        ConfigError: a part is a name instead of what was opened by it, `k` or `depth` is below 1, there is no such
            prompt form or choice of `pseudo`, or it is lazy and the selector has no threshold.
    """

    @checked
    def __init__(
        self,
        retriever: Retriever,
        selector: Selector | None = None,
        llm: Generator | None = None,
        *,
        depth: Passages = 100,
        k: Passages = 1,
        pseudo: Pseudo | Literal["auto"] | bool = "auto",
        prompt: PromptForm | None = None,
        max_new_tokens: Tokens = 16,
        background_tokens: Tokens = 128,
    ) -> None:
        selector = open_selector(PRIOR) if selector is None else selector
        for part, protocol, what, hint in (
            (retriever, Retriever, "retriever", 'open_index("idx/")'),
            (selector, Selector, "selector", 'open_selector("selector/")'),
            (llm, Generator, "llm", "open_lm(model=..)"),
        ):
            need(part, protocol, what=what, where="GainRAG", hint=f"pass {hint}")
        assert llm is not None  # it is a Generator
        self.retriever, self.selector, self.llm = retriever, selector, llm
        if pseudo == "auto":
            pseudo = "lazy" if isinstance(selector, Lazy) and selector.threshold is not None else "eager"
        self.depth, self.k, self.pseudo = depth, k, as_pseudo(pseudo)
        self.threshold = threshold_of(selector) if self.pseudo == "lazy" else None
        self.answered = self.skipped = 0
        self._counting = threading.Lock()
        self.prompts = for_model(prompt, llm)
        self.prompt = self.prompts.form
        self.max_new_tokens, self.background_tokens = max_new_tokens, background_tokens

    def answer(
        self,
        question: str,
        choices: Sequence[str] | None = None,
        threshold: Threshold | None = None,
        tell: Tell | None = None,
    ) -> Result:
        """Answer one question.

        Args:
            choices: the options of a multiple-choice question, or Yes and No. The selector reads them behind the
                question, the retriever and the language model's prompt do not; the answer is the one of least loss.
            threshold: of two choices that all questions have, see `gainrag.answering.calibrate`.
            tell: is told of each step when it is done.

        Raises:
            ConfigError: there are choices, and the language model cannot score them.
            DataError: the question is no text, empty, or too long for the model's context, there are fewer than k
                candidates, or the choices are fewer than two, or one is blank or there twice.
            ModelError: a part returns something that is no result.
        """
        if not isinstance(question, str):
            raise DataError(f"the question is {question!r:.60}, not a text", where="GainRAG.answer", hint="pass a str")
        try:
            question.encode()
        except UnicodeEncodeError as error:
            where = f"GainRAG.answer, character {error.start}"
            raise DataError("the question holds half a character", where=where, hint="decode it as UTF-8") from None
        if not question.strip():
            raise DataError("the question is empty", where="GainRAG.answer", hint="give a text that is not blank")
        where = f"question {question[:40]!r}"
        if choices is not None and (isinstance(choices, str) or not all(isinstance(c, str) for c in choices)):
            raise DataError(f"choices is {choices!r:.60}, not texts", where=where, hint='pass a list, as ["Yes", "No"]')
        record = Retrieved(id="question", question=question, choices=None if choices is None else [*choices], ctxs=[])
        check_question(record, self.llm, self.prompts, self.max_new_tokens, where=where)
        if self.pseudo != "never":
            self.prompts.check(question, reserve=self.background_tokens, where=where, background=True)
        steps = _Steps(tell)
        retrieved = candidates = search_with(self.retriever, [question], self.depth)[0]
        steps.done("retrieved", retrieved)
        scores, skipped = np.empty(0), False
        if self.threshold is not None:
            scores = self._score(record, candidates)
            skipped = is_enough(candidates, scores, self.threshold, self.k)
            steps.done("selected", last=False)
        if self.pseudo != "never" and not skipped:
            candidates = candidates + write_background(
                [record], self.llm, prompt=self.prompt, max_new_tokens=self.background_tokens
            )
            steps.done("written", candidates[-1:])
        if len(candidates) < self.k:
            raise DataError(
                f"{self.k} passages are wanted of {len(candidates)} candidates",
                where=where,
                hint="lower k, or retrieve more",
            )
        unscored = candidates[len(scores) :]
        if unscored and is_listwise(self.selector):
            scores = self._score(record, candidates)
        elif unscored:
            scores = np.concatenate([scores, self._score(record, unscored)])
        ranked = rescored(candidates, scores, len(candidates))
        steps.done("selected", ranked)
        chosen = ranked[: self.k]
        record = msgspec.structs.replace(record, ctxs=chosen)
        said = answer_together([record], self.llm, self.prompts, self.max_new_tokens, threshold)[0]
        steps.done("answered", chosen)
        with self._counting:
            self.answered, self.skipped = self.answered + 1, self.skipped + skipped
        return Result(said.prediction, chosen, ranked, skipped, said.choice_losses, retrieved, steps.seconds)

    def __repr__(self) -> str:
        parts = {"retriever": self.retriever, "selector": self.selector, "llm": self.llm}
        lines = [f"  {what:<9}  {_described(part)}" for what, part in parts.items()]
        settings = f"depth={self.depth}, k={self.k}, pseudo={self.pseudo!r}, prompt={self.prompt!r}"
        lines.append(f"  {'settings':<9}  {settings}")
        if self.answered:
            lines.append(f"  {'so far':<9}  {self.answered} answered, {self.skipped} of them without pseudo-passage")
        return "\n".join(["GainRAG", *lines])

    def _score(self, record: Retrieved, passages: list[Scored]) -> FloatArray:
        return score_all(self.selector, [(record, passages)])[0]

    @property
    def skipped_share(self) -> float | None:
        """Share of the questions answered so far that skipped the pseudo-passage; None before the first."""
        return self.skipped / self.answered if self.answered else None


def _described(part: object) -> str:
    """A part in one line: its own words, where these are short, else its name."""
    own = repr(part)
    return own if "\n" not in own and len(own) <= 100 and " object at 0x" not in own else name_of(part)
