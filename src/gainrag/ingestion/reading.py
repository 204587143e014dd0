"""Reading what others wrote: corpora, questions, and retrieval results, checked one by one.

Formats: the JSON lines of `gainrag.records` (plain, .gz, or `-` for standard input) or the same in one JSON array,
under others' names too (`gainrag.ingestion.names`); the Wikipedia split of DPR (`psgs_w100.tsv`, also .gz); DPR's and
Contriever's retrieval results. Every error names file, line and field; nothing is dropped on the way.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from gainrag.errors import DataError
from gainrag.files import decoding
from gainrag.files.streams import fit, read_blocks, read_values
from gainrag.ingestion.names import NAMES, ours
from gainrag.metrics import mark_answers
from gainrag.records import Passage, Question, Record, Retrieved, check_answers

TSV_HEADER = ["id", "text", "title"]
_IDS = {"id", *NAMES[Retrieved]["id"]}
# More of them on end than any table has: the file was made to keep a reader busy.
_BLANK_ROWS = 1_000_000


def read_passages(path: str | Path) -> Iterator[Passage]:
    """Stream a corpus: JSON lines or one JSON array, or DPR's TSV (columns id, text, title) where the name ends in .tsv
    or .tsv.gz.

    Held in memory: the ids alone, to find duplicates; of an array, all of it.

    Args:
        path: the corpus file; `-` is standard input (JSON lines).

    Raises:
        DataError: the file is missing or empty, a line is malformed, a passage has no id or no text, or an id comes
            twice; with file, line and field.
    """
    tsv = str(path).endswith((".tsv", ".tsv.gz"))
    values = _tsv_values(path) if tsv else ours(path, _values(path, Passage), Passage)
    for _, passage in fit(path, values, Passage):
        yield passage


def read_questions(path: str | Path, *, need_answers: bool) -> list[Question]:
    """Read questions from JSON lines or one JSON array.

    Args:
        path: the file; `-` is standard input.
        need_answers: every question must have an answer, and none may be blank.

    Raises:
        DataError: the file is missing or empty, a line is malformed, a question or a needed answer is empty, or an
            id comes twice; with file, line and field.
    """
    questions: list[Question] = []
    for where, question in fit(path, ours(path, _values(path, Question), Question), Question):
        if need_answers:
            check_answers(question, where)
        questions.append(question)
    return questions


def read_retrieved(path: str | Path, *, need_answers: bool) -> list[Retrieved]:
    """Read questions with their candidate passages: JSON lines, or one JSON array as DPR writes it.

    | | JSON lines | JSON array (DPR) |
    |---|---|---|
    | id | needed | where there is none, the position in the array, from 0: DPR's results have no ids |
    | ctx's gold-answer mark | `hasanswer`; where there is none, made from the answers | the same |
    | errors name | file and line | file and record, from 1 |

    Args:
        path: the file; plain, .gz, or `-` for standard input.
        need_answers: every question must have an answer, and none may be blank.

    Raises:
        DataError: the file is missing or empty, a record is malformed, has no candidates, a candidate has no text
            or a score that is not finite, or an id comes twice; with file, line and field.
    """
    records: list[Retrieved] = []
    for where, record in fit(path, ours(path, _values(path, Retrieved), Retrieved), Retrieved):
        if need_answers:
            check_answers(record, where)
        if not record.ctxs:
            raise DataError("field ctxs is empty", where=where, hint="retrieve at least one passage for the question")
        # Another retriever's file may have no marks, and relevance is learned from them.
        mark_answers([ctx for ctx in record.ctxs if ctx.hasanswer is None], record.answers)
        records.append(record)
    return records


def _values(path: str | Path, kind: type[Record]) -> Iterator[tuple[str, object]]:
    """(place, decoded JSON) of a file."""
    for where, position, raw in read_values(path):
        value = decoding.decode(raw, where)
        if kind is Retrieved and position is not None and isinstance(value, dict) and _IDS.isdisjoint(value):
            value = {"id": str(position), **value}
        yield where, value


def _tsv_values(path: str | Path) -> Iterator[tuple[str, object]]:
    """DPR's file is what a csv writer makes with tabs: fields with quotes in them are quoted, quotes doubled.

    Read strictly: a stray quote would otherwise swallow the lines up to the next one.
    """
    lines = (line.decode() for _, line in decoding.lines(path, read_blocks(path), blank=True))
    rows = csv.reader(lines, delimiter="\t", strict=True)
    number, blank = 1, 0  # the row's first line: a quoted field may go on over several
    try:
        for row in rows:
            where = f"{path}:{number}"
            blank = 0 if row else blank + 1
            if number == 1:
                if row != TSV_HEADER:
                    raise DataError(_header(row), where=where, hint="give DPR's psgs_w100.tsv")
            elif row:
                if len(row) != len(TSV_HEADER):
                    what = f"{len(row)} fields and not {len(TSV_HEADER)}"
                    raise DataError(what, where=where, hint="columns: id, text, title")
                yield where, dict(zip(TSV_HEADER, row, strict=True))
            elif blank > _BLANK_ROWS:
                raise DataError(f"{blank} blank lines", where=where, hint="get the file again")
            number = rows.line_num + 1
    except csv.Error as error:
        raise DataError(f"no TSV: {error}", where=f"{path}:{number}", hint="quote fields as csv does") from None
    except UnicodeDecodeError as error:
        found = decoding.guess(error.object[: decoding.BLOCK]) or (f"{error.reason}", "convert the file")
        raise DataError(f"no UTF-8: looks like {found[0]}", where=f"{path}:{number}", hint=found[1]) from None


def _header(row: list[str]) -> str:
    return f"the header is {str(row)[:200]} and not {TSV_HEADER}"
