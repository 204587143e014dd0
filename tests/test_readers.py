"""Readers are total: from any bytes come right records or one line that says what, where, and what to do."""

from __future__ import annotations

import gzip
import json
import logging
import os
import threading
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gainrag.errors import DataError
from gainrag.files import decoding
from gainrag.files.streams import read, read_json, read_lines, write
from gainrag.ingestion import read_passages, read_questions, read_retrieved
from gainrag.records import Answer, Gained, GainRecord, Passage, Question, Record, Retrieved, Scored

Read = Callable[[Path], object]
READERS: dict[str, Read] = {
    "passages": lambda path: list(read_passages(path)),
    "questions": lambda path: read_questions(path, need_answers=False),
    "retrieved": lambda path: read_retrieved(path, need_answers=False),
    "gains": lambda path: list(read(path, GainRecord)),
    "answers": lambda path: list(read(path, Answer)),
    "json": read_json,
}
CTX = {"id": "p1", "title": "Emma", "text": "Emma is by Jane Austen.", "score": 1.5}
ASKED = {"id": "q1", "question": "Who wrote Emma?", "answers": ["Jane Austen"]}
GAIN: dict[str, Any] = {
    **ASKED,
    "kept": True,
    "prediction": "Jane Austen",
    "silver": 0,
    "ctxs": [
        {**CTX, "loss": {"0.0": 0.5, "0.5": 0.25}, "gain": 1.0},
        {**CTX, "id": "p2", "loss": {"0.0": 1.5, "0.5": 1.25}, "gain": 0.0},
    ],
    "loss_without": 2.0,
}
GOOD: dict[str, dict[str, Any]] = {
    "passages": {"id": "p1", "title": "Emma", "text": "Emma is by Jane Austen."},
    "questions": ASKED,
    "retrieved": {**ASKED, "ctxs": [CTX]},
    "gains": GAIN,
    "answers": {**ASKED, "prediction": "Jane", "ctxs": [CTX]},
    "json": {"a": 1},
}


def refused(call: Callable[[], object], *parts: str) -> str:
    with pytest.raises(DataError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    assert "Hint: " in message
    for part in parts:
        assert part in message
    return message


def outcome(reader: Read, path: Path) -> Any:
    """What is read, or None where it was refused as it should be."""
    try:
        return reader(path)
    except DataError as error:
        refusal = error
    assert str(path) in str(refusal)
    assert refusal.hint
    return None


def save(path: Path, *values: object) -> Path:
    path.write_text("".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values), encoding="utf-8")
    return path


# --- any bytes, any JSON -------------------------------------------------------------------------------------------

FAST = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
# Keys and values that readers look for turn up more often than chance would have them.
KEYS = st.sampled_from(
    [
        "id",
        "_id",
        "docid",
        "title",
        "text",
        "contents",
        "context",
        "question",
        "query",
        "answers",
        "answer",
        "golden_answers",
        "ctxs",
        "positive_ctxs",
        "score",
        "scores",
        "has_answer",
        "choices",
        "origin",
        "level",
        "kept",
        "prediction",
        "silver",
        "loss",
        "gain",
        "loss_without",
        "extra",
    ]
) | st.text(max_size=3)
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5)
)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=6), max_leaves=20
)


@pytest.mark.parametrize("reader", READERS)
@FAST
@given(data=st.binary(max_size=200), packed=st.booleans())
def test_any_bytes_are_refused_in_one_line_or_read(tmp_path: Path, reader: str, data: bytes, packed: bool) -> None:
    path = tmp_path / ("in.jsonl.gz" if packed else "in.jsonl")
    path.write_bytes(data)
    outcome(READERS[reader], path)


@pytest.mark.parametrize("reader", READERS)
@FAST
@given(changes=st.dictionaries(KEYS, JSON, max_size=4), drop=st.lists(KEYS, max_size=2), bare=st.booleans(), value=JSON)
def test_any_json_is_refused_in_one_line_or_read(
    tmp_path: Path, reader: str, changes: dict[str, Any], drop: list[str], bare: bool, value: Any
) -> None:
    """What is read can be written, and is read as the same again."""
    changed = {key: item for key, item in {**GOOD[reader], **changes}.items() if key not in drop}
    path = save(tmp_path / "in.jsonl", value if bare else changed)
    found = outcome(READERS[reader], path)
    if found is not None and reader != "json":
        write(tmp_path / "out.jsonl", found)
        again: Any = READERS[reader](tmp_path / "out.jsonl")
        assert again == found


def texts(least: int = 1) -> st.SearchStrategy[str]:
    return st.text(st.characters(exclude_categories=["Cs"]), min_size=least, max_size=12).filter(
        lambda text: bool(text.strip()) or not least
    )


EXTRA = st.dictionaries(st.text(max_size=4).map(lambda key: f"x{key}"), JSON, max_size=2)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
SHARED: dict[str, Any] = {
    "id": texts(),
    "question": texts(),
    "answers": st.lists(texts(), min_size=1, max_size=2),
    "choices": st.none() | st.lists(texts(), max_size=2),
    "extra": EXTRA,
}
PLAIN: dict[str, Any] = {"id": texts(), "title": texts(0), "text": texts(), "extra": EXTRA}
SCORED: dict[str, Any] = {
    **PLAIN,
    "origin": st.sampled_from(["corpus", "generated"]),
    "score": st.none() | FINITE,
    "hasanswer": st.booleans(),
    "scores": st.none() | st.dictionaries(texts(), FINITE, max_size=2),
    "gold": st.none() | st.booleans(),
}


def ctxs(kind: type[Scored], **more: Any) -> Any:
    return st.lists(st.builds(kind, **SCORED, **more), min_size=1, max_size=3, unique_by=lambda ctx: ctx.id)


RECORDS: dict[str, tuple[type[Record], Any]] = {
    "passages": (Passage, st.builds(Passage, **PLAIN)),
    "questions": (Question, st.builds(Question, **SHARED)),
    "retrieved": (Retrieved, st.builds(Retrieved, **SHARED, ctxs=ctxs(Scored))),
    "answers": (Answer, st.builds(Answer, **SHARED, prediction=texts(0), ctxs=ctxs(Scored))),
    "gains": (
        GainRecord,
        st.builds(
            GainRecord,
            **SHARED,
            kept=st.booleans(),
            prediction=texts(0),
            silver=st.just(0),
            level=st.sampled_from(["exact", "gold"]),  # the others have fields of their own
            ctxs=ctxs(Gained, gain=FINITE, loss=st.fixed_dictionaries({"0.0": FINITE, "0.5": FINITE})),
        ),
    ),
}


@pytest.mark.parametrize("reader", RECORDS)
@FAST
@given(data=st.data(), packed=st.booleans())
def test_what_is_written_is_read_as_it_was(tmp_path: Path, reader: str, data: st.DataObject, packed: bool) -> None:
    _, strategy = RECORDS[reader]
    made = data.draw(st.lists(strategy, min_size=1, max_size=3, unique_by=lambda record: record.id))
    path = tmp_path / ("r.jsonl.gz" if packed else "r.jsonl")
    write(path, made)
    assert READERS[reader](path) == made


# --- bounds --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("depth", [70, 900, 100_000])
def test_deep_nesting(tmp_path: Path, reader: str, depth: int) -> None:
    path = tmp_path / "deep.jsonl"
    line = json.dumps({**GOOD[reader], "deep": "@"}).replace('"@"', "[" * depth + "]" * depth)
    for text in (line, "[" * depth, '{"a":' * depth):
        path.write_text(text)
        if not (reader == "json" and text is line and depth < 1000):  # its values are typed where they are used
            refused(lambda: READERS[reader](path), str(path))


def test_a_line_without_an_end_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "bomb.jsonl.gz"
    with gzip.open(path, "wb", compresslevel=1) as stream:
        for _ in range(300):
            stream.write(b"x" * (1 << 20))
    tracemalloc.start()
    refused(lambda: list(read(path, Question)), f"{path}:1", "64 MiB")
    refused(lambda: read_questions(path, need_answers=False), f"{path}:1", "64 MiB")
    assert tracemalloc.get_traced_memory()[1] < 4 * decoding.LINE
    tracemalloc.stop()


@pytest.mark.parametrize("start", [b"[", b'{"a": "'])
def test_what_is_read_whole_may_not_grow_without_end(tmp_path: Path, start: bytes) -> None:
    path = tmp_path / "bomb.json.gz"
    with gzip.open(path, "wb", compresslevel=9) as stream:
        stream.write(start)
        for _ in range(100):
            stream.write(b"1" * (1 << 20))
    read_it: Read = read_json if start != b"[" else READERS["retrieved"]
    refused(lambda: read_it(path), str(path), "MiB in one piece")


def test_a_long_array_of_honest_size_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{**GOOD["retrieved"], "id": i, "note": "x" * 1000} for i in range(3000)], indent=1))
    assert len(read_retrieved(path, need_answers=True)) == 3000


def test_line_ends_pass_in_no_time(tmp_path: Path) -> None:
    path = tmp_path / "blank.jsonl.gz"
    with gzip.open(path, "wb", compresslevel=1) as stream:
        for _ in range(100):
            stream.write(b"\n" * (1 << 20))
        stream.write(json.dumps(ASKED).encode())
    begun = time.perf_counter()
    ((number, _),) = read_lines(path)
    assert number == 100 * (1 << 20) + 1
    assert len(read_questions(path, need_answers=True)) == 1
    assert time.perf_counter() - begun < 20


def test_lines_are_those_of_the_file_wherever_blocks_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    content = b'\n \n{"a": 1}\n\n[2]\r\n' + "\u2028 x\x85\n".encode() + b"\x0b\n\n  last"
    (tmp_path / "x").write_bytes(content)
    plain = [(n, line) for n, line in enumerate(content.split(b"\n"), 1) if line.strip()]
    for size in range(1, len(content) + 1):
        monkeypatch.setattr(decoding, "BLOCK", size)
        assert [(n, line.rstrip(b"\n")) for n, line in read_lines(tmp_path / "x")] == plain


# --- paths ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reader", READERS)
def test_paths_that_are_none(tmp_path: Path, reader: str) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "file").write_text("{}")
    bytes_name = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jsonl")
    Path(bytes_name).write_text(json.dumps(GOOD[reader]))
    for path, part in (
        (f"{tmp_path}/a\0b", "\\x00"),
        (f"{tmp_path}/{'x' * 300}", "too long"),
        (bytes_name, "UTF-8"),
        (f"{tmp_path}/loop", "symbolic links"),
        (f"{tmp_path}/loop/in.jsonl.gz", "symbolic links"),
        (f"{tmp_path}/file/in.jsonl", "not a directory"),
        (str(tmp_path), "is a directory"),
        (f"{tmp_path}/none", "no such file"),
        ("", "no such file"),
    ):
        refused(lambda path=path: READERS[reader](path), part)  # type: ignore[misc]


def test_a_fifo_is_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=lambda: save(tmp_path / "pipe", ASKED))
    writer.start()
    assert [q.id for q in read_questions(tmp_path / "pipe", need_answers=True)] == ["q1"]
    writer.join()


# --- values --------------------------------------------------------------------------------------------------------


def gain(**changes: Any) -> dict[str, Any]:
    return {**GAIN, **changes}


def gain_ctx(**changes: Any) -> dict[str, Any]:
    return gain(ctxs=[GAIN["ctxs"][0], {**GAIN["ctxs"][1], **changes}])


@pytest.mark.parametrize(
    ("bad", "part"),
    [
        (gain(silver=-1), "silver is -1"),
        (gain(silver=2), "silver is 2"),
        (gain(ctxs=[]), "silver is 0"),
        (gain(question=" "), "question"),
        (gain(id=""), "id"),
        (gain(answers=[]), "answers"),
        (gain(answers=["A", "\u3000"]), "answers[1]"),
        (gain_ctx(text=""), "ctxs[1].text"),
        (gain_ctx(id="p1"), "ctxs[1]"),
        (gain_ctx(id=" "), "ctxs[1].id"),
        (gain_ctx(loss={"0.0": 1.0}), "ctxs[1].loss"),
        (gain_ctx(loss={}), "ctxs[1].loss"),
        (gain(ctxs=[{**ctx, "loss": {"high": 1.0}} for ctx in GAIN["ctxs"]]), "'high'"),
        (gain(ctxs=[{**ctx, "loss": {"nan": 1.0}} for ctx in GAIN["ctxs"]]), "'nan'"),
        (gain_ctx(scores={"bm25": "1"}), "$.ctxs[1].scores"),
        (gain_ctx(gold="yes"), "$.ctxs[1].gold"),
        (gain(choices="yes or no"), "$.choices"),
    ],
)
def test_labels_that_cannot_be_right_are_refused(tmp_path: Path, bad: Any, part: str) -> None:
    path = save(tmp_path / "gains.jsonl", gain(id="other"), bad)
    assert part in refused(lambda: list(read(path, GainRecord)), f"{path}:2: ")


@pytest.mark.parametrize(("field", "number"), [("loss", "1e999"), ("gain", "-1e999"), ("score", "NaN")])
def test_numbers_that_are_not_finite_are_refused(tmp_path: Path, field: str, number: str) -> None:
    changed = gain_ctx(**{field: {"0.0": "@", "0.5": 1.0} if field == "loss" else "@"})
    path = save(tmp_path / "gains.jsonl", changed)
    path.write_text(path.read_text().replace('"@"', number))
    refused(lambda: list(read(path, GainRecord)), f"{path}:1: ")


@pytest.mark.parametrize("reader", ["passages", "questions", "retrieved", "gains", "answers"])
def test_an_id_comes_once(tmp_path: Path, reader: str) -> None:
    path = save(tmp_path / "in.jsonl", GOOD[reader], {**GOOD[reader], "id": "other"}, GOOD[reader])
    message = refused(lambda: READERS[reader](path), f"{path}:3: duplicate", repr(GOOD[reader]["id"]))
    assert reader == "passages" or f"first at {path}:1" in message


def test_a_field_is_not_hidden_by_a_key_of_the_question(tmp_path: Path) -> None:
    """Answers that are answered anew came with an old prediction."""
    record = Answer(id="q", question="?", prediction="new", extra={"prediction": "old", "more": 1})
    write(tmp_path / "a.jsonl", [record])
    assert json.loads((tmp_path / "a.jsonl").read_text())["prediction"] == "new"


def test_a_questions_own_level_is_not_that_of_its_losses(tmp_path: Path) -> None:
    """HotpotQA's says how hard a question is."""
    path = save(tmp_path / "gains.jsonl", gain(level="hard"), gain(id="q2", level="gold"), gain(id="q3"))
    hard, gold, plain = read(path, GainRecord)
    assert (hard.level, hard.extra) == ("exact", {"level": "hard"})
    assert (gold.level, gold.extra) == ("gold", {})
    assert (plain.level, plain.extra) == ("exact", {})
    write(tmp_path / "again.jsonl", [hard, gold, plain])
    assert list(read(tmp_path / "again.jsonl", GainRecord)) == [hard, gold, plain]


def test_fields_that_say_nothing_new_are_not_written(tmp_path: Path) -> None:
    path = save(tmp_path / "gains.jsonl", gain_ctx(scores={"dense": 0.5}, gold=True))
    write(tmp_path / "again.jsonl", read(path, GainRecord))
    assert json.loads((tmp_path / "again.jsonl").read_text()) == json.loads(path.read_text())
    (record,) = read(path, GainRecord)
    assert (record.level, record.choices, record.ctxs[1].scores, record.ctxs[1].gold) == (
        "exact",
        None,
        {"dense": 0.5},
        True,
    )


# --- others' names -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reader", "value", "said"),
    [
        ("passages", {"_id": "1", "title": "T", "text": "t"}, ["`_id` as id"]),
        (
            "passages",
            {"docid": 1, "title": "T", "contents": "t"},
            ["`docid` as id", "`contents` as text", "integer ids"],
        ),
        ("passages", {"id": "1", "title": "T", "context": "t"}, ["`context` as text"]),
        (
            "questions",
            {"_id": "1", "query": "?", "golden_answers": ["a", "b"]},
            ["`query` as question", "`golden_answers`"],
        ),
        ("questions", {"id": 1, "question": "?", "answer": ["a", "b"]}, ["`answer` as answers", "integer ids"]),
        ("questions", {"id": "1", "question": "?", "answers": [["a"], "b"]}, ["nested lists"]),
        (
            "retrieved",
            {"id": "1", "query": "?", "answer": "a", "positive_ctxs": [{"passage_id": 1, "text": "t", "score": "2"}]},
            [
                "`query` as question",
                "`positive_ctxs` as ctxs",
                "answers of one string",
                "`passage_id` as id",
                "strings as",
            ],
        ),
    ],
)
def test_others_names_are_read_and_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, reader: str, value: dict[str, Any], said: list[str]
) -> None:
    second = {key: (2 if item == 1 else "2") if key in ("id", "_id", "docid") else item for key, item in value.items()}
    path = save(tmp_path / "in.jsonl", value, second)
    with caplog.at_level(logging.WARNING):
        records: Any = READERS[reader](path)
    assert [record.id for record in records] == ["1", "2"]
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith(f"{path}: read ")
    for part in said:
        assert part in message
    for record in records:
        assert record.extra == {}
        if reader == "passages":
            assert (record.title, record.text) == ("T", "t")
        else:
            assert record.question == "?"
            assert record.answers in (["a", "b"], ["a"])
        if reader == "retrieved":
            assert [(ctx.id, ctx.score) for ctx in record.ctxs] == [("1", 2.0)]


def test_the_proper_name_wins(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (passage,) = read_passages(save(tmp_path / "c.jsonl", {"_id": "b", "id": "a", "text": "t", "contents": "c"}))
    assert (passage.id, passage.text, passage.extra) == ("a", "t", {"_id": "b", "contents": "c"})
    (question,) = read_questions(save(tmp_path / "q.jsonl", {**ASKED, "answer": "other"}), need_answers=True)
    assert (question.answers, question.extra) == (["Jane Austen"], {"answer": "other"})
    assert not caplog.records


def test_true_is_no_id(tmp_path: Path) -> None:
    refused(lambda: READERS["passages"](save(tmp_path / "c.jsonl", {"id": True, "text": "t"})), "$.id")


@pytest.mark.parametrize("reader", ["passages", "questions", "retrieved"])
@pytest.mark.parametrize("indent", [None, 2])
def test_one_array_is_read_like_lines(tmp_path: Path, reader: str, indent: int | None) -> None:
    values = [{**GOOD[reader], "id": str(i)} for i in range(3)]
    (tmp_path / "a.json").write_text("\n\n" + json.dumps(values, indent=indent))
    assert READERS[reader](tmp_path / "a.json") == READERS[reader](save(tmp_path / "l.jsonl", *values))
    (tmp_path / "a.json").write_text(json.dumps([*values, {"id": "x"}], indent=indent))
    refused(lambda: READERS[reader](tmp_path / "a.json"), f"{tmp_path / 'a.json'}: record 4")
    (tmp_path / "a.json").write_text("[]")
    refused(lambda: READERS[reader](tmp_path / "a.json"), "empty")


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", ["in.jsonl", "in.jsonl.gz"])
def test_a_byte_order_mark_is_left_out_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, reader: str, name: str
) -> None:
    plain = save(tmp_path / "plain.jsonl", GOOD[reader])
    data = b"\xef\xbb\xbf" + plain.read_bytes()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    assert READERS[reader](tmp_path / name) == READERS[reader](plain)
    assert [r.getMessage() for r in caplog.records] == [f"{tmp_path / name}: left out the byte-order mark at its start"]


def test_a_byte_order_mark_before_a_table(tmp_path: Path) -> None:
    (tmp_path / "p.tsv").write_text("\ufeffid\ttext\ttitle\n1\tA\tB\n")
    assert [p.id for p in read_passages(tmp_path / "p.tsv")] == ["1"]


def test_next_line_and_line_separator_are_data(tmp_path: Path) -> None:
    text = "one\u0085two\u2028three\u2029four\x0bfive"
    value = {"id": "1", "title": "", "text": text}
    (tmp_path / "c.jsonl").write_bytes(msgspec.json.encode(value) + b"\n")
    (tmp_path / "c.tsv").write_text(f"id\ttext\ttitle\n1\t{text}\t\n", encoding="utf-8")
    for name in ("c.jsonl", "c.tsv"):
        assert [p.text for p in read_passages(tmp_path / name)] == [text]


PARQUET = b"PAR1\x15\x04\x15\x10\x15\x14L\x15\x02\x15\x00\x12\x00\x00\x08\x1c\x01\x00\x00\x00PAR1"


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("data", "name"),
    [
        (json.dumps(ASKED).encode("utf-16"), "UTF-16"),
        (json.dumps(ASKED).encode("utf-16-le"), "UTF-16"),
        (json.dumps(ASKED).encode("utf-16-be"), "UTF-16"),
        (b"id,question,answers\n1,Who?,Me\n", "CSV"),
        (b'"id","question"\n"1","Who?"\n', "CSV"),
        (b"id\tquestion\n1\tWho?\n", "TSV"),
        (PARQUET, "Parquet"),
        (b"# Questions\n\n- Who?\n", "Markdown"),
        (b"---\ntitle: x\n---\n", "Markdown"),
        (b"<!DOCTYPE html><p>Who?</p>", "HTML"),
        (b"%PDF-1.7\n", "PDF"),
        (b"PK\x03\x04\x14\x00", "zip"),
        (gzip.compress(json.dumps(ASKED).encode(), mtime=0), "gzip"),  # the time is in a test's name
        (b"{'id': '1', 'question': 'Who?'}\n", "Python"),
        (b"version https://git-lfs.github.com/spec/v1\n", "LFS"),
    ],
)
def test_other_formats_are_named(tmp_path: Path, reader: str, data: bytes, name: str) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(data)
    refused(lambda: READERS[reader](path), f"{path}", "looks like", name)


def test_other_formats_called_tsv_are_named(tmp_path: Path) -> None:
    for data, name in ((PARQUET, "header"), ("id\ttext\ttitle\n".encode("utf-16"), "UTF-16")):
        (tmp_path / "p.tsv").write_bytes(data)
        refused(lambda: list(read_passages(tmp_path / "p.tsv")), str(tmp_path / "p.tsv"), name)
