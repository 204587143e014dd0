"""Reading what others wrote: corpora, questions, and retrieval results, checked line by line.

Formats: the JSON lines of `gainrag.records` (plain, .gz, or `-` for standard input), the Wikipedia split of DPR
(`psgs_w100.tsv`, also .gz), and DPR's and Contriever's retrieval results. Every error names file, line and field;
nothing is dropped on the way.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from gainrag.errors import DataError
from gainrag.files.streams import open_input, read_lines
from gainrag.metrics import mark_answers
from gainrag.records import Passage, Question, Record, Retrieved, from_builtins

R = TypeVar("R", bound=Record)

TSV_HEADER = ["id", "text", "title"]


def read_passages(path: str | Path) -> Iterator[Passage]:
    """Stream a corpus: JSON lines, or DPR's TSV (columns id, text, title) where the name ends in .tsv or .tsv.gz.

    Held in memory: the ids alone, to find duplicates.

    Args:
        path: the corpus file; `-` is standard input (JSON lines).

    Raises:
        DataError: the file is missing or empty, a line is malformed, a passage has no id or no text, or an id comes
            twice; with file, line and field.
    """
    tsv = str(path).endswith((".tsv", ".tsv.gz"))
    seen: set[str] = set()
    for number, passage in _tsv_passages(path) if tsv else _json_lines(path, Passage):
        where = f"{path}:{number}"
        _check_id(passage.id, where, "id")
        if passage.id in seen:
            raise _duplicate(passage.id, where, "passage")
        seen.add(passage.id)
        if not passage.text.strip():
            raise DataError("field text is empty", where=where, hint="remove the passage or give it a text")
        yield passage
    if not seen:
        raise _empty(path, "passages")


def read_questions(path: str | Path, *, need_answers: bool) -> list[Question]:
    """Read questions from JSON lines.

    Args:
        path: the file; `-` is standard input.
        need_answers: every question must have an answer, and none may be blank.

    Raises:
        DataError: the file is missing or empty, a line is malformed, a question or a needed answer is empty, or an
            id comes twice; with file, line and field.
    """
    questions: list[Question] = []
    lines: dict[str, str] = {}
    for number, question in _json_lines(path, Question):
        check_question(question, f"{path}:{number}", lines, need_answers=need_answers)
        questions.append(question)
    if not questions:
        raise _empty(path, "questions")
    return questions


def read_retrieved(path: str | Path, *, need_answers: bool) -> list[Retrieved]:
    """Read questions with their candidate passages: JSON lines, or one JSON array as DPR writes it.

    | | JSON lines | JSON array (DPR) |
    |---|---|---|
    | id | needed | where there is none, the position in the array, from 0: DPR's results have no ids |
    | scores | number, or a string that is one | the same |
    | ctx's gold-answer mark | `hasanswer` or `has_answer`; where there is none, made from the answers | the same |
    | errors name | file and line | file and record, from 1 |

    Args:
        path: the file; plain, .gz, or `-` for standard input.
        need_answers: every question must have an answer, and none may be blank.

    Raises:
        DataError: the file is missing or empty, a record is malformed, has no candidates, a candidate has no text
            or a score that is not finite, or an id comes twice; with file, line and field.
    """
    records: list[Retrieved] = []
    places: dict[str, str] = {}
    for where, value in _retrieved_values(path):
        record = _convert(Retrieved, _one_spelling(value), where)
        check_question(record, where, places, need_answers=need_answers)
        _check_candidates(record, where)
        # Another retriever's file may have no marks, and relevance is learned from them.
        mark_answers([ctx for ctx in record.ctxs if ctx.hasanswer is None], record.answers)
        records.append(record)
    if not records:
        raise _empty(path, "retrieved questions")
    return records


def _json_lines(path: str | Path, kind: type[R]) -> Iterator[tuple[int, R]]:
    for number, line in read_lines(path):
        where = f"{path}:{number}"
        yield number, _convert(kind, _decode(line, where), where)


def _decode(line: bytes, where: str) -> object:
    try:
        return msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataError(f"no JSON: {error}", where=where, hint="one JSON object a line") from None


def _convert(kind: type[R], value: object, where: str) -> R:
    try:
        return from_builtins(kind, value)
    except msgspec.ValidationError as error:
        raise DataError(str(error), where=where, hint=f"see the record {kind.__name__} in docs/records.md") from None


def _tsv_passages(path: str | Path) -> Iterator[tuple[int, Passage]]:
    """DPR's file is what a csv writer makes with tabs: fields with quotes in them are quoted, quotes doubled.

    Read strictly: a stray quote would otherwise swallow the lines up to the next one.
    """
    with open_input(path) as raw, io.TextIOWrapper(raw, encoding="utf-8", newline="") as stream:
        rows = csv.reader(stream, delimiter="\t", strict=True)
        number = 1  # the row's first line: a quoted field may go on over several
        try:
            for row in rows:
                where = f"{path}:{number}"
                if number == 1:
                    if row != TSV_HEADER:
                        raise DataError(
                            f"the header is {row} and not {TSV_HEADER}", where=where, hint="give DPR's psgs_w100.tsv"
                        )
                elif row:
                    if len(row) != len(TSV_HEADER):
                        raise DataError(
                            f"{len(row)} fields and not {len(TSV_HEADER)}", where=where, hint="columns: id, text, title"
                        )
                    yield number, Passage(id=row[0], text=row[1], title=row[2])
                number = rows.line_num + 1
        except csv.Error as error:
            raise DataError(f"no TSV: {error}", where=f"{path}:{number}", hint="quote fields as csv does") from None
        except UnicodeDecodeError as error:
            raise DataError(f"no UTF-8: {error.reason}", where=f"{path}:{number}", hint="convert the file") from None
        except (gzip.BadGzipFile, EOFError, OSError, zlib.error) as error:
            raise DataError(
                f"cannot be read past this line ({error})", where=f"{path}:{number}", hint="get the file again"
            ) from None


def _retrieved_values(path: str | Path) -> Iterator[tuple[str, object]]:
    """(where, decoded record), of JSON lines or of one array."""
    lines = read_lines(path)
    for number, line in lines:
        if number == 1 and line.lstrip().startswith(b"["):
            yield from _array_values(path, line + b"".join(rest for _, rest in lines))
            return
        where = f"{path}:{number}"
        value = _decode(line, where)
        if isinstance(value, dict) and "id" not in value:
            raise DataError("Object missing required field `id`", where=where, hint="give every question an id")
        yield where, value


def _array_values(path: str | Path, text: bytes) -> Iterator[tuple[str, object]]:
    try:
        values = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataError(f"no JSON: {error}", where=str(path), hint="one JSON array, or one object a line") from None
    for position, value in enumerate(values):
        if isinstance(value, dict):
            # A number as id is common there, too.
            value["id"] = str(value.get("id", position)) if isinstance(value.get("id", 0), int) else value["id"]
        yield f"{path}: record {position + 1}", value


def _one_spelling(value: object) -> object:
    """DPR marks a passage with a gold answer as `has_answer`, Contriever as `hasanswer`."""
    ctxs: Any = value.get("ctxs") if isinstance(value, dict) else None
    for ctx in ctxs if isinstance(ctxs, list) else ():
        if isinstance(ctx, dict) and "has_answer" in ctx and "hasanswer" not in ctx:
            ctx["hasanswer"] = ctx.pop("has_answer")
    return value


def check_question(question: Question, where: str, seen: dict[str, str], *, need_answers: bool) -> None:
    """Check a question against those before it: `seen` has their ids and places, and gets this one's.

    Raises:
        DataError: the id is empty or taken, the question is blank, or it lacks an answer that it needs.
    """
    _check_id(question.id, where, "id")
    if question.id in seen:
        raise _duplicate(question.id, where, "question", seen[question.id])
    seen[question.id] = where
    if not question.question.strip():
        raise DataError("field question is empty", where=where, hint="remove the line or give it a question")
    if need_answers:
        if not question.answers:
            raise DataError("field answers is empty", where=where, hint="training and evaluation need gold answers")
        for i, answer in enumerate(question.answers):
            if not answer.strip():
                raise DataError(f"field answers[{i}] is blank", where=where, hint="remove the blank answer")


def _check_candidates(record: Retrieved, where: str) -> None:
    if not record.ctxs:
        raise DataError("field ctxs is empty", where=where, hint="retrieve at least one passage for the question")
    seen: set[str] = set()
    for i, ctx in enumerate(record.ctxs):
        _check_id(ctx.id, where, f"ctxs[{i}].id")
        if ctx.id in seen:
            raise _duplicate(ctx.id, f"{where}, ctxs[{i}]", "passage")
        seen.add(ctx.id)
        if not ctx.text.strip():
            raise DataError(f"field ctxs[{i}].text is empty", where=where, hint="remove the passage or give it a text")
        if ctx.score is not None and not math.isfinite(ctx.score):
            raise DataError(f"field ctxs[{i}].score is {ctx.score}", where=where, hint="scores are finite numbers")


def _check_id(value: str, where: str, field: str) -> None:
    if not value.strip():
        raise DataError(f"field {field} is empty", where=where, hint="ids tell records apart")


def _duplicate(value: str, where: str, what: str, first: str | None = None) -> DataError:
    again = f" (first at {first})" if first else ""
    return DataError(f"duplicate {what} id {value!r}{again}", where=where, hint="ids must differ; remove or rename one")


def _empty(path: str | Path, what: str) -> DataError:
    return DataError("the file is empty", where=str(path), hint=f"it should hold {what}")
