"""The official releases of six data sets -> questions and passages."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec

from gainrag.errors import ConfigError, DataError, unknown
from gainrag.files.decoding import decode
from gainrag.files.progress import progress
from gainrag.files.streams import distinct, read_lines
from gainrag.ingestion import files, hub
from gainrag.ingestion.releases import RELEASES, Release
from gainrag.records import Passage, Question, check
from gainrag.settings import Name, checked

Unanswered = Literal["error", "skip", "keep"]


@dataclass
class Ingested:
    """A data set as records: questions by split ("" where none was named), and the passages they come with.

    `passages` is the closed corpus of HotpotQA, 2WikiMultiHopQA and SQuAD, empty for the others. `sources` are the
    files read, by split (none from the hub), `counts` what was done on the way, by what it is.
    """

    questions: dict[str, list[Question]] = field(default_factory=dict)
    passages: list[Passage] = field(default_factory=list)
    sources: dict[str, Path] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        """One line a figure."""
        lines = {f"{split} questions".strip(): len(found) for split, found in self.questions.items()}
        lines |= {"passages": len(self.passages)} if self.passages else {}
        return "\n".join(f"{count} {what}" for what, count in {**lines, **self.counts}.items())


@checked
def ingest(
    name: str,
    source: str | Path | None = None,
    *,
    split: Name | Sequence[Name] | None = None,
    unanswered: Unanswered = "error",
    aliases: Name | None = None,
) -> Ingested:
    """Read a data set's official release: a file, a folder of its files, or (without a source) the hub's copy.

    Passages that several questions, or splits, come with are merged: one is the same where title and text are. What
    is read is held in memory.

    Args:
        name: hotpotqa, 2wikimultihopqa, nq, triviaqa, webquestions or squad.
        source: an official file or a folder that holds them under their own names, plain or .gz.
        split: train, dev or test, as the data set has it; not needed for a single file.
        unanswered: what becomes of a question without an answer: error, skip (they are counted) or keep.
        aliases: 2WikiMultiHopQA's id_aliases.json, whose names for the answer become answers, too.

    Raises:
        ConfigError: no such data set or split, no split where one is needed, or aliases for another data set.
        DataError: a file is missing, malformed or empty, a question is blank, has no answer, or has the id of another.
    """
    if name not in RELEASES:
        raise ConfigError(unknown("data set", name, RELEASES), where="ingest")
    release = RELEASES[name]
    if aliases and name != "2wikimultihopqa":
        raise ConfigError(f"{name} has no aliases", where="aliases", hint="they belong to 2wikimultihopqa")
    if unanswered not in get_args(Unanswered):
        raise ConfigError(unknown("choice", unanswered, get_args(Unanswered)), where="unanswered")
    names = _aliases(aliases) if aliases else None
    found = Ingested()
    corpus: dict[str, Passage] = {}
    for part, entries in _sources(release, source, split, found.sources).items():
        questions: list[Question] = []
        places: dict[str, str | None] = {}
        for where, entry in progress(entries, f"reading {name}", unit="entries"):
            new, passages = _read_entry(release, entry, where)
            for passage in passages:
                if not passage.text:
                    found.counts["passages without text left out"] += 1
                elif corpus.setdefault(passage.id, passage) is not passage:
                    found.counts["duplicate passages merged"] += 1
            for question in new:
                if not release.has_ids:
                    question.id = _unused(question.id, places)
                if names is not None:
                    found.counts["answers added from the aliases"] += _add_aliases(question, names, where)
                # An article holds many questions: the id tells which.
                at = f"{where}, question {question.id!r}"
                check(question, at)
                distinct(question, at, places)
                if not question.answers:
                    _unanswered(unanswered, found.counts, at)
                if question.answers or unanswered == "keep":
                    questions.append(question)
        if not questions:
            what = f"none of the {len(places)} questions has an answer"
            raise DataError(what, where=f"{name} {part}".strip(), hint="--unanswered keep, to answer them alone")
        found.questions[part] = questions
    found.passages = list(corpus.values())
    return found


def _sources(
    release: Release, source: str | Path | None, split: str | Sequence[str] | None, used: dict[str, Path]
) -> dict[str, Iterator[tuple[str, Any]]]:
    """The entries of each split; `used` gets the files."""
    wanted = [split] if isinstance(split, str) else list(split or ())
    available = release.hub_splits if source is None else release.files
    for part in wanted:
        if part not in available:
            raise ConfigError(unknown("split", part, available), where=f"ingest {release.name}")
    if len(set(wanted)) < len(wanted):
        raise ConfigError("a split is named twice", where=f"ingest {release.name}", hint="name each once")
    if source is not None and not Path(source).is_dir():
        if len(wanted) > 1:
            raise ConfigError(
                f"one file for {len(wanted)} splits", where=str(source), hint="name the folder that holds the files"
            )
        part = wanted[0] if wanted else ""
        used[part] = Path(source)
        return {part: files.entries(release, source)}
    if not wanted:
        raise ConfigError("no split is named", where=f"ingest {release.name}", hint=f"one of {', '.join(available)}")
    if source is None:
        return {part: hub.entries(release, part) for part in wanted}
    used.update({part: files.find(release, source, part) for part in wanted})
    return {part: files.entries(release, used[part]) for part in wanted}


def _read_entry(release: Release, entry: Any, where: str) -> tuple[list[Question], list[Passage]]:
    try:
        return release.read(entry, release.name)
    except msgspec.ValidationError as error:
        raise DataError(str(error), where=where, hint=f"is this a file of {release.name}?") from None


def _unanswered(choice: Unanswered, counts: Counter[str], where: str) -> None:
    if choice == "error":
        hint = "--unanswered skip leaves such questions out, --unanswered keep keeps them"
        raise DataError("the question has no answer", where=where, hint=hint)
    counts[f"questions without an answer {'left out' if choice == 'skip' else 'kept'}"] += 1


def _unused(id: str, taken: Collection[str]) -> str:
    """An id made of the question's text, numbered where the question comes again."""
    again = (f"{id}-{n}" for n in itertools.count(2))
    return id if id not in taken else next(other for other in again if other not in taken)


class _Alias(msgspec.Struct):
    """A line of id_aliases.json: other names of a Wikidata entity, and what its people are called."""

    Q_id: str
    aliases: list[str]
    demonyms: list[str]


def _aliases(path: str | Path) -> dict[str, list[str]]:
    found = {}
    for number, line in read_lines(path):
        alias: _Alias = decode(line, f"{path}:{number}", kind=_Alias, hint="give 2Wiki's id_aliases.json")
        found[alias.Q_id] = [*alias.aliases, *alias.demonyms]
    if not found:
        raise DataError("the file is empty", where=str(path), hint="it should hold aliases")
    return found


def _add_aliases(question: Question, names: dict[str, list[str]], where: str) -> int:
    """Add the answer's other names, as the official evaluation does, and return how many were new."""
    if "answer_id" not in question.extra:
        raise DataError(
            "field answer_id is missing", where=where, hint="aliases need the release with ids, data_ids_april7.zip"
        )
    before = len(question.answers)
    if before:
        others = (name.strip() for name in names.get(question.extra["answer_id"] or "", ()))
        question.answers = list(dict.fromkeys([*question.answers, *filter(None, others)]))
    return len(question.answers) - before
