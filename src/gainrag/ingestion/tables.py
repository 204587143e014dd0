"""Files of rows that others keep -> the objects in them, one after another: JSON lines, CSV or TSV, Parquet.

A row's place names the file and its line (of JSON lines), record or row, from 1. Parquet and lines are streamed; a JSON
array is held in memory.
"""

from __future__ import annotations

import ast
import csv
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from gainrag.errors import ConfigError, DataError, require, unknown
from gainrag.files import decoding
from gainrag.files.streams import input_errors, read_blocks, read_values

Table = Literal["jsonl", "csv", "parquet"]
Rows = Iterator[tuple[str, dict[str, Any]]]

ENDINGS: dict[Table, tuple[str, ...]] = {
    "jsonl": (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".ndjson"),
    "csv": (".csv", ".csv.gz", ".tsv", ".tsv.gz"),
    "parquet": (".parquet",),
}
# What a record takes from a row. What else a row holds is kept as it is.
FIELDS = ("id", "question", "answers", "choices", "title", "text")
# Bytes of a field; csv's own limit is below what a page of text has.
_FIELD = 16 << 20
_ROWS = 1000


def rows_of(path: str | Path, table: Table) -> Rows:
    """The rows of a file, or of a folder's files in the order of their names.

    Raises:
        DataError: there is no such file, none of this kind in the folder, or one is damaged.
    """
    read = {"jsonl": _json_rows, "csv": _csv_rows, "parquet": _parquet_rows}[table]
    for file in files_of(path, table):
        yield from read(file)


def files_of(path: str | Path, table: Table) -> list[Path]:
    """The file itself, or a folder's files of this kind.

    Raises:
        DataError: the folder has none.
    """
    path = Path(path)
    if not path.is_dir():
        return [path]
    found = sorted(file for file in path.iterdir() if file.name.endswith(ENDINGS[table]) and file.is_file())
    if not found:
        raise DataError(f"no {' or '.join(ENDINGS[table])} here", where=str(path), hint="name a file")
    return found


def _json_rows(path: Path) -> Rows:
    for where, _, raw in read_values(path):
        value = decoding.decode(raw, where)
        if not isinstance(value, dict):
            raise DataError(f"Expected `object`, got {value!r:.40}", where=where, hint="one JSON object a line")
        yield where, value


def _csv_rows(path: Path) -> Rows:
    """The first row names the columns; they are parted by what the first row has most of: comma, tab, or semicolon."""
    lines = (line for _, line in decoding.lines(path, read_blocks(path), blank=True))
    csv.field_size_limit(_FIELD)
    names: list[str] = []
    number = 1
    try:
        text = (line.decode() for line in lines)
        first = next(text, "")
        delimiter = max(",\t;", key=first.count)
        rows = csv.reader(_again(first, text), delimiter=delimiter, strict=True)
        for row in rows:
            where = f"{path}:{number}"
            number = rows.line_num + 1
            if not names:
                names = [name.strip() for name in row]
                if len(set(names)) < len(names) or "" in names:
                    what = f"the first row names the columns, and is {str(row)[:120]}"
                    raise DataError(what, where=where, hint="give each column a name of its own")
            elif row:
                if len(row) != len(names):
                    what = f"{len(row)} fields and not {len(names)}"
                    raise DataError(what, where=where, hint="quote fields that hold the delimiter or a line end")
                yield where, {name: cell for name, cell in zip(names, row, strict=True) if cell != ""}
    except csv.Error as error:
        raise DataError(f"no CSV: {error}", where=f"{path}:{number}", hint="quote fields as csv does") from None
    except UnicodeDecodeError as error:
        found = decoding.guess(error.object[: decoding.BLOCK]) or (error.reason, "convert the file")
        raise DataError(f"no UTF-8: looks like {found[0]}", where=f"{path}:{number}", hint=found[1]) from None


def _again(first: str, rest: Iterable[str]) -> Iterator[str]:
    yield first
    yield from rest


def _parquet_rows(path: Path) -> Rows:
    """Columns that a row has no value for are left out of it."""
    require("ingest", "pyarrow")
    import pyarrow
    from pyarrow import parquet

    with input_errors(path):
        os.stat(path)
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}: row {number}", {key: value for key, value in row.items() if value is not None}
    except (pyarrow.ArrowException, OSError) as error:
        what = f"no Parquet, or damaged behind row {number} ({str(error).splitlines()[0][:120]})"
        raise DataError(what, where=str(path), hint="get the file again") from None


def parse_map(given: Sequence[str] | str | None) -> dict[str, str]:
    """What `--map question=query` says: our field -> the column that has it.

    >>> parse_map(["question=query", "answers=output.answer"])
    {'question': 'query', 'answers': 'output.answer'}

    Raises:
        ConfigError: it has no such form, or names a field that no record has, or one twice.
    """
    found: dict[str, str] = {}
    for part in [given] if isinstance(given, str) else given or ():
        ours, equals, theirs = part.partition("=")
        if not equals or not theirs:
            raise ConfigError(f"{part!r} is no mapping", where="map", hint="--map question=COLUMN")
        if ours not in FIELDS:
            raise ConfigError(unknown("field", ours, FIELDS), where="map")
        if ours in found:
            raise ConfigError(f"{ours} is mapped twice", where="map", hint="map each field once")
        found[ours] = theirs
    return found


def mapped(rows: Rows, columns: dict[str, str]) -> Rows:
    """Rows with columns under our names. A column within another is named with a dot.

    Raises:
        DataError: the first row has no such column.
    """
    for number, (where, row) in enumerate(rows):
        taken = {}
        for ours, theirs in columns.items():
            found, value = _lookup(row, theirs)
            if not found and not number:
                raise DataError(unknown("column", theirs, row), where=where, hint=f"--map {ours}=COLUMN")
            if found:
                taken[ours] = value
        left = {key: value for key, value in row.items() if key not in columns.values() and key not in taken}
        yield where, {**taken, **left}


def _lookup(row: Any, name: str) -> tuple[bool, Any]:
    """(whether it is there, the value) of a column, or of one within others."""
    if isinstance(row, dict) and name in row:
        return True, row[name]
    head, dot, rest = name.partition(".")
    return _lookup(row[head], rest) if dot and isinstance(row, dict) and head in row else (False, None)


def as_list(value: Any) -> Any:
    """A list that a cell of a table spells out, in JSON or as Python writes it; anything else as it is.

    >>> as_list('["Emma", "1815"]'), as_list("['Emma']"), as_list("[sic] Emma")
    (['Emma', '1815'], ['Emma'], '[sic] Emma')
    """
    if not (isinstance(value, str) and value[:1] == "[" and value[-1:] == "]"):
        return value
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(value)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(found, list):
            return [str(item) if isinstance(item, int | float) else item for item in found]
    return value
