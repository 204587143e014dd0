"""Every prompt, as data; the only place that renders a passage.

Two forms. `completion` is a text that a model continues, and the answer is what stands before the first line end;
small models and base models answer far better with it. `chat` is the paper's wording inside the model's own chat
template. Who owns the space between prompt and answer: the answer (see `Prompts.scored_answer`).

This module knows nothing about models beyond the three methods of `Bounded` and `Templated`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, replace
from typing import Literal, Protocol, runtime_checkable

from gainrag.errors import ConfigError, DataError
from gainrag.files.meta import digest
from gainrag.records import Passage

PromptForm = Literal["completion", "chat"]
PROMPT_FORMS: tuple[PromptForm, ...] = ("completion", "chat")

INSTRUCTION = "Answer the question below concisely in a few words."
# Shows a model that only continues text what an answer looks like: without it a quarter of the answers were empty and
# most others whole sentences (docs/dev/log.md).
EXAMPLE = "Question: Which planet is known as the Red Planet?\nAnswer: Mars"
BACKGROUND_INSTRUCTION = (
    "Please provide background for the question below in 100 words. Do not respond with anything other than "
    'background. If you do not know or are unsure, please generate "N/A" directly.'
)
# What a model writes when it knows nothing; METHOD section 2.
NOT_AVAILABLE = "N/A"


@dataclass(frozen=True)
class Template:
    """One prompt form: how a passage, a question and the request for a background passage are written down.

    `passage` has the fields {n} (from 1), {title}, {text}; `question` and `background` have {question}.
    """

    passage: str
    question: str
    background: str
    answer_prefix: str
    ends_at_line_end: bool


TEMPLATES: dict[PromptForm, Template] = {
    "completion": Template(
        passage="Passage: {title}\n{text}\n\n",
        question=INSTRUCTION + "\n" + EXAMPLE + "\nQuestion: {question}\nAnswer:",
        background=(
            "Question: {question}\nBackground facts from an encyclopedia that answer the question, in 100 words:"
        ),
        answer_prefix=" ",
        ends_at_line_end=True,
    ),
    "chat": Template(
        passage="Passage #{n}  title:{title}\nPassage #{n}  text:{text}\n\n",
        question="### Instruction:\n" + INSTRUCTION + "\n\n### Input:\n{question}\n",
        background=BACKGROUND_INSTRUCTION + "\n\nQuestion: {question}",
        answer_prefix="",
        ends_at_line_end=False,
    ),
}


def wording(form: PromptForm, *, background: bool = False) -> str:
    """What stands for the exact text of a form's prompts in the settings of a stage, so that nothing made with one
    wording goes on or is reused with another: the request for background, or all else."""
    template = TEMPLATES[form]
    parts = (template.background,) if background else astuple(replace(template, background=""))
    return digest(repr(parts))


@runtime_checkable
class Bounded(Protocol):
    """A model whose context has an end."""

    context: int  # tokens

    def count_tokens(self, text: str) -> int:
        """How many tokens a text has as a prompt."""
        ...

    def truncate(self, text: str, tokens: int) -> str:
        """The beginning of a text, of at most so many tokens."""
        ...


@runtime_checkable
class Templated(Protocol):
    """A model with a chat template of its own."""

    def render_chat(self, message: str) -> str:
        """One user message inside the template, up to where the answer begins."""
        ...


@dataclass(frozen=True)
class Prompts:
    """The prompts of one form for one model. Make it with `for_model`."""

    form: PromptForm
    template: Template
    wrap: Callable[[str], str] = str
    bound: Bounded | None = None

    def with_passages(self, question: str, passages: Sequence[Passage], *, reserve: int = 64) -> str:
        """with(q, p): the passages, then the question. A passage too long for the context is cut at its end.

        Args:
            reserve: tokens of the context kept free for the answer.

        Raises:
            DataError: the question alone does not fit.
        """
        prompt = self._render(question, passages)
        # A token is at least a byte, so most prompts are known to fit without being tokenized.
        if self.bound is None or len(prompt.encode()) + reserve <= self.bound.context:
            return prompt
        excess = self.bound.count_tokens(prompt) + reserve - self.bound.context
        kept = list(passages)
        for i in reversed(range(len(kept))):  # the least of several passages gives way first
            if excess <= 0:
                break
            tokens = self.bound.count_tokens(kept[i].text)
            # Text cut out of its surroundings may tokenize a little longer: two tokens of slack.
            text = self.bound.truncate(kept[i].text, max(0, tokens - excess - 2))
            kept[i] = replace_text(kept[i], text)
            prompt = self._render(question, kept)
            excess = self.bound.count_tokens(prompt) + reserve - self.bound.context
        if excess > 0:
            raise DataError(
                f"the question needs {excess} tokens more than the model's context of {self.bound.context}",
                where=f"question {question[:40]!r}",
                hint="shorten the question, or use a model with a longer context",
            )
        return prompt

    def without(self, question: str) -> str:
        """without(q): the question alone."""
        return self.wrap(self.template.question.format(question=question))

    def background(self, question: str) -> str:
        """The request for the pseudo-passage."""
        return self.wrap(self.template.background.format(question=question))

    def scored_answer(self, answer: str) -> str:
        """The answer as it is scored behind the prompt: it owns its leading space."""
        return self.template.answer_prefix + answer.strip()

    def cut(self, continuation: str) -> str:
        """The answer in what the model wrote: of a completion what stands before the first line end."""
        text = continuation.lstrip(" \n") if not self.template.ends_at_line_end else continuation.lstrip(" ")
        return (text.split("\n", 1)[0] if self.template.ends_at_line_end else text).strip()

    @property
    def stop(self) -> str | None:
        """The string at which generation of an answer may end."""
        return "\n" if self.template.ends_at_line_end else None

    def _render(self, question: str, passages: Sequence[Passage]) -> str:
        evidence = "".join(
            self.template.passage.format(n=n, title=p.title, text=p.text) if p.title else self._untitled(n, p)
            for n, p in enumerate(passages, 1)
        )
        return self.wrap(evidence + self.template.question.format(question=question))

    def _untitled(self, n: int, passage: Passage) -> str:
        """The pseudo-passage has no title: no empty title line either, in the completion form."""
        template = (
            self.template.passage.replace("{title}\n", "") if self.form == "completion" else self.template.passage
        )
        return template.format(n=n, title="", text=passage.text)


def for_model(form: str, lm: object) -> Prompts:
    """The prompts of a form for a model: inside its chat template for `chat`, cut to its context where it has one.

    Raises:
        ConfigError: no such form, or `chat` for a model without a chat template.
    """
    if form not in TEMPLATES:
        raise ConfigError(f"unknown prompt form {form!r}", where="prompt", hint="use completion or chat")
    prompts = Prompts(form=form, template=TEMPLATES[form])
    if isinstance(lm, Bounded):
        prompts = replace(prompts, bound=lm)
    if form == "chat" and isinstance(lm, Templated):
        prompts = replace(prompts, wrap=lm.render_chat)
    return prompts


def replace_text(passage: Passage, text: str) -> Passage:
    """A copy of the passage with another text."""
    return Passage(id=passage.id, title=passage.title, text=text, origin=passage.origin)


def selector_text(passage: Passage) -> str:
    """What a selector and a dense index read of a passage: "title\\ntext", or the text where there is no title."""
    return f"{passage.title}\n{passage.text}" if passage.title else passage.text


# A language model as a cross-encoder: sentence-transformers puts question and passage in here as a chat template does,
# and the score is the log-odds of "yes" against "no" behind it. The passage stands last, since it is what is cut.
RERANKER_TEMPLATE = (
    'Question: {{ messages | selectattr("role", "eq", "query") | map(attribute="content") | first }}\n'
    'Passage: {{ messages | selectattr("role", "eq", "document") | map(attribute="content") | first }}\n'
    "Does the passage answer the question, yes or no? Answer:"
)
