from __future__ import annotations

import errno
import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gainrag.errors import DataError, ResourceError
from gainrag.files.streams import file_hash, read, read_json, write, write_json
from gainrag.records import Answer, Gained, GainRecord, Passage, Question, Record, Retrieved, Scored

SCORED = Scored(id="p1", title="Emma", text="Emma is by Jane Austen.", score=1.5, hasanswer=True, extra={"url": "x"})
PSEUDO = Scored(id="q1:generated", text="N/A", origin="generated")
RECORDS: list[Record] = [
    Passage(id="1", title="Tallinn", text="Tallinn är „öst“ 東京\u2028.", extra={"lang": "et"}),
    Passage(id="2", text="N/A", origin="generated"),
    Question(id="q1", question="Who wrote Emma?", answers=["Jane Austen"], extra={"n": [1, {"a": None}]}),
    Retrieved(id="q1", question="Who?", answers=[], ctxs=[SCORED, PSEUDO]),
    GainRecord(
        id="q1",
        question="Who?",
        answers=["Jane Austen"],
        kept=False,
        prediction="Jane",
        silver=0,
        ctxs=[Gained(id="p1", text="t", loss={"0.0": 0.1, "0.5": 1e6}, gain=-0.1234567890123, extra={"k": 1})],
    ),
    Answer(id="q1", question="Who?", answers=["Jane Austen"], prediction="", ctxs=[PSEUDO], extra={"dataset": "nq"}),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda r: type(r).__name__)
@pytest.mark.parametrize("name", ["r.jsonl", "r.jsonl.gz"])
def test_round_trip(tmp_path: Path, record: Record, name: str) -> None:
    other = msgspec.structs.replace(record, id="other")
    assert write(tmp_path / name, [record, other]) == 2
    assert list(read(tmp_path / name, type(record))) == [record, other]


def test_unknown_keys_are_kept_at_every_level(tmp_path: Path) -> None:
    line = {
        "id": "q",
        "question": "Who?",
        "answers": ["x"],
        "dataset": "nq",
        "meta": {"deep": [1, None]},
        "ctxs": [{"id": "1", "title": "T", "text": "t", "score": 2.0, "url": "u", "origin": "corpus"}],
    }
    (tmp_path / "in.jsonl").write_text(json.dumps(line) + "\n")
    write(tmp_path / "out.jsonl", read(tmp_path / "in.jsonl", Retrieved))
    found = json.loads((tmp_path / "out.jsonl").read_text())
    assert found["dataset"] == "nq"
    assert found["meta"] == {"deep": [1, None]}
    assert found["ctxs"][0]["url"] == "u"


def test_two_records_do_not_share_their_extra_keys() -> None:
    one, two = Passage(id="1", text="a"), Passage(id="2", text="b")
    one.extra["seen"] = True
    assert two.extra == {}


def test_gz_bytes_are_the_same_each_time(tmp_path: Path) -> None:
    write(tmp_path / "one.jsonl.gz", RECORDS[:1])
    write(tmp_path / "two.jsonl.gz", RECORDS[:1])
    assert (tmp_path / "one.jsonl.gz").read_bytes() == (tmp_path / "two.jsonl.gz").read_bytes()
    assert gzip.decompress((tmp_path / "one.jsonl.gz").read_bytes()).endswith(b"\n")


def _refused(path: Path, kind: type[Record] = Retrieved) -> str:
    with pytest.raises(DataError) as caught:
        list(read(path, kind))
    message = str(caught.value)
    assert str(path) in message
    assert "Hint: " in message
    assert "\n" not in message
    return message


GOOD = '{"id": "q", "question": "?", "answers": ["x"], "ctxs": []}\n'


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"id": "q", "question": 5, "ctxs": []}', ("str", "$.question")),
        ('{"id": "q", "question": "?"}', ("ctxs",)),
        ('{"id": "q", "question": "?", "ctxs": [{"id": "1", "text": "t", "score": "high"}]}', ("$.ctxs[0].score",)),
        ('{"id": "q", "question": "?", "ctxs": [{"id": "1"}]}', ("text", "$.ctxs[0]")),
        (
            '{"id": "q", "question": "?", "ctxs": [{"id": "1", "text": "t", "origin": "web"}]}',
            ("web", "$.ctxs[0].origin"),
        ),
        ('{"id": "q", "question": "?", "answers": ["x", 3], "ctxs": []}', ("$.answers[1]",)),
        ('{"id": "q", "question": "?", "ctxs": [null]}', ("$.ctxs[0]",)),
        ("[1, 2]", ("object",)),
        ('{"id": "q", ', ("no JSON",)),
        ("not json", ("no JSON",)),
    ],
)
def test_a_malformed_line_names_file_line_and_field(tmp_path: Path, line: str, expected: tuple[str, ...]) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(GOOD + "\n" + line + "\n" + GOOD)  # the blank line counts as a line
    message = _refused(path)
    assert message.startswith(f"{path}:3: ")
    for part in expected:
        assert part in message


def test_bytes_that_are_no_utf8_are_an_error_of_their_line(tmp_path: Path) -> None:
    path = tmp_path / "latin.jsonl"
    path.write_bytes(GOOD.encode() + '{"id": "q", "question": "caf\xe9", "ctxs": []}\n'.encode("latin-1"))
    assert _refused(path).startswith(f"{path}:2: ")


@pytest.mark.parametrize("content", [b"", b"\n  \n"])
def test_an_empty_file_is_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "empty.jsonl").write_bytes(content)
    assert "empty" in _refused(tmp_path / "empty.jsonl")


def test_a_missing_file_and_a_folder_are_errors(tmp_path: Path) -> None:
    assert "no such file" in _refused(tmp_path / "missing.jsonl")
    assert "no such file" in _refused(tmp_path / "missing.jsonl.gz")
    _refused(tmp_path)


@pytest.mark.parametrize("damage", ["cut", "plain", "flipped"])
def test_damaged_gz_is_an_error(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "r.jsonl.gz"
    write(path, [Question(id=str(i), question=f"{i * i}?") for i in range(2000)])
    content = path.read_bytes()
    # Where a byte is flipped decides which layer notices it: zlib, the checksum or the JSON reader.
    places = range(10, len(content), len(content) // 50)
    damaged = {
        "cut": [content[: len(content) // 2]],
        "plain": [GOOD.encode()],
        "flipped": [content[:i] + bytes([content[i] ^ 0xFF]) + content[i + 1 :] for i in places],
    }
    for stored in damaged[damage]:
        path.write_bytes(stored)
        _refused(path, Question)


def test_a_stream_that_fails_half_way_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    write(path, [Question(id="old", question="?")])

    def stops() -> Iterator[Question]:
        yield Question(id="new", question="?")
        raise DataError("the model returned NaN")

    with pytest.raises(DataError, match="NaN"):
        write(path, stops())
    assert [q.id for q in read(path, Question)] == ["old"]
    assert os.listdir(tmp_path) == ["r.jsonl"]


@pytest.mark.parametrize("name", ["r.jsonl", "r.jsonl.gz"])
def test_a_full_disk_is_one_line_and_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = tmp_path / name
    write(path, [Question(id="old", question="?")])

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResourceError) as caught:
        write(path, [Question(id="new", question="?")])
    assert "disk is full" in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [q.id for q in read(path, Question)] == ["old"]
    assert os.listdir(tmp_path) == [name]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_disk_that_is_really_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The buffer is only written when the file closes: that failure must be a ResourceError too."""
    from gainrag.files import streams

    def opened(path: Any, mode: str) -> Any:
        return open("/dev/full", mode)

    monkeypatch.setattr(streams, "open", opened, raising=False)
    for name in ("r.jsonl", "r.jsonl.gz"):
        with pytest.raises(ResourceError, match="disk is full"):
            write(tmp_path / name, [Question(id="new", question="?" * 100_000)])


def test_an_output_below_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="cannot be written"):
        write(tmp_path / "file" / "r.jsonl", [Question(id="q", question="?")])


def test_json_objects(tmp_path: Path) -> None:
    path = tmp_path / "new" / "e.json"
    write_json(path, {"a": 1, "b": ["ö"]})
    assert read_json(path) == {"a": 1, "b": ["ö"]}
    assert path.read_bytes().endswith(b"\n")
    for content in ("[1]", "{", ""):
        path.write_text(content)
        with pytest.raises(DataError, match="it should hold one JSON object"):
            read_json(path)


def test_file_hash_sees_names_and_bytes(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a").write_text("1")
    before = file_hash(tmp_path / "d")
    assert before == file_hash(tmp_path / "d")
    (tmp_path / "d" / "a").rename(tmp_path / "d" / "b")
    assert file_hash(tmp_path / "d") != before
    assert file_hash(tmp_path / "d" / "b") != before
