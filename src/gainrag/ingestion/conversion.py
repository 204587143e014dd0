"""Others' files -> questions.jsonl and corpus.jsonl, row by row: no more is held in memory than ids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, get_args
from zlib import crc32

from gainrag.errors import ConfigError, DataError, unknown
from gainrag.files.places import check_output
from gainrag.files.progress import progress
from gainrag.files.streams import distinct, open_output
from gainrag.ingestion.foreign import Entry, Format, entries
from gainrag.ingestion.tables import parse_map
from gainrag.records import Passage, Question, check, encode
from gainrag.settings import Name, checked


@dataclass
class Converted:
    """What was written: the files with their numbers of records, and what was done on the way, by what it is."""

    files: dict[str, int] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        """One line a figure."""
        what = {"corpus": "passages"}
        lines = [f"{count} {what.get(name, 'questions')} in {name}" for name, count in self.files.items()]
        return "\n".join([*lines, *(f"{count} {what}" for what, count in self.counts.items() if count)])


@checked
def convert(
    format: str,
    path: str | Path,
    out: str | Path,
    suffix: str = ".jsonl",
    *,
    map: Name | Sequence[Name] | None = None,
    split: Name | Sequence[Name] | None = None,
) -> Converted:
    """Read questions and passages in another's format into OUT/questions.jsonl (of several splits: train.jsonl ..) and
    OUT/corpus.jsonl; whole or not at all.

    Args:
        suffix: what the files' names end in: .jsonl or .jsonl.gz.
        map: a column of another name: question=query, answers=golden_answers, text=body, id=.., title=.., choices=..
        split: the splits wanted, where the data set has any [all].

    Raises:
        ConfigError: no such format or split, or a mapping that is none.
        DataError: a file is missing or malformed, a record is blank, or two of one id differ.
    """
    if format not in get_args(Format):
        raise ConfigError(unknown("format", format, get_args(Format)), where="ingest")
    known: Format = format  # type: ignore[assignment]
    splits = [split] if isinstance(split, str) else list(split or ())
    rows = entries(known, path, parse_map(map), splits)
    with ExitStack() as stack:
        writer = _Writer(stack, Path(out), suffix, source=path)
        for entry in progress(rows, f"reading {format}", unit="rows"):
            writer.add(entry)
        if not writer.found.files:
            raise DataError("no questions and no passages", where=str(path), hint=f"it should hold {format} data")
    return writer.found


class _Writer:
    """The files that are being written. They appear when all rows were read."""

    def __init__(self, stack: ExitStack, out: Path, suffix: str, source: str | Path) -> None:
        self.found = Converted()
        self._stack, self._out, self._suffix, self._source = stack, out, suffix, source
        self._streams: dict[str, IO[bytes]] = {}
        self._passages: dict[str, int] = {}
        self._questions: dict[str, dict[str, str | None]] = {}

    def add(self, entry: Entry) -> None:
        """Write what a row holds.

        Raises:
            DataError: a record is blank, a question's id comes twice, or a passage's with another text.
        """
        for passage in entry.passages:
            self._add_passage(passage, entry.where)
        for question in entry.questions:
            check(question, entry.where)
            distinct(question, entry.where, self._questions.setdefault(entry.split, {}))
            if not question.answers:
                self.found.counts["questions without an answer: training and evaluation need one"] += 1
            self._write(entry.split or "questions", question)
        if not entry.passages and not entry.questions:
            self.found.counts["questions left out, no split has a judgement for them"] += 1

    def _add_passage(self, passage: Passage, where: str) -> None:
        if not passage.text.strip():
            self.found.counts["passages without text left out"] += 1
            return
        check(passage, where)
        own, before = crc32(f"{passage.title}\n{passage.text}".encode()), self._passages.get(passage.id)
        if before not in (None, own):
            what = f"two passages of the id {passage.id!r} with different texts"
            raise DataError(what, where=where, hint="ids must differ; rename one")
        if before is not None:
            self.found.counts["passages that were there before merged"] += 1
            return
        self._passages[passage.id] = own
        self._write("corpus", passage)

    def _write(self, name: str, record: Passage | Question) -> None:
        if name not in self._streams:
            path = self._out / f"{name}{self._suffix}"
            check_output(path, [self._source])
            self._streams[name] = self._stack.enter_context(open_output(path))
            self.found.files[name] = 0
        self._streams[name].write(encode(record))
        self.found.files[name] += 1
