"""Rows in others' formats -> questions and passages.

| format | PATH | a row is | gold passages |
|---|---|---|---|
| beir | folder: corpus.jsonl, queries.jsonl, qrels/SPLIT.tsv | a passage, a query, a judgement | judged above 0 |
| flashrag | file, or folder of .jsonl | a question, or a passage whose title is the first line of `contents` | |
| dpr | file: .json, qas.csv, psgs_w100.tsv | a question with its contexts; a question; a passage | `positive_ctxs` |
| kilt | .jsonl | `input` and `output`; or a page of the knowledge source, each paragraph a passage | the provenance |
| rgb | .json(l) | a question with `positive` and `negative` texts | `positive` |
| jsonl, csv, parquet | file, or folder of them | a question, a passage, or a question with its text | that text |

A question's gold passages are in `gold_passages`, by id: `gainrag retrieve` marks them as `gold`.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from gainrag.errors import ConfigError, DataError, unknown
from gainrag.files.streams import read_lines
from gainrag.ingestion.formats import content_id
from gainrag.ingestion.names import NAMES, ours
from gainrag.ingestion.reading import read_passages
from gainrag.ingestion.tables import Rows, Table, as_list, files_of, mapped, rows_of
from gainrag.records import GOLD, Passage, Question, Record, from_builtins

Format = Literal["beir", "flashrag", "dpr", "kilt", "rgb", "jsonl", "csv", "parquet"]


class Entry(NamedTuple):
    """What a row holds, where it stands, and the split that its questions are of ("" where none is named)."""

    where: str
    questions: Sequence[Question] = ()
    passages: Sequence[Passage] = ()
    split: str = ""


def entries(format: Format, path: str | Path, columns: Mapping[str, str], splits: Sequence[str]) -> Iterator[Entry]:
    """What a file or folder in a format holds, row by row.

    Args:
        columns: our field -> their column, see `parse_map`.
        splits: those wanted, where the format has any; all when empty.

    Raises:
        DataError: it is missing or malformed, with place and field.
        ConfigError: there is no such split, or splits are named and the format has none.
    """
    path = Path(path)
    if format in ("beir", "flashrag"):
        return (_beir if format == "beir" else _flashrag)(path, columns, splits)
    if splits:
        raise ConfigError(f"{format} has no splits", where="split", hint="name the file of the split as PATH")
    if format == "dpr":
        return _dpr(path, columns)
    if format in ("kilt", "rgb"):
        rows = mapped(rows_of(path, "jsonl"), dict(columns))
        if format == "kilt":
            return (_kilt(where, row) for where, row in rows)
        return (_rgb(where, row) for where, row in _named(rows, path, Question))
    table: Table = format  # type: ignore[assignment]
    return _plain(rows_of(path, table), path, columns)


def _record(kind: type[Any], value: Any, where: str) -> Any:
    try:
        return from_builtins(kind, value)
    except msgspec.ValidationError as error:
        hint = "name the column with --map, for example --map question=query"
        raise DataError(str(error), where=where, hint=hint) from None


def _named(rows: Rows, path: object, kind: type[Record]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows under our names; which were others' is said once."""
    for where, row in ours(path, ((where, row) for where, row in rows), kind):
        assert isinstance(row, dict)
        yield where, row


def _peek(rows: Rows, path: Path) -> tuple[dict[str, Any], Rows]:
    """The first row, and all of them.

    Raises:
        DataError: there is none.
    """
    first = next(rows, None)
    if first is None:
        raise DataError("the file is empty", where=str(path), hint="it should hold questions or passages")

    def all_rows() -> Rows:
        yield first
        yield from rows

    return first[1], all_rows()


def _has(row: Mapping[str, Any], field: str, kind: type[Record]) -> bool:
    return field in row or any(name in row for name in NAMES[kind].get(field, ()))


def _plain(rows: Rows, path: Path, columns: Mapping[str, str]) -> Iterator[Entry]:
    """Rows of which the first says what all are: questions, passages, or questions with the text they are on."""
    first, rows = _peek(mapped(rows, dict(columns)), path)
    if "ctxs" in first or "positive_ctxs" in first:
        hint = "the stages read retrieval results as they stand; for DPR's training files: gainrag ingest dpr"
        raise DataError("the rows hold questions with their passages (ctxs)", where=str(path), hint=hint)
    asks, tells = _has(first, "question", Question), _has(first, "text", Passage)
    if not asks and not tells:
        what = f"neither a question nor a text among the columns: {', '.join(first)[:200]}"
        raise DataError(what, where=str(path), hint="--map question=COLUMN, or --map text=COLUMN")
    if not asks:
        for where, row in _named(rows, path, Passage):
            yield Entry(where, passages=[_passage(row, where)])
        return
    for where, row in _named(rows, path, Question):
        text = next((row.pop(name) for name in ("text", *NAMES[Passage]["text"]) if tells and name in row), None)
        title = row.pop("title", "") if text is not None else ""
        question = _question(row, where)
        if text is None:
            yield Entry(where, [question])
            continue
        passage = _passage({"title": title, "text": text}, where)
        question.extra[GOLD] = [passage.id]
        yield Entry(where, [question], [passage])


def _question(row: dict[str, Any], where: str) -> Question:
    """A question; without an id, its text gives it one."""
    for key in ("answers", "choices"):
        if key in row:
            # A cell that spells out a list may be in one by now.
            value = row[key]
            found = as_list(value[0] if isinstance(value, list) and len(value) == 1 else value)
            row[key] = [found] if isinstance(found, str | int | float) else found
    if isinstance(row.get("answers"), list):
        kept = dict.fromkeys(str(answer).strip() for answer in row["answers"] if str(answer).strip())
        row["answers"] = list(kept)
    if "id" not in row and isinstance(row.get("question"), str):
        row = {"id": content_id("q", row["question"]), **row}
    found_question: Question = _record(Question, row, where)
    return found_question


def _passage(row: dict[str, Any], where: str) -> Passage:
    """A passage; without an id, its title and text give it one."""
    if "id" not in row and isinstance(row.get("text"), str):
        row = {"id": content_id("p", f"{row.get('title') or ''}\n{row['text']}"), **row}
    found: Passage = _record(Passage, row, where)
    return found


# --- the formats with a shape of their own -------------------------------------------------------------------------


def _beir(path: Path, columns: Mapping[str, str], splits: Sequence[str]) -> Iterator[Entry]:
    corpus = _one_of(path, ("corpus.jsonl", "corpus.jsonl.gz"))
    queries = _one_of(path, ("queries.jsonl", "queries.jsonl.gz"))
    for where, row in _named(mapped(rows_of(corpus, "jsonl"), dict(columns)), corpus, Passage):
        yield Entry(where, passages=[_passage(row, where)])
    judged = {file.stem: file for file in sorted((path / "qrels").glob("*.tsv"))}
    for split in splits:
        if split not in judged:
            raise ConfigError(unknown("split", split, judged), where=str(path / "qrels"))
    wanted = {split: _qrels(file) for split, file in judged.items() if not splits or split in splits}
    for where, row in _named(rows_of(queries, "jsonl"), queries, Question):
        asked = {"id": row.get("id"), "question": row.get("text"), **{k: v for k, v in row.items() if k != "text"}}
        found = [split for split, gold in wanted.items() if asked["id"] in gold]
        if not wanted:
            yield Entry(where, [_question(asked, where)])
        for split in found:
            question = _question(dict(asked), where)
            question.extra = {**question.extra, GOLD: wanted[split][question.id]}
            yield Entry(where, [question], split=split)
        if wanted and not found:
            yield Entry(where, split="none of them")


def _qrels(path: Path) -> dict[str, list[str]]:
    """The passages judged above 0, by question: a header, then query-id, corpus-id, score; or TREC's four columns."""
    found: dict[str, list[str]] = {}
    for number, line in read_lines(path):
        cells = line.decode("utf-8", "replace").split()
        if len(cells) == 4:
            cells = [cells[0], *cells[2:]]
        try:
            score = float(cells[2]) if len(cells) == 3 else None
        except ValueError:
            score = None
        if score is None:
            if number == 1:
                continue
            hint = "query-id, corpus-id, score, with tabs between"
            raise DataError(f"no judgement: {line[:60]!r}", where=f"{path}:{number}", hint=hint)
        if score > 0:
            found.setdefault(cells[0], []).append(cells[1])
    return found


def _one_of(folder: Path, names: Sequence[str]) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise DataError(f"no {' or '.join(names)} here", where=str(folder), hint="name the data set's folder")


def _flashrag(path: Path, columns: Mapping[str, str], splits: Sequence[str]) -> Iterator[Entry]:
    files = files_of(path, "jsonl")
    by_name = {file.name.partition(".")[0]: file for file in files}
    for split in splits:
        if split not in by_name:
            raise ConfigError(unknown("split", split, by_name), where=str(path))
    for name, file in by_name.items():
        first, rows = _peek(mapped(rows_of(file, "jsonl"), dict(columns)), file)
        if _has(first, "question", Question):
            if not splits or name in splits:
                split = name if len(files) > 1 else ""
                yield from (entry._replace(split=split) for entry in _plain(rows, file, {}))
            continue
        for where, row in _named(_unpacked(rows), file, Passage):
            yield Entry(where, passages=[_passage(row, where)])


def _unpacked(rows: Rows) -> Rows:
    """FlashRAG's passages with their titles apart."""
    for where, row in rows:
        if isinstance(contents := row.pop("contents", None), str):
            title, line_end, text = contents.partition("\n")
            # Of one line alone it is not known what would be a title.
            row |= {"title": title.strip().strip('"'), "text": text} if line_end else {"text": contents}
        yield where, row


def _dpr(path: Path, columns: Mapping[str, str]) -> Iterator[Entry]:
    if path.name.endswith((".tsv", ".tsv.gz")):
        yield from (Entry(str(path), passages=[passage]) for passage in read_passages(path))
        return
    if path.name.endswith((".csv", ".csv.gz")):
        yield from _qas(path)
        return
    for where, row in _named(mapped(rows_of(path, "jsonl"), dict(columns)), path, Question):
        lists = {key: _dicts(row.pop(key, []), where, key) for key in list(row) if key.endswith("ctxs")}
        passages = {key: [_context(ctx, where) for ctx in ctxs] for key, ctxs in lists.items()}
        question = _question(row, where)
        question.extra[GOLD] = [passage.id for passage in passages.get("positive_ctxs", [])]
        yield Entry(where, [question], [passage for found in passages.values() for passage in found])


def _dicts(value: Any, where: str, field: str) -> list[dict[str, Any]]:
    if isinstance(value, list) and all(isinstance(item, dict) for item in value):
        return value
    raise DataError(f"Expected `array` of objects - at `$.{field}`", where=where, hint="give DPR's own file")


def _context(ctx: dict[str, Any], where: str) -> Passage:
    """A context as a passage; its scores are of its question, no part of the passage."""
    id = next((str(ctx[name]) for name in ("id", *NAMES[Passage]["id"]) if ctx.get(name) not in (None, "")), None)
    row = {"title": ctx.get("title") or "", "text": ctx.get("text")}
    return _passage({"id": id, **row} if id else row, where)


def _qas(path: Path) -> Iterator[Entry]:
    """DPR's questions: without a header, a question and a Python list of answers, a tab between."""
    for number, line in read_lines(path):
        where = f"{path}:{number}"
        cells = next(csv.reader([line.decode("utf-8", "replace").rstrip("\r\n")], delimiter="\t"))
        if len(cells) != 2:
            raise DataError(f"{len(cells)} fields and not 2", where=where, hint="a question, a tab, its answers")
        yield Entry(where, [_question({"question": cells[0], "answers": as_list(cells[1])}, where)])


def _kilt(where: str, row: dict[str, Any]) -> Entry:
    if "wikipedia_title" in row and "text" in row:  # the knowledge source
        page, title = str(row.get("wikipedia_id") or row.get("_id")), str(row["wikipedia_title"])
        paragraphs = row["text"] if isinstance(row["text"], list) else [row["text"]]
        texts = [(number, str(text).strip()) for number, text in enumerate(paragraphs)]
        found = [Passage(id=f"{page}#{number}", title=title, text=text) for number, text in texts if text]
        return Entry(where, passages=found)
    outputs = _dicts(row.pop("output", []), where, "output")
    answers = [output["answer"] for output in outputs if output.get("answer")]
    provenance = [place for output in outputs for place in output.get("provenance") or []]
    question = _question({"id": row.pop("id", None), "question": row.pop("input", None), "answers": answers}, where)
    titles = dict.fromkeys(place["title"] for place in provenance if place.get("title"))
    gold = [
        f"{place['wikipedia_id']}#{paragraph}"
        for place in provenance
        if place.get("wikipedia_id") and place.get("start_paragraph_id") is not None
        for paragraph in range(place["start_paragraph_id"], (place.get("end_paragraph_id") or 0) + 1)
    ]
    question.extra = {**row, **({"gold_titles": list(titles)} if titles else {})}
    if gold:
        question.extra[GOLD] = list(dict.fromkeys(gold))
    return Entry(where, [question])


def _rgb(where: str, row: dict[str, Any]) -> Entry:
    positive, negative = (list(_flat(row.pop(key, []))) for key in ("positive", "negative"))
    wrong = list(_flat(row.pop("positive_wrong", [])))
    if isinstance(row.get("answers"), list):
        row["answers"] = list(_flat(row["answers"]))
    question = _question(row, where)
    passages = [[_passage({"text": text}, where) for text in texts] for texts in (positive, negative, wrong)]
    question.extra[GOLD] = list(dict.fromkeys(passage.id for passage in passages[0]))
    return Entry(where, [question], [passage for found in passages for passage in found])


def _flat(value: Any) -> Iterator[Any]:
    """What is in lists within lists."""
    if isinstance(value, list):
        for item in value:
            yield from _flat(item)
    elif value is not None:
        yield value
