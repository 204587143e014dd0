"""Ten public formats, each read by one command: what is written is the same whatever it was read from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gainrag import cli
from gainrag.errors import ConfigError, DataError
from gainrag.ingestion import convert, read_passages, read_questions
from gainrag.records import Question, Scored
from gainrag.retrieval import retrieve

QUESTION = {"id": "7", "question": "Who wrote Emma?", "answers": ["Jane Austen"]}
TITLE, TEXT = "Emma", "Emma is a novel by Jane Austen."


def lines(path: Path, *rows: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def beir(folder: Path) -> Path:
    lines(
        folder / "corpus.jsonl",
        {"_id": "d1", "title": TITLE, "text": TEXT, "metadata": {}},
        {"_id": "d2", "text": "Rain."},
    )
    lines(folder / "queries.jsonl", {"_id": "7", "text": QUESTION["question"]}, {"_id": "8", "text": "Unjudged?"})
    (folder / "qrels").mkdir()
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n7\td1\t1\n7\td2\t0\n")
    return folder


def flashrag(folder: Path) -> Path:
    lines(folder / "test.jsonl", {"id": "7", "question": QUESTION["question"], "golden_answers": ["Jane Austen"]})
    lines(folder / "corpus.jsonl", {"id": "d1", "contents": f'"{TITLE}"\n{TEXT}'})
    return folder


def dpr(folder: Path) -> Path:
    ctx = {"title": TITLE, "text": TEXT, "score": "81.5", "passage_id": "d1"}
    row = {"question": QUESTION["question"], "answers": ["Jane Austen"], "positive_ctxs": [ctx]}
    others = {"negative_ctxs": [], "hard_negative_ctxs": [{"title": "", "text": "Rain.", "psg_id": 2}]}
    file = folder / "nq-train.json"
    file.write_text(json.dumps([row | others], indent=4))
    return file


def dpr_questions(folder: Path) -> Path:
    file = folder / "nq-test.qa.csv"
    file.write_text("Who wrote Emma?\t['Jane Austen']\n")
    return file


def kilt(folder: Path) -> Path:
    place = {"wikipedia_id": "36", "title": TITLE, "start_paragraph_id": 1, "end_paragraph_id": 1}
    output = [{"answer": "Jane Austen", "provenance": [place]}, {"answer": "Jane Austen"}, {"provenance": [place]}]
    return lines(folder / "nq-dev-kilt.jsonl", {"id": "7", "input": QUESTION["question"], "output": output})


def kilt_pages(folder: Path) -> Path:
    return lines(
        folder / "pages.jsonl", {"_id": "36", "wikipedia_id": "36", "wikipedia_title": TITLE, "text": ["Emma\n", TEXT]}
    )


def rgb(folder: Path) -> Path:
    row = {"id": 7, "query": QUESTION["question"], "answer": [["Jane Austen", "Austen"]]}
    return lines(folder / "en.json", {**row, "positive": [TEXT], "negative": ["Rain.", "Snow."]})


def csv_file(folder: Path) -> Path:
    file = folder / "questions.csv"
    file.write_text('number,query,reply\n7,Who wrote Emma?,"[""Jane Austen""]"\n')
    return file


def csv_with_mark(folder: Path) -> Path:
    file = folder / "bom.csv"
    file.write_bytes(b"\xef\xbb\xbf" + b"id;question;answers\r\n7;Who wrote Emma?;Jane Austen\r\n")
    return file


def parquet(folder: Path) -> Path:
    import pyarrow
    from pyarrow import parquet as files

    row = {
        "id": 7,
        "question": QUESTION["question"],
        "gold": {"answers": ["Jane Austen"]},
        "context": TEXT,
        "title": TITLE,
    }
    files.write_table(pyarrow.Table.from_pylist([row]), folder / "part-0.parquet")
    return folder


def integer_ids(folder: Path) -> Path:
    file = folder / "pretty.json"
    file.write_text(json.dumps([{"docid": 7, "query": QUESTION["question"], "answer": "Jane Austen"}], indent=2))
    return file


FORMATS: list[tuple[str, Callable[[Path], Path], list[str], set[str]]] = [
    ("beir", beir, [], {"d1"}),
    ("flashrag", flashrag, [], set()),
    ("dpr", dpr, [], {"d1"}),
    ("dpr", dpr_questions, [], set()),
    ("kilt", kilt, [], {"36#1"}),
    ("kilt", kilt_pages, [], set()),
    ("rgb", rgb, [], {"p-"}),
    ("csv", csv_file, ["id=number", "question=query", "answers=reply"], set()),
    ("csv", csv_with_mark, [], set()),
    ("parquet", parquet, ["answers=gold.answers"], {"p-"}),
    ("jsonl", integer_ids, [], set()),
]


@pytest.mark.parametrize(("name", "make", "mapping", "gold"), FORMATS, ids=[make.__name__ for _, make, _, _ in FORMATS])
def test_each_format_is_one_command(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    make: Callable[[Path], Path],
    mapping: list[str],
    gold: set[str],
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    out = tmp_path / "out"
    flags = [flag for part in mapping for flag in ("--map", part)]
    status = cli.main(["ingest", name, str(make(source)), "-o", str(out), *flags])
    assert status == 0, capsys.readouterr().err
    files = {file.name for file in out.iterdir()}
    asked = [file for file in ("questions.jsonl", "test.jsonl") if file in files]
    passages = {p.id: p for p in read_passages(out / "corpus.jsonl")} if "corpus.jsonl" in files else {}
    if passages:
        texts = {(passage.title, passage.text) for passage in passages.values()}
        assert (TITLE, TEXT) in texts or name == "rgb"
    if not asked:
        assert passages["36#1"].title == TITLE
        return
    (question,) = read_questions(out / asked[0], need_answers=False)
    assert question.question == QUESTION["question"]
    assert question.answers[:1] == ([] if name == "beir" else ["Jane Austen"])
    assert question.id == "7" or name == "dpr"
    marked = question.extra.get("gold_passages", [])
    assert len(marked) == len(gold)
    assert all(any(id.startswith(begin) for begin in gold) for id in marked)
    assert name == "kilt" or set(marked) <= passages.keys()
    assert (out / f"{asked[0].removesuffix('.jsonl')}.meta.json").is_file()


def test_a_release_takes_its_file_as_path(tmp_path: Path) -> None:
    entry = {"_id": "7", "question": "Who?", "answer": "Austen", "context": [["Emma", ["A novel."]]]}
    file = tmp_path / "hotpot.json"
    file.write_text(json.dumps([entry]))
    assert cli.main(["ingest", "hotpotqa", str(file), "-o", str(tmp_path / "out")]) == 0
    assert read_questions(tmp_path / "out" / "questions.jsonl", need_answers=True)[0].id == "7"


def test_what_is_left_out_or_missing_is_counted(tmp_path: Path) -> None:
    found = convert("beir", beir(tmp_path / "in"), tmp_path / "out")
    assert found.files == {"corpus": 2, "test": 1}
    assert found.counts["questions left out, no split has a judgement for them"] == 1
    assert found.counts["questions without an answer: training and evaluation need one"] == 1
    with pytest.raises(ConfigError, match="unknown split 'tset'; did you mean 'test'"):
        convert("beir", tmp_path / "in", tmp_path / "out", split="tset")


@pytest.mark.parametrize(
    ("text", "mapping", "says"),
    [
        ("a,b\n1,2\n", [], "neither a question nor a text among the columns: a, b"),
        ("a,b\n1,2\n", ["question=c"], "unknown column 'c'"),
        ("question,b\n1,2,3\n", [], "bad.csv:2: 3 fields and not 2"),
        ("question,question\n1,2\n", [], "names the columns"),
        ('question,b\n"open,2\n', [], "no CSV"),
        ("question,b\n \n", [], "1 fields and not 2"),
        ("question,b\n", [], "empty"),
        ("", [], "empty"),
        ("text\na\n", ["qestion=text"], "unknown field 'qestion'; did you mean 'question'"),
        ("text\na\n", ["question"], "no mapping"),
    ],
)
def test_bad_tables_name_place_and_remedy(tmp_path: Path, text: str, mapping: list[str], says: str) -> None:
    (tmp_path / "bad.csv").write_text(text)
    with pytest.raises((DataError, ConfigError), match=says.replace("(", r"\(")):
        convert("csv", tmp_path / "bad.csv", tmp_path / "out", map=mapping)
    assert not (tmp_path / "out").exists()


def test_two_passages_of_one_id_must_be_the_same(tmp_path: Path) -> None:
    same, other = {"id": "1", "text": "a"}, {"id": "1", "text": "b"}
    assert convert("jsonl", lines(tmp_path / "same.jsonl", same, same), tmp_path / "out").files == {"corpus": 1}
    with pytest.raises(DataError, match=r"other.jsonl:2: two passages of the id '1'"):
        convert("jsonl", lines(tmp_path / "other.jsonl", same, other), tmp_path / "out2")


def test_no_parquet(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match="no Parquet"):
        convert("parquet", tmp_path / "x.parquet", tmp_path / "out")


def test_flags_of_other_sources_are_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for argv, says in [
        (["docs", str(tmp_path), "--map", "a=b"], "--map is none of the flags for docs"),
        (["csv", "x.csv", "--size", "100"], "--size is none of the flags for csv"),
        (["docs"], "PATH is missing"),
        (["squad", "x.json", "--source", "y.json"], "PATH is given twice"),
    ]:
        assert cli.main(["ingest", *argv, "-o", str(tmp_path / "out")]) == 2
        assert says in capsys.readouterr().err


def test_gold_passages_are_marked_when_they_are_found() -> None:
    class Two:
        def search(self, questions: Any, k: int) -> list[list[Scored]]:
            return [[Scored(id="a", text="x", score=2.0), Scored(id="b", text="y", score=1.0)] for _ in questions]

    asked = [Question(id="1", question="?", extra={"gold_passages": ["b"]}), Question(id="2", question="?")]
    found = retrieve(asked, Two(), k=2)
    assert [[ctx.gold for ctx in record.ctxs] for record in found] == [[False, True], [None, None]]
