"""Entries of the official formats, typed, and the questions and passages that stand in them.

| format | an entry is | brings passages |
|---|---|---|
| `Hotpot` (HotpotQA, 2WikiMultiHopQA) | a question with its paragraphs | yes |
| `NQ` (NQ-open) | a question, without an id | no |
| `Trivia` (TriviaQA, unfiltered and rc) | a question; its documents are files apart | no |
| `WebQuestion` (WebQuestions) | a question, without an id | no |
| `Article` (SQuAD 1.1 and 2.0) | an article: paragraphs, each with questions | yes |

Questions, answers and texts lose white space at their ends, answers what repeats or is blank; nothing else changes.
What the hub has of the same data differs in shape alone: `*_row` turns a row of it into the official shape.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote

import msgspec
from msgspec import UNSET, UnsetType

from gainrag.records import Passage, Question


class Found(NamedTuple):
    """What stands in one entry: questions, and the passages they come with (with blank ones, for the count)."""

    questions: list[Question]
    passages: list[Passage]


class Hotpot(msgspec.Struct, kw_only=True):
    """HotpotQA's entry, which 2WikiMultiHopQA shares. The test files have neither answers nor supporting facts."""

    id: str = msgspec.field(name="_id")
    question: str
    context: list[tuple[str, list[str]]]
    answer: str | None = None
    answer_id: str | UnsetType | None = UNSET
    type: str | None = None
    level: str | None = None
    supporting_facts: list[tuple[str, int]] = []
    evidences: list[list[str]] = []


class NQ(msgspec.Struct, kw_only=True):
    """A line of NQ-open."""

    question: str
    answer: list[str] = []


class TriviaAnswer(msgspec.Struct, kw_only=True):
    """The value and its aliases. The normalised aliases are left: metrics normalise by themselves."""

    value: str = msgspec.field(name="Value")
    aliases: list[str] = msgspec.field(name="Aliases", default_factory=list)


class Trivia(msgspec.Struct, kw_only=True):
    """An entry under `Data`; the test files have no answer."""

    id: str = msgspec.field(name="QuestionId")
    question: str = msgspec.field(name="Question")
    source: str | None = msgspec.field(name="QuestionSource", default=None)
    answer: TriviaAnswer | None = msgspec.field(name="Answer", default=None)


class WebQuestion(msgspec.Struct, kw_only=True):
    """The official entry (utterance, targetValue), or the common one that lists its answers (question, answers)."""

    url: str | None = None
    utterance: str | None = None
    target: str | None = msgspec.field(name="targetValue", default=None)
    question: str | None = None
    answers: list[str] = []


class SquadAnswer(msgspec.Struct):
    """One annotator's answer."""

    text: str


class SquadQuestion(msgspec.Struct):
    """A question on a paragraph; unanswerable ones of SQuAD 2.0 have no answers."""

    id: str
    question: str
    answers: list[SquadAnswer] = []


class Paragraph(msgspec.Struct):
    """A paragraph with its questions."""

    context: str
    qas: list[SquadQuestion]


class Article(msgspec.Struct):
    """An entry under `data`. Titles are those of URLs: underscores, and percent signs in 1.1's training file."""

    title: str
    paragraphs: list[Paragraph]


def hotpot(entry: Hotpot, name: str) -> Found:
    """The question with its supporting facts, and its paragraphs."""
    extra: dict[str, Any] = {"question_type": entry.type, "level": entry.level}
    extra |= {"supporting_facts": entry.supporting_facts, "evidences": entry.evidences}
    extra |= {"gold_titles": list(dict.fromkeys(title for title, _ in entry.supporting_facts))}
    extra = {key: value for key, value in extra.items() if value}
    if entry.answer_id is not UNSET:
        extra["answer_id"] = entry.answer_id
    question = _question(entry.id, entry.question, [entry.answer or ""], extra)
    return Found([question], [passage(name, title, join(sentences)) for title, sentences in entry.context])


def nq(entry: NQ, name: str) -> Found:
    """The question with its answers."""
    return Found([_question(content_id(name, entry.question), entry.question, entry.answer, {})], [])


def trivia(entry: Trivia, name: str) -> Found:
    """The question; its answers are the value and the aliases."""
    answers = [entry.answer.value, *entry.answer.aliases] if entry.answer else []
    return Found([_question(entry.id, entry.question, answers, _given(question_source=entry.source))], [])


def web_question(entry: WebQuestion, name: str) -> Found:
    """The question with its answers.

    Raises:
        msgspec.ValidationError: neither form is complete, or the target value is no list of descriptions.
    """
    if entry.utterance is not None and entry.target is not None:
        text, answers = entry.utterance, descriptions(entry.target)
    elif entry.question is not None:
        text, answers = entry.question, entry.answers
    else:
        raise msgspec.ValidationError("Object has neither `utterance` and `targetValue` nor `question` and `answers`")
    return Found([_question(content_id(name, text), text, answers, _given(url=entry.url))], [])


def squad(entry: Article, name: str) -> Found:
    """All questions of an article, each with its paragraph's id, and the paragraphs."""
    title = unquote(entry.title).replace("_", " ").strip()
    questions, passages = [], []
    for paragraph in entry.paragraphs:
        context = passage(name, title, paragraph.context)
        passages.append(context)
        for q in paragraph.qas:
            extra = {"gold_titles": [title], "gold_passage": context.id}
            questions.append(_question(q.id, q.question, [answer.text for answer in q.answers], extra))
    return Found(questions, passages)


def join(sentences: Iterable[str]) -> str:
    """Sentences as one text, a space between two where the release has none (HotpotQA has it, 2Wiki has not).

    >>> join(["It rains.", " It pours.", "It stops."])
    'It rains. It pours. It stops.'
    """
    text = ""
    for sentence in sentences:
        text += sentence if not text or text[-1].isspace() or sentence[:1].isspace() else f" {sentence}"
    return text.strip()


_DESCRIPTION = re.compile(r'\(description (?:"((?:[^"\\]|\\.)*)"|([^()"]+))\)')


def descriptions(target: str) -> list[str]:
    r"""The answers in WebQuestions' target value.

    >>> descriptions('(list (description "Padm\u00e9 Amidala") (description Jaxon) (description "\\"Heroes\\""))')
    ['Padmé Amidala', 'Jaxon', '"Heroes"']

    Raises:
        msgspec.ValidationError: it is something else than a list of descriptions.
    """
    body = target.strip()
    rest = _DESCRIPTION.sub("", body)
    if "".join(rest.split()) != "(list)":
        wanted = "Expected `(list (description ..) ..)`"
        raise msgspec.ValidationError(f"{wanted}, got {target[:80]!r} - at `$.targetValue`")
    return [re.sub(r"\\(.)", r"\1", quoted) or plain for quoted, plain in _DESCRIPTION.findall(body)]


def hotpot_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A hub row: pairs are kept as two lists there, and triples as lists or as objects."""
    facts, context, triples = row["supporting_facts"], row["context"], row.get("evidences") or []
    return {
        **row,
        "_id": row["id"],
        "supporting_facts": list(zip(facts["title"], facts["sent_id"], strict=True)) if facts else [],
        "context": list(zip(context["title"], context["sentences"], strict=True)),
        "evidences": [list(triple.values()) if isinstance(triple, dict) else triple for triple in triples],
    }


def trivia_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A hub row: other names, and `<unk>` where the test split has no answer."""
    answer = row["answer"]
    known = answer["value"] != "<unk>"
    return {
        "QuestionId": row["question_id"],
        "Question": row["question"],
        "QuestionSource": row["question_source"],
        "Answer": {"Value": answer["value"], "Aliases": answer["aliases"]} if known else None,
    }


def squad_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A hub row is one question: an article of one paragraph."""
    answers = [{"text": text} for text in row["answers"]["text"]]
    qas = [{"id": row["id"], "question": row["question"], "answers": answers}]
    return {"title": row["title"], "paragraphs": [{"context": row["context"], "qas": qas}]}


def passage(name: str, title: str, text: str) -> Passage:
    """A passage of a release, its id made of what it says: the same text has the same id in every split."""
    title, text = title.strip(), text.strip()
    return Passage(id=content_id(name, f"{title}\n{text}"), title=title, text=text)


def content_id(name: str, text: str) -> str:
    """An id made of 64 bits of a text's SHA-256."""
    return f"{name}-{hashlib.sha256(text.strip().encode()).hexdigest()[:16]}"


def _question(id: str, text: str, answers: Iterable[str], extra: dict[str, Any]) -> Question:
    kept = dict.fromkeys(answer.strip() for answer in answers if answer.strip())
    return Question(id=id, question=text.strip(), answers=list(kept), extra=extra)


def _given(**fields: Any) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if value}
