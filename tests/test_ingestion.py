"""Readers: what comes in comes out, and whatever does not fit is an error with file, line and field."""

from __future__ import annotations

import csv
import gzip
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gainrag.errors import DataError
from gainrag.files.streams import write
from gainrag.ingestion import read_passages, read_questions, read_retrieved

PASSAGES = [
    {"id": "1", "title": "Emma", "text": "Emma is a novel by Jane Austen."},
    {"id": "2", "title": "", "text": 'He said "no"\tand left.', "section": "History"},
]
CTX = {"id": "1", "title": "Emma", "text": "Emma is a novel by Jane Austen.", "score": 1.5}
RETRIEVED = {"id": "q", "question": "Who wrote Emma?", "answers": ["Jane Austen"], "ctxs": [CTX]}

Write = Callable[..., Path]


@pytest.fixture
def lines(tmp_path: Path) -> Write:
    """Write values as JSON lines (strings as they are) and return the file."""

    def save(*values: Any, name: str = "in.jsonl") -> Path:
        file = tmp_path / name
        text = "".join((value if isinstance(value, str) else json.dumps(value)) + "\n" for value in values)
        file.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
        return file

    return save


def tsv(rows: list[list[str]]) -> str:
    out = io.StringIO()
    csv.writer(out, delimiter="\t", lineterminator="\n").writerows([["id", "text", "title"], *rows])
    return out.getvalue()


def with_ctx(**changes: Any) -> dict[str, Any]:
    return {**RETRIEVED, "ctxs": [{**CTX, **changes}]}


def fails(call: Callable[[], object], *parts: str) -> None:
    with pytest.raises(DataError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize("name", ["c.jsonl", "c.jsonl.gz"])
def test_passages_come_back_whole_and_in_order(lines: Write, tmp_path: Path, name: str) -> None:
    file = lines(*PASSAGES, name=name)
    passages = list(read_passages(file))
    assert [p.id for p in passages] == ["1", "2"]
    assert passages[1].extra == {"section": "History"}
    write(tmp_path / "again.jsonl", passages)
    assert [json.loads(line) for line in (tmp_path / "again.jsonl").read_text().splitlines()] == PASSAGES


def test_passages_are_streamed(lines: Write) -> None:
    stream = read_passages(lines(PASSAGES[0], "no JSON"))
    assert next(stream).id == "1"  # before the broken line is looked at
    fails(lambda: next(stream), "in.jsonl:2")


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stdin:
        buffer = io.BytesIO(json.dumps(PASSAGES[0]).encode())

    monkeypatch.setattr(sys, "stdin", Stdin)
    assert [p.title for p in read_passages("-")] == ["Emma"]


@pytest.mark.parametrize("name", ["psgs.tsv", "psgs.tsv.gz"])
def test_dpr_tsv_unquotes_as_csv_does(tmp_path: Path, name: str) -> None:
    rows = [
        ["1", 'Aaron ("Ahärôn") is\ta prophet.', 'The "Aaron" page'],
        ["2", "Two\nlines.", "B"],
        ["3", "Plain.", ""],
    ]
    data = tsv(rows).encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    assert [[p.id, p.text, p.title] for p in read_passages(tmp_path / name)] == rows


# Lines as they stand in psgs_w100.tsv: texts quoted, quotes doubled; titles only where they need it.
OFFICIAL_TSV = (
    "id\ttext\ttitle\n"
    '1\t"Aaron Aaron ( or ; ""Ahärôn"") is a prophet, high priest, and the brother of Moses."\tAaron\n'
    '2\t"He said\t""no"", twice."\t"""Heroes"" (album)"\n'
    "3\t\"Plain text, in quotes.\"\tThe \"A\" list\n"
)


@pytest.mark.parametrize("name", ["psgs_w100.tsv", "psgs_w100.tsv.gz"])
def test_dpr_lines_as_released_are_streamed(tmp_path: Path, name: str) -> None:
    data = (OFFICIAL_TSV + "4\tonly two\n").encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    stream = read_passages(tmp_path / name)
    found = [next(stream) for _ in range(3)]  # before the broken line is looked at
    assert found[0].text == 'Aaron Aaron ( or ; "Ahärôn") is a prophet, high priest, and the brother of Moses.'
    assert [p.title for p in found] == ["Aaron", '"Heroes" (album)', 'The "A" list']
    assert found[1].text == 'He said\t"no", twice.'
    fails(lambda: next(stream), f"{name}:5", "2 fields")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("1\tText\tTitle\n", ["p.tsv:1", "header"]),
        ("id\ttext\ttitle\n1\tA\tB\n2\tA\n", ["p.tsv:3", "2 fields"]),
        ("id\ttext\ttitle\n1\tA\tB\n1\tC\tD\n", ["p.tsv:3", "duplicate", "'1'"]),
        ("id\ttext\ttitle\n1\t \tB\n", ["p.tsv:2", "text"]),
        ('id\ttext\ttitle\n1\t"two\nlines"\tB\n2\t"stray" quote\tB\n3\tA\tB\n', ["p.tsv:4", "TSV"]),
        ('id\ttext\ttitle\n1\t"never closed\tB\n2\tA\tB\n', ["p.tsv:2", "TSV"]),
        ("id\ttext\ttitle\n", ["p.tsv", "empty"]),
        ("", ["p.tsv", "empty"]),
    ],
)
def test_malformed_tsv_names_the_line(tmp_path: Path, text: str, parts: list[str]) -> None:
    (tmp_path / "p.tsv").write_text(text)
    fails(lambda: list(read_passages(tmp_path / "p.tsv")), *parts)


def test_tsv_that_is_no_utf8(tmp_path: Path) -> None:
    (tmp_path / "p.tsv").write_bytes(b"id\ttext\ttitle\n1\tcaf\xe9\tB\n")
    fails(lambda: list(read_passages(tmp_path / "p.tsv")), "p.tsv", "UTF-8")


@pytest.mark.parametrize("name", ["c.jsonl.gz", "c.tsv.gz"])
def test_cut_off_gzip(tmp_path: Path, name: str) -> None:
    rows = [[str(i), f"Text {i * 7919}.", "T"] for i in range(5000)]
    text = tsv(rows) if "tsv" in name else "".join(json.dumps({"id": r[0], "text": r[1]}) + "\n" for r in rows)
    (tmp_path / name).write_bytes(gzip.compress(text.encode())[:-2000])
    fails(lambda: list(read_passages(tmp_path / name)), name + ":", "cannot be read past")


@pytest.mark.parametrize(
    ("second", "parts"),
    [
        ("{broken", [":2", "JSON"]),
        ({"id": "1", "text": "again"}, [":2", "duplicate", "'1'"]),
        ({"id": "2", "text": " \n"}, [":2", "text"]),
        ({"id": "", "text": "x"}, [":2", "id"]),
        ({"text": "x"}, [":2", "`id`"]),
        ({"id": "2", "text": 5}, [":2", "$.text"]),
        ([1, 2], [":2"]),
    ],
)
def test_malformed_passage_names_line_and_field(lines: Write, second: Any, parts: list[str]) -> None:
    fails(lambda: list(read_passages(lines(PASSAGES[0], second))), *parts)


@pytest.mark.parametrize("content", [[], ["", "  "]])
def test_empty_files(lines: Write, content: list[str]) -> None:
    file = lines(*content)
    fails(lambda: list(read_passages(file)), "in.jsonl", "empty")
    fails(lambda: read_questions(file, need_answers=False), "in.jsonl", "empty")
    fails(lambda: read_retrieved(file, need_answers=False), "in.jsonl", "empty")


def test_missing_file(tmp_path: Path) -> None:
    for name in ("none.jsonl", "none.tsv", "none.jsonl.gz"):
        fails(lambda file=tmp_path / name: list(read_passages(file)), name, "no such file")  # type: ignore[misc]


def test_questions_keep_unknown_keys(lines: Write) -> None:
    file = lines(
        {"id": "a", "question": "Who?", "answers": ["B"], "gold_titles": ["C"]}, "", {"id": "b", "question": "?"}
    )
    first, second = read_questions(file, need_answers=False)
    assert (first.answers, first.extra, second.answers) == (["B"], {"gold_titles": ["C"]}, [])


@pytest.mark.parametrize(
    ("answers", "parts"),
    [
        ([], ["answers"]),
        (None, ["answers"]),
        (["B", " "], ["answers[1]"]),
        (5, ["$.answers"]),
        ([1], ["$.answers[0]"]),
    ],
)
def test_answers_are_checked_where_they_are_needed(lines: Write, answers: Any, parts: list[str]) -> None:
    bad = {"id": "b", "question": "Who?"} if answers is None else {"id": "b", "question": "Who?", "answers": answers}
    file = lines({"id": "a", "question": "Who?", "answers": ["B"]}, "", bad)
    fails(lambda: read_questions(file, need_answers=True), "in.jsonl:3", *parts)
    if answers in ([], None):
        assert len(read_questions(file, need_answers=False)) == 2


def test_bad_questions(lines: Write) -> None:
    good = {"id": "a", "question": "Who?"}
    fails(lambda: read_questions(lines(good, good), need_answers=False), ":2", "duplicate", "'a'", ":1")
    fails(lambda: read_questions(lines(good, {"id": "b", "question": " "}), need_answers=False), ":2", "question")


def test_retrieved_round_trip(lines: Write, tmp_path: Path) -> None:
    marked = with_ctx(hasanswer=False)  # by somebody's own rule
    records = read_retrieved(lines(marked, name="r.jsonl.gz"), need_answers=True)
    write(tmp_path / "again.jsonl", records)
    assert json.loads((tmp_path / "again.jsonl").read_text()) == marked


def test_passages_without_a_mark_are_marked_where_the_answers_are_known(lines: Write) -> None:
    found = read_retrieved(lines({**RETRIEVED, "ctxs": [CTX, {**CTX, "id": "2", "text": "Rain."}]}), need_answers=True)
    assert [ctx.hasanswer for ctx in found[0].ctxs] == [True, False]
    found = read_retrieved(lines({**RETRIEVED, "answers": []}, name="asked.jsonl"), need_answers=False)
    assert found[0].ctxs[0].hasanswer is None


def test_dpr_array_gets_positions_as_ids(tmp_path: Path) -> None:
    ctx = {"id": "wiki:1", "title": "Emma", "text": "Emma.", "score": "81.5", "has_answer": True}
    items = [{"question": f"Who {i}?", "answers": ["A"], "ctxs": [ctx]} for i in range(3)]
    (tmp_path / "dpr.json").write_text(json.dumps(items, indent=4))
    records = read_retrieved(tmp_path / "dpr.json", need_answers=True)
    assert [r.id for r in records] == ["0", "1", "2"]
    assert (records[0].ctxs[0].score, records[0].ctxs[0].hasanswer) == (81.5, True)
    assert records[0].ctxs[0].extra == {}


def test_array_ids_are_kept(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps([{**RETRIEVED, "id": 7}, {**RETRIEVED, "id": "x"}]))
    assert [r.id for r in read_retrieved(tmp_path / "a.json", need_answers=True)] == ["7", "x"]


@pytest.mark.parametrize(
    ("bad", "parts"),
    [
        ({**RETRIEVED, "ctxs": []}, ["ctxs"]),
        ({key: value for key, value in RETRIEVED.items() if key != "ctxs"}, ["ctxs"]),
        ({**RETRIEVED, "answers": []}, ["answers"]),
        ({**RETRIEVED, "ctxs": [CTX, CTX]}, ["ctxs[1]", "duplicate"]),
        (with_ctx(text=""), ["ctxs[0].text"]),
        (with_ctx(text=None), ["ctxs[0].text"]),
        (with_ctx(score="high"), ["ctxs[0].score"]),
        (with_ctx(score="nan"), ["ctxs[0].score"]),
        (5, ["object"]),
    ],
)
def test_malformed_retrieved_names_record_and_field(lines: Write, tmp_path: Path, bad: Any, parts: list[str]) -> None:
    good = {**RETRIEVED, "id": "good"}
    fails(lambda: read_retrieved(lines(good, bad), need_answers=True), "in.jsonl:2", *parts)
    (tmp_path / "a.json").write_text(json.dumps([good, bad]))
    fails(lambda: read_retrieved(tmp_path / "a.json", need_answers=True), "a.json: record 2", *parts)


def test_retrieved_ids(lines: Write, tmp_path: Path) -> None:
    without = {key: value for key, value in RETRIEVED.items() if key != "id"}
    fails(lambda: read_retrieved(lines(without), need_answers=True), "in.jsonl:1", "`id`")
    fails(lambda: read_retrieved(lines(RETRIEVED, RETRIEVED), need_answers=True), "in.jsonl:2", "duplicate")
    (tmp_path / "a.json").write_text("[" + json.dumps(RETRIEVED))
    fails(lambda: read_retrieved(tmp_path / "a.json", need_answers=True), "a.json", "JSON")
