"""Every prompt, as data; the only place that renders a passage.

Three forms. `completion` is a text that a model continues, and the answer is what stands before the first line end;
small models and base models answer far better with it. `chat` is the paper's wording inside the model's own chat
template. `instruction_first` is a completion in another order: instruction and example, the passages, the question.
There all prompts begin alike, and a GPU runs that beginning once a batch instead of once a prompt (gainrag.lms.gpu).
Who owns the space between prompt and answer: the answer (see `Prompts.scored_answer`).

What is written here fits the model's context: passages are cut, questions and answers never.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, replace
from typing import Literal

import msgspec

from gainrag.errors import ConfigError, DataError
from gainrag.files.meta import digest
from gainrag.protocols import Chat, ChatFirst, Windowed
from gainrag.records import Passage

PromptForm = Literal["completion", "chat", "instruction_first"]

INSTRUCTION = "Answer the question below concisely in a few words."
# Shows a model that only continues text what an answer looks like: without it a quarter of the answers were empty and
# most others whole sentences (docs/dev/log.md).
EXAMPLE = "Question: Which planet is known as the Red Planet?\nAnswer: Mars"
BACKGROUND_INSTRUCTION = (
    "Please provide background for the question below in 100 words. Do not respond with anything other than "
    'background. If you do not know or are unsure, please generate "N/A" directly.'
)
# What a model writes when it knows nothing, as the instruction asks.
NOT_AVAILABLE = "N/A"
# What a model is asked to write a question from, by form and by the question's kind; {passages} as a completion shows
# them. What is written is read by its lines. The examples show a model that only continues text the form; a chat model
# is told it, as small ones copy an example's question instead of writing their own (docs/dev/log.md).
Asked = Literal["fact", "yes_no", "two"]
_EXAMPLE_PASSAGE = (
    "Passage: Emma > Publication\nEmma is a novel by Jane Austen. John Murray published it in London in December 1815, "
    "and it was dedicated to the Prince Regent.\n\n"
)
_NAME_IT = " Name what the question is about; never say 'the passage'."
_ALONE = "The question must make sense to somebody who does not see the text, so write names in full. "
_TWO_LINES = "\n\nFormat:\nQuestion: ...\nAnswer: ..."
ASKING: dict[PromptForm, dict[Asked, str]] = {
    "completion": {
        "fact": (
            "Write a question that only the last passage answers, and its short answer, copied from the passage."
            + _NAME_IT
            + "\n\n"
            + _EXAMPLE_PASSAGE
            + "Question: Who published Jane Austen's novel Emma?\nAnswer: John Murray\n\n{passages}Question:"
        ),
        "yes_no": (
            "Write a question about the last passage that is answered with yes or no, and its answer."
            + _NAME_IT
            + "\n\n"
            + _EXAMPLE_PASSAGE
            + "Question: Was Jane Austen's novel Emma first published in Paris?\nAnswer: no\n\n{passages}Question:"
        ),
        "two": (
            "Write a question that is answered only by the last two passages together, and its short answer, copied "
            "from one of them."
            + _NAME_IT
            + "\n\n"
            + _EXAMPLE_PASSAGE
            + "Passage: John Murray\nJohn Murray moved his house to 50 Albemarle Street in 1812.\n\n"
            "Question: In which street was the house that published Jane Austen's novel Emma?\n"
            "Answer: Albemarle Street\n\n{passages}Question:"
        ),
    },
    "chat": {
        "fact": "{passages}Write a quiz question about this text, and its short answer.\n\n"
        + _ALONE
        + "The answer is one to five words that stand in the text, such as a name or a number."
        + _TWO_LINES,
        "yes_no": "{passages}Write a quiz question about this text that is answered with yes or no, and its answer.\n\n"
        + _ALONE
        + "The answer is yes or no."
        + _TWO_LINES,
        "two": "{passages}Write a quiz question that needs both of these texts, and its short answer.\n\n"
        + _ALONE
        + "The answer is one to five words that stand in one of the texts, such as a name or a number."
        + _TWO_LINES,
    },
}
ASKING["instruction_first"] = ASKING["completion"]
# Bytes of an answer for which as many tokens are reserved, without asking the tokenizer.
SHORT = 64


@dataclass(frozen=True)
class Template:
    """One prompt form: how a passage, a question and the request for a background passage are written down.

    `passage` has the fields {n} (from 1), {title}, {text}; `question` and `background` have {question}. `before` stands
    in front of the passages.
    """

    passage: str
    question: str
    background: str
    answer_prefix: str
    ends_at_line_end: bool
    before: str = ""


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
TEMPLATES["instruction_first"] = replace(
    TEMPLATES["completion"], before=INSTRUCTION + "\n" + EXAMPLE + "\n\n", question="Question: {question}\nAnswer:"
)


def wording(form: PromptForm, *, background: bool = False) -> str:
    """A digest of the exact text of a form's prompts, kept in the settings of a stage, so that nothing made with one
    wording is continued or reused with another. `background`: of the pseudo-passage's prompt; else of all others."""
    template = TEMPLATES[form]
    parts = (template.background,) if background else astuple(replace(template, background=""))
    # What stands before the passages came later: where nothing does, the digest is as it was.
    return digest(repr(parts if background or template.before else parts[:-1]))


@dataclass(frozen=True)
class Prompts:
    """The prompts of one form for one model. Make it with `for_model`."""

    form: PromptForm
    template: Template
    wrap: Callable[[str], str] = str
    bound: Windowed | None = None

    def with_passages(self, question: str, passages: Sequence[Passage], *, reserve: int) -> str:
        """with(q, p): the passages, then the question. Passages too long for the context are cut at their ends, the
        last of several first; one of which nothing is left is left out.

        Args:
            reserve: tokens of the context kept free behind the prompt: for the longest answer that is scored there,
                see `answer_tokens`, or for what the model writes.

        Raises:
            DataError: the question alone does not fit.
        """
        prompt, kept = self._render(question, passages), list(passages)
        for i in reversed(range(len(passages))):  # the least of several passages gives way first
            for field in ("text", "title"):
                if (excess := self._excess(prompt, reserve)) <= 0:
                    return prompt
                assert self.bound is not None  # or nothing would exceed
                whole = kept[i].text if field == "text" else kept[i].title
                # Text cut out of its surroundings may tokenize a little longer: two tokens of slack.
                tokens = max(0, self.bound.count_tokens(whole) - excess - 2)
                kept[i] = msgspec.structs.replace(kept[i], **{field: self.bound.truncate(whole, tokens)})
                prompt = self._render(question, kept)
            if self._excess(prompt, reserve) > 0:
                del kept[i]
                prompt = self._render(question, kept)
        self.check(question, reserve=reserve, where=f"question {question[:40]!r}")
        return prompt

    def check(self, question: str, *, reserve: int, where: str, background: bool = False) -> None:
        """Whether a question alone, without a passage, fits the context; cheap unless it is close.

        Args:
            reserve: tokens of the context kept free behind it.
            where: what errors call the question.
            background: whether it is the request for the pseudo-passage that must fit.

        Raises:
            DataError: it does not.
        """
        prompt = self.background(question) if background else self.without(question)
        if self.bound is None or self._excess(prompt, reserve) <= 0:
            return
        own, whole = self.bound.count_tokens(question), self.bound.count_tokens(prompt)
        long_question = own > reserve
        raise DataError(
            f"the question has {own} tokens, its prompt {whole}, and {reserve} are kept for what stands behind it: "
            f"more than the model's context of {self.bound.context}",
            where=where,
            hint="shorten the question, or use a model with a longer context"
            if long_question
            else "lower max_new_tokens or shorten the answer, or use a model with a longer context",
        )

    def answer_tokens(self, answers: Sequence[str]) -> int:
        """What to reserve for answers that are scored: at least the tokens of the longest."""
        scored = [self.scored_answer(answer) for answer in answers]
        longest = max((len(answer.encode()) for answer in scored), default=0)
        # A token is at least a byte: short answers need not be tokenized to know that they are short.
        if self.bound is None or longest <= SHORT:
            return longest
        return max(self.bound.count_tokens(answer) for answer in scored)

    def _excess(self, prompt: str, reserve: int) -> int:
        """How many tokens too many a prompt has; 0 or less where it fits."""
        # A token is at least a byte, the model's own first token aside: most prompts are known to fit without being
        # tokenized.
        if self.bound is None or len(prompt.encode()) + 1 + reserve <= self.bound.context:
            return 0
        return self.bound.count_tokens(prompt) + reserve - self.bound.context

    def without(self, question: str) -> str:
        """without(q): the question alone."""
        return self._render(question, [])

    def background(self, question: str) -> str:
        """The request for the pseudo-passage."""
        return self.wrap(self.template.background.format(question=question))

    def to_ask(self, kind: Asked, passages: Sequence[Passage], *, reserve: int) -> str:
        """The request for a question on passages; passages too long for the context are cut at their ends.

        Args:
            reserve: tokens of the context kept free for what the model writes.

        Raises:
            DataError: there is no room for the passages.
        """
        plain, kept = TEMPLATES["completion"].passage, list(passages)
        while True:
            shown = "".join(plain.format(title=passage.title, text=passage.text) for passage in kept)
            prompt = self.wrap(ASKING[self.form][kind].format(passages=shown))
            excess = self._excess(prompt, reserve)
            if excess <= 0:
                return prompt
            assert self.bound is not None  # or nothing would exceed
            longest = max(range(len(kept)), key=lambda i: len(kept[i].text))
            tokens = self.bound.count_tokens(kept[longest].text) - excess - 2
            if tokens < 1:
                what = f"no room for a passage in the model's context of {self.bound.context} tokens"
                raise DataError(what, where=f"passage {kept[longest].id}", hint="use a model with a longer context")
            cut = self.bound.truncate(kept[longest].text, tokens)
            kept[longest] = msgspec.structs.replace(kept[longest], text=cut)

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
        return self.wrap(self.template.before + evidence + self.template.question.format(question=question))

    def _untitled(self, n: int, passage: Passage) -> str:
        """The pseudo-passage has no title: no empty title line either, where a title has a line of its own."""
        template = self.template.passage if self.form == "chat" else self.template.passage.replace("{title}\n", "")
        return template.format(n=n, title="", text=passage.text)


def own_form(lm: object) -> PromptForm:
    """The form of a model's prompts where none is asked for: completion, which small models answer best (see above);
    chat behind an endpoint."""
    return "chat" if isinstance(lm, ChatFirst) and lm.chat_first else "completion"


def for_model(form: str | None, lm: object) -> Prompts:
    """The prompts of a form for a model: inside its chat template for `chat`, cut to its context where it has one.

    Args:
        form: completion, chat or instruction_first; None is the model's own.

    Raises:
        ConfigError: no such form, or `chat` for a model without a chat template.
    """
    form = own_form(lm) if form is None else form
    if form not in TEMPLATES:
        hint = "use completion, chat or instruction_first"
        raise ConfigError(f"unknown prompt form {form!r}", where="prompt", hint=hint)
    prompts = Prompts(form=form, template=TEMPLATES[form])
    if isinstance(lm, Windowed):
        prompts = replace(prompts, bound=lm)
    if form == "chat" and isinstance(lm, Chat):
        prompts = replace(prompts, wrap=lm.render_chat)
    return prompts


# Between the choices of a question, where a selector reads them behind it.
_OR = " or "


def question_with_choices(question: str, choices: Sequence[str] | None) -> str:
    """What a selector reads of a question with choices: "question\\nA or B or C"; without any, the question.

    >>> question_with_choices("Is it?", ["yes", "no"])
    'Is it?\\nyes or no'
    """
    return f"{question.strip()}\n{_OR.join(choice.strip() for choice in choices)}" if choices else question


def split_choices(question: str) -> tuple[str, list[str]]:
    """The question and its choices, none where it has none: what `question_with_choices` joined.

    >>> split_choices("Is it?\\nyes or no")
    ('Is it?', ['yes', 'no'])
    """
    first, line, last = question.rpartition("\n")
    return (first, last.split(_OR)) if line and _OR in last else (question, [])


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
