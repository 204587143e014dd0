"""Index folders: what was built is what is opened; half-made, damaged and stale ones are refused."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gainrag import indexing
from gainrag.errors import ConfigError, DataError, ModelError, ResourceError, StaleError
from gainrag.files.streams import file_hash, write
from gainrag.indexing import META_FILE, index, open_index, set_fusion
from gainrag.ingestion import read_passages
from gainrag.records import Passage, Question
from gainrag.retrievers.bm25 import BM25
from gainrag.retrievers.dense import Dense
from gainrag.retrievers.hybrid import Hybrid
from gainrag.retrievers.store import PassageStore

TEXTS = [
    ("Emma", "Emma is a novel by Jane Austen, first published in December 1815."),
    ("Mount Everest", "Mount Everest, in the Himalayas, is the highest mountain above sea level."),
    ("Photosynthesis", "Plants turn light, water and carbon dioxide into sugar and oxygen."),
    ("Danube", "The Danube flows from the Black Forest to the Black Sea through ten countries."),
    ("", "The violin has four strings, tuned in fifths."),
]
QUESTIONS = ["Who wrote the novel Emma?", "What is the highest mountain?", "How many strings has a violin?"]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    file = tmp_path / "corpus.jsonl"
    rows = [{"id": f"p{i}", "title": title, "text": text, "row": i} for i, (title, text) in enumerate(TEXTS)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.fixture(scope="module")
def hybrid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hybrid index whose corpus file is gone: the folder must do on its own."""
    folder = tmp_path_factory.mktemp("hybrid")
    file = folder / "corpus.jsonl.gz"
    lines = [json.dumps({"id": f"p{i}", "title": title, "text": text}) for i, (title, text) in enumerate(TEXTS)]
    file.write_bytes(gzip.compress("\n".join(lines).encode()))
    index(file, folder / "idx")
    file.unlink()
    return folder / "idx"


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_bm25_folder_answers_as_the_index_in_memory(corpus: Path, tmp_path: Path) -> None:
    index(corpus, tmp_path / "idx", retriever="bm25")
    opened, built = open_index(tmp_path / "idx"), BM25.build(read_passages(corpus))
    assert opened.search(QUESTIONS, 3) == built.search(QUESTIONS, 3)
    assert [found[0].id for found in opened.search(QUESTIONS, 1)] == ["p0", "p1", "p4"]
    assert opened.search(QUESTIONS, 1)[0][0].extra == {"row": 0}
    assert names(tmp_path) == {"corpus.jsonl", "idx"}  # nothing is left of the building


def test_an_index_from_before_there_was_a_choice_fuses_ranks(hybrid: Path, tmp_path: Path) -> None:
    shutil.copytree(hybrid, old := tmp_path / "old")
    meta = json.loads((old / META_FILE).read_text())
    assert meta["settings"].pop("fusion") == "scores"
    assert meta.pop("weights") is None
    (old / META_FILE).write_text(json.dumps(meta))
    opened, now = open_index(old), open_index(hybrid)
    assert isinstance(opened, Hybrid)
    assert isinstance(now, Hybrid)
    assert (opened.fusion, now.fusion, now.weights) == ("ranks", "scores", {"dense": 0.5, "bm25": 0.5})
    set_fusion(old, "scores", {"dense": 0.3, "bm25": 0.7})
    opened = open_index(old)
    assert isinstance(opened, Hybrid)
    assert (opened.fusion, opened.weights) == ("scores", {"dense": 0.3, "bm25": 0.7})
    with pytest.raises(ConfigError, match="weights"):
        set_fusion(old, "scores", {"dense": 1.0})
    damaged = meta | {"settings": {**meta["settings"], "fusion": "scores"}, "weights": {}}
    (old / META_FILE).write_text(json.dumps(damaged))
    with pytest.raises(DataError, match="damaged"):
        open_index(old)


def test_weights_are_fitted_on_training_questions(corpus: Path, tmp_path: Path) -> None:
    asked = [Question(id="1", question="Who wrote Emma?", answers=["Jane Austen"])]
    index(corpus, tmp_path / "idx", asked)
    opened = open_index(tmp_path / "idx")
    assert isinstance(opened, Hybrid)
    assert sum(opened.weights.values()) == pytest.approx(1, abs=0.011)
    for settings in ({"fusion": "ranks"}, {"retriever": "bm25"}):
        with pytest.raises(ConfigError, match="no weights to fit"):
            index(corpus, tmp_path / "other", asked, **settings)  # type: ignore[arg-type]


def test_dense_and_hybrid_folders_answer_as_the_index_in_memory(hybrid: Path) -> None:
    opened = open_index(hybrid)
    assert isinstance(opened, Hybrid)
    passages = [Passage(id=f"p{i}", title=title, text=text) for i, (title, text) in enumerate(TEXTS)]
    dense = Dense.build(passages)
    assert opened.search(QUESTIONS, 5) == Hybrid([dense, BM25.build(passages)]).search(QUESTIONS, 5)
    # Another wording of the question: no word in common, but the meaning.
    assert dense.search(["Which peak is tallest on Earth?"], 1)[0][0].id == "p1"


def test_an_index_keeps_how_it_compares(corpus: Path, tmp_path: Path) -> None:
    index(corpus, tmp_path / "idx", retriever="dense", normalize=False)
    opened = open_index(tmp_path / "idx")
    assert isinstance(opened, Dense)
    assert not opened.normalize
    # Indexes from before there was a choice are of normalised vectors.
    meta = json.loads((tmp_path / "idx" / "index.meta.json").read_text())
    del meta["settings"]["normalize"]
    (tmp_path / "idx" / "index.meta.json").write_text(json.dumps(meta))
    old = open_index(tmp_path / "idx")
    assert isinstance(old, Dense)
    assert old.normalize


def test_meta_says_what_was_indexed(corpus: Path, tmp_path: Path) -> None:
    index(corpus, tmp_path / "idx", retriever="bm25")
    meta = json.loads((tmp_path / "idx" / "index.meta.json").read_text())
    assert meta["passages"] == len(TEXTS)
    assert meta["settings"]["retriever"] == "bm25"
    assert meta["corpus"]["path"] == str(corpus.resolve())
    assert meta["corpus"]["sha256"] == file_hash(corpus)
    assert "bm25s" in meta["versions"]


def test_changed_corpus_is_stale(corpus: Path, tmp_path: Path) -> None:
    index(corpus, tmp_path / "idx", retriever="bm25")
    text = corpus.read_text()
    corpus.write_text(text.replace("Emma", "Enna"))  # the same size: the bytes are compared
    with pytest.raises(StaleError, match="gainrag index") as caught:
        open_index(tmp_path / "idx")
    assert str(corpus) in str(caught.value)
    assert str(tmp_path / "idx") in str(caught.value)
    corpus.write_text(text)
    os.utime(corpus, (1, 1))  # another time, the same bytes
    open_index(tmp_path / "idx")
    corpus.write_text(text + json.dumps({"id": "new", "text": "more"}) + "\n")
    with pytest.raises(StaleError):
        open_index(tmp_path / "idx")
    index(corpus, tmp_path / "idx", retriever="bm25")
    assert len(open_index(tmp_path / "idx").search(["novel"], 99)[0]) == len(TEXTS) + 1


def test_corpus_named_by_hand(corpus: Path, tmp_path: Path) -> None:
    index(corpus, tmp_path / "idx", retriever="bm25")
    copy = tmp_path / "copy.jsonl"
    shutil.copy(corpus, copy)
    corpus.unlink()
    open_index(tmp_path / "idx")
    open_index(tmp_path / "idx", corpus=copy)
    copy.write_text(copy.read_text().replace("Danube", "Rhine!"))
    with pytest.raises(StaleError):
        open_index(tmp_path / "idx", corpus=copy)
    with pytest.raises(DataError, match="no such file"):
        open_index(tmp_path / "idx", corpus=tmp_path / "none.jsonl")


def test_unchanged_corpus_is_not_read_again(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index(corpus, tmp_path / "idx", retriever="bm25")

    def refuse(path: object) -> str:
        raise AssertionError(f"{path} was hashed")

    monkeypatch.setattr(indexing, "file_hash", refuse)
    open_index(tmp_path / "idx")


@pytest.mark.parametrize("broken", ["", '{"id": "p0", "text": "again"}\n', "no JSON\n"])
def test_failed_build_leaves_the_old_index(corpus: Path, tmp_path: Path, broken: str) -> None:
    index(corpus, tmp_path / "idx", retriever="bm25")
    before = file_hash(tmp_path / "idx")
    bad = tmp_path / "bad.jsonl"
    bad.write_text(corpus.read_text() + broken if broken else "")
    for out in ("idx", "other"):
        with pytest.raises(DataError, match=r"bad\.jsonl"):
            index(bad, tmp_path / out, retriever="bm25")
    assert file_hash(tmp_path / "idx") == before
    assert names(tmp_path) == {"corpus.jsonl", "bad.jsonl", "idx"}


def test_interrupted_build_leaves_nothing(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(self: BM25, folder: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(BM25, "save", interrupt)
    with pytest.raises(KeyboardInterrupt):
        index(corpus, tmp_path / "idx", retriever="bm25")
    assert names(tmp_path) == {"corpus.jsonl"}


def test_full_disk_is_one_line(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: BM25, folder: Path) -> None:
        raise OSError("1000 requested and 10 written")  # what numpy says

    monkeypatch.setattr(BM25, "save", full)
    with pytest.raises(ResourceError, match="free some space"):
        index(corpus, tmp_path / "idx", retriever="bm25")
    assert names(tmp_path) == {"corpus.jsonl"}


def test_killed_builds_are_swept_away(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / ".idx.tmp").mkdir()
    (tmp_path / ".idx.lock").touch()
    index(corpus, tmp_path / "idx", retriever="bm25")
    assert names(tmp_path) == {"corpus.jsonl", "idx"}


def test_index_set_aside_by_a_killed_build_comes_back(corpus: Path, tmp_path: Path) -> None:
    index(corpus, tmp_path / "idx", retriever="bm25")
    (tmp_path / "idx").rename(tmp_path / ".idx.old")
    with pytest.raises(DataError):
        index(tmp_path / "none.jsonl", tmp_path / "idx", retriever="bm25")
    corpus.with_name("empty.jsonl").touch()
    with pytest.raises(DataError, match="empty"):
        index(corpus.with_name("empty.jsonl"), tmp_path / "idx", retriever="bm25")
    open_index(tmp_path / "idx")


def test_only_an_index_is_replaced(corpus: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years of work")
    for out in (precious, corpus):
        with pytest.raises(DataError, match="no index"):
            index(corpus, out, retriever="bm25")
    assert (precious / "thesis.txt").exists()


def test_bad_settings(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'bm25'"):
        index(corpus, tmp_path / "idx", retriever="bm52")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="batch_size"):
        index(corpus, tmp_path / "idx", batch_size=0)
    with pytest.raises(ModelError, match="all-minilm-l6-v2"):
        index(corpus, tmp_path / "idx", model="embedded:all-minilm")
    with pytest.raises(DataError, match="no such file"):
        index(tmp_path / "none.jsonl", tmp_path / "idx")
    assert names(tmp_path) == {"corpus.jsonl"}


@pytest.fixture
def copied(hybrid: Path, tmp_path: Path) -> Path:
    shutil.copytree(hybrid, tmp_path / "idx")
    return tmp_path / "idx"


@pytest.mark.parametrize(
    "file",
    [
        "passages.jsonl",
        "offsets.npy",
        "dense.faiss",
        "bm25/data.csc.index.npy",
        "bm25/vocab.index.json",
        "index.meta.json",
    ],
)
def test_damaged_index_is_one_line(copied: Path, file: str) -> None:
    data = (copied / file).read_bytes()
    for change in (None, b"", data[: len(data) // 2]):
        if change is None:
            (copied / file).unlink()
        else:
            (copied / file).write_bytes(change)
        with pytest.raises(DataError, match="idx"):
            open_index(copied)


def test_no_index(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(DataError, match="no index"):
            open_index(folder)


def test_vectors_of_another_corpus(copied: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(copied / "index.meta.json", other)
    PassageStore.write(copied, [Passage(id="1", text="only one")])
    with pytest.raises(DataError, match="1 passages, 5 recorded"):
        open_index(copied)


def test_store_is_a_sequence(tmp_path: Path) -> None:
    passages = [Passage(id=str(i), text=f"text {i} \N{SNOWMAN}", extra={"n": i}) for i in range(7)]
    store = PassageStore.write(tmp_path, passages)
    assert list(store) == passages
    assert store[2:4] == passages[2:4]
    assert store[-1] == passages[-1]
    assert len(store) == 7
    assert np.load(tmp_path / "offsets.npy").dtype == np.int64
    with pytest.raises(IndexError):
        store[7]


def test_a_changed_corpus_encodes_what_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gainrag.retrievers import dense

    encoded: list[str] = []
    encode = dense._encode

    def counting(call: Any, texts: list[str], *more: Any) -> Any:
        encoded.extend(texts)
        return encode(call, texts, *more)

    monkeypatch.setattr(dense, "_encode", counting)
    corpus, out = tmp_path / "corpus.jsonl", tmp_path / "index"
    texts = ["Emma is a novel.", "Rain falls in winter.", "The harbour is deep."]
    write(corpus, [Passage(id=str(i), text=text) for i, text in enumerate(texts)])
    index(corpus, out, retriever="dense")
    assert encoded == texts
    encoded.clear()
    changed = [*texts[1:], "Ships moor here."]
    write(corpus, [Passage(id=str(i), text=text) for i, text in enumerate(changed)])
    index(corpus, out, retriever="dense")
    assert encoded == ["Ships moor here."]
    found = open_index(out).search(["What falls in winter?", "Where do ships moor?"], 1)
    assert [ranked[0].text for ranked in found] == ["Rain falls in winter.", "Ships moor here."]
