"""Indexes of large corpora: the same numbers from blocks, compressed vectors, kept work, and a preflight."""

from __future__ import annotations

import json
import os
import signal
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from gainrag import indexing
from gainrag.errors import ConfigError, DataError, ResourceError, StaleError
from gainrag.files.folders import Begun, continue_folder, open_output_folder
from gainrag.files.streams import file_hash, write
from gainrag.indexing import META_FILE, index, open_index
from gainrag.prompts import selector_text
from gainrag.records import Passage
from gainrag.retrievers import bm25, compressed, compressing, dense, sizing
from gainrag.retrievers.bm25 import BM25
from gainrag.retrievers.compressed import Compressed, lists_for
from gainrag.retrievers.dense import Dense
from gainrag.retrievers.sizing import Corpus, looked_at, needs

PLACES = ["harbour", "bridge", "castle", "mill", "island", "market", "tower", "canal"]
FACTS = ["opened", "burned", "was sold", "was painted", "flooded", "was moved", "closed", "grew"]
PASSAGES = [
    Passage(id=f"{i}", title=PLACES[i % 8].title(), text=f"The {PLACES[i % 8]} {FACTS[i // 8 % 8]} in {1500 + i}.")
    for i in range(160)
]
QUESTIONS = ["Which castle burned in 1570?", "When was the mill sold?", "Where is the island?"]


class Encoder:
    """A sentence encoder that adds up a random vector for each word."""

    max_seq_length = None

    def __init__(self, kill_at: int | None = None) -> None:
        self.encoded, self.kill_at = 0, kill_at

    def tokenizer(self, texts: Sequence[str], **_: Any) -> dict[str, list[list[str]]]:
        return {"input_ids": [text.split() for text in texts]}

    def get_embedding_dimension(self) -> int:
        return 16

    def encode_document(self, texts: Sequence[str], **_: Any) -> Any:
        self.encoded += len(texts)
        if self.kill_at is not None and self.encoded > self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.encode_query(texts)

    def encode_query(self, texts: Sequence[str], **_: Any) -> Any:
        made = []
        for text in texts:
            seeds = [sum(map(ord, word)) for word in text.lower().split()]
            summed = np.sum([np.random.default_rng(seed).standard_normal(16) for seed in seeds], axis=0)
            made.append(summed / np.linalg.norm(summed))
        return np.array(made, dtype=np.float32)


@pytest.fixture
def encoder(monkeypatch: pytest.MonkeyPatch) -> Encoder:
    """An encoder that takes no time; blocks, parts and steps are small."""
    fake = Encoder()
    for module in (dense, compressing, indexing, sizing):
        monkeypatch.setattr(module, "load_encoder", lambda model: fake)
    monkeypatch.setattr(indexing, "identity", lambda model: "fake 1")
    monkeypatch.setattr(compressing, "_BATCHES", 1)
    monkeypatch.setattr(compressing, "_STEP", 16)
    monkeypatch.setattr(compressing, "_PART", 48)
    monkeypatch.setattr(compressing, "_ASKED", 20)
    return fake


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    write(tmp_path / "corpus.jsonl", PASSAGES)
    return tmp_path / "corpus.jsonl"


def make(corpus: Path, out: Path, **settings: Any) -> None:
    index(corpus, out, **{"retriever": "dense", "batch_size": 32, "compression": "int8", **settings})


def killed(work: Callable[[], object]) -> bool:
    """Whether work in a process of its own was killed."""
    child = os.fork()
    if not child:
        try:
            faiss.omp_set_num_threads(1)  # the parent's threads are not there: work for several would wait for ever
            work()
            os._exit(0)
        except BaseException:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_words_from_blocks_weigh_what_bm25s_says(block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import bm25s

    monkeypatch.setattr(bm25, "_BLOCK", block)
    passages = [Passage(id="none", text="the"), *PASSAGES, Passage(id="often", text="mill Mill MILLS mill's, a mill")]
    split, words = bm25.word_splitter(), {"": 0}
    ids = [array("i", [words.setdefault(w, len(words)) for w in split(selector_text(p))]) for p in passages]
    theirs = bm25s.BM25(method="lucene", k1=1.5, b=0.75)
    theirs.index((ids, words), show_progress=False)
    for scratch in (None, tmp_path):
        ours = BM25.build(passages, scratch=scratch)._engine
        assert ours.vocab_dict == theirs.vocab_dict
        for name in ("data", "indices", "indptr"):
            assert ours.scores[name].dtype == theirs.scores[name].dtype
            assert ours.scores[name].tobytes() == theirs.scores[name].tobytes()
    assert not list(tmp_path.iterdir())


def test_a_corpus_of_stop_words_alone_has_an_index(tmp_path: Path) -> None:
    built = BM25.build([Passage(id="1", text="the"), Passage(id="2", text="of the")], scratch=tmp_path)
    assert [(p.id, p.score) for p in built.search(["Who?"], 2)[0]] == [("1", 0), ("2", 0)]


def test_compressed_vectors_are_kept_in_half_precision_and_put_in_its_order(
    corpus: Path, tmp_path: Path, encoder: Encoder, capsys: pytest.CaptureFixture[str]
) -> None:
    make(corpus, tmp_path / "idx")
    opened = open_index(tmp_path / "idx")
    exact = Dense.build(PASSAGES, batch_size=32)
    assert isinstance(opened, Dense)
    for found, wanted in zip(opened.search(QUESTIONS, 10), exact.search(QUESTIONS, 10), strict=True):
        assert len({p.id for p in found} & {p.id for p in wanted}) >= 9
        assert [p.score for p in found] == pytest.approx([p.score for p in wanted], abs=2e-3)
    # All of them, although few lists are looked at.
    assert [len(found) for found in opened.search(QUESTIONS, len(PASSAGES))] == [len(PASSAGES)] * 3
    meta = json.loads((tmp_path / "idx" / META_FILE).read_text())["compression"]
    assert (meta["kind"], meta["factory"], meta["asked"]) == ("int8", "IVF4,SQ8", {"openings of passages": 20})
    assert meta["recall"][-1]["at_100"] >= 0.95
    assert meta["recall"][-1]["probes"] == meta["probes"]
    said = capsys.readouterr().err
    assert f"recall@100 {meta['recall'][-1]['at_100']:.3f} of a flat index" in said
    names = {path.name for path in (tmp_path / "idx").rglob("*")}
    assert names == {"passages.jsonl", "offsets.npy", "dense", "vectors.npy", "codes.faiss", META_FILE}
    assert not (tmp_path / "idx.part").exists()


def test_what_a_kill_left_is_continued(corpus: Path, tmp_path: Path, encoder: Encoder) -> None:
    make(corpus, tmp_path / "never", retriever="hybrid")
    encoder.kill_at, encoder.encoded = 100, 0
    assert killed(lambda: make(corpus, tmp_path / "idx", retriever="hybrid"))
    assert not (tmp_path / "idx").exists()
    encoder.kill_at, encoder.encoded = None, 0
    with pytest.raises(StaleError, match="another batch_size"):
        make(corpus, tmp_path / "idx", retriever="hybrid", batch_size=16)
    make(corpus, tmp_path / "idx", retriever="hybrid")
    assert encoder.encoded == len(PASSAGES) - 96  # three blocks of 32 were there
    assert file_hash(tmp_path / "idx") == file_hash(tmp_path / "never")
    assert {path.name for path in tmp_path.iterdir()} == {"corpus.jsonl", "idx", "never"}


def test_a_corpus_that_was_refused_is_mended_and_indexed(corpus: Path, tmp_path: Path, encoder: Encoder) -> None:
    good = corpus.read_text()
    corpus.write_text(good + "no JSON\n")
    with pytest.raises(DataError, match=r"corpus\.jsonl:161"):
        make(corpus, tmp_path / "idx")
    corpus.write_text(good)
    make(corpus, tmp_path / "idx")
    assert {path.name for path in tmp_path.iterdir()} == {"corpus.jsonl", "idx"}


@pytest.mark.parametrize("at", [0, 1, 3, 5])
def test_a_kill_while_vectors_are_compressed(
    corpus: Path, tmp_path: Path, encoder: Encoder, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(corpus, tmp_path / "never")
    written, write_whole = 0, compressing._write_whole

    def kill_at(vectors: Any, file: Path) -> None:
        nonlocal written
        if written == at:
            file.with_name(file.name + ".new").write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
        written += 1
        write_whole(vectors, file)

    monkeypatch.setattr(compressing, "_write_whole", kill_at)
    assert killed(lambda: make(corpus, tmp_path / "idx"))
    monkeypatch.setattr(compressing, "_write_whole", write_whole)
    encoder.encoded = 0
    make(corpus, tmp_path / "idx")
    assert encoder.encoded == 0
    assert file_hash(tmp_path / "idx") == file_hash(tmp_path / "never")


def test_a_large_flat_index_is_continued_and_is_that_of_one_go(
    corpus: Path, tmp_path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(corpus, tmp_path / "small", compression="auto")
    monkeypatch.setattr(indexing, "_SMALL", 10)
    monkeypatch.setattr(indexing, "_LARGE", 10)
    encoder.kill_at, encoder.encoded = 100, 0
    assert killed(lambda: make(corpus, tmp_path / "idx", compression="auto", preflight=False))
    encoder.kill_at, encoder.encoded = None, 0
    make(corpus, tmp_path / "idx", compression="auto", preflight=False)
    assert encoder.encoded == len(PASSAGES) - 96
    assert file_hash(tmp_path / "idx") == file_hash(tmp_path / "small")


def test_vectors_of_passages_that_did_not_change_are_taken(corpus: Path, tmp_path: Path, encoder: Encoder) -> None:
    make(corpus, tmp_path / "idx")
    write(corpus, [*PASSAGES[3:], Passage(id="new", text="A new lighthouse.")])
    encoder.encoded = 0
    make(corpus, tmp_path / "idx")
    assert encoder.encoded == 1
    make(corpus, tmp_path / "idx", compression="none")  # rounded vectors are no flat index
    assert encoder.encoded == 1 + len(PASSAGES) - 2


def test_batches_of_texts_of_like_length_give_the_same_vectors(encoder: Encoder) -> None:
    passages = [Passage(id=str(i), text="word " * (1 + i * 7 % 10) + str(i)) for i in range(50)]
    how = dense.Encoding("fake", True, 8)
    one, other = (
        np.concatenate([b.vectors for b in dense.encode_passages(encoder, passages, how, batches=4, by_tokens=sort)])
        for sort in (False, True)
    )
    assert (one == other).all()


@pytest.mark.parametrize("name", ["vectors.npy", "codes.faiss"])
def test_damaged_files_are_refused(corpus: Path, tmp_path: Path, encoder: Encoder, name: str) -> None:
    make(corpus, tmp_path / "idx")
    file = tmp_path / "idx" / "dense" / name
    data = file.read_bytes()
    for other in (b"", data[: len(data) // 2], b"null"):
        file.write_bytes(other)
        with pytest.raises(DataError, match="gainrag index"):
            open_index(tmp_path / "idx")
    if name == "codes.faiss":
        for place in range(0, 400, 7):
            file.write_bytes(data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :])
            with pytest.raises(DataError, match="gainrag index"):
                open_index(tmp_path / "idx").search(QUESTIONS, 3)
        file.write_bytes(data[:-8] + b"\xff" * 7 + b"\x7f")  # the last row of the last list
        with pytest.raises(DataError, match="gainrag index"):
            open_index(tmp_path / "idx").search(QUESTIONS, len(PASSAGES))
    file.write_bytes(data)
    vectors = np.load(tmp_path / "idx" / "dense" / "vectors.npy")
    np.save(tmp_path / "idx" / "dense" / "vectors.npy", np.full_like(vectors, np.nan))
    with pytest.raises(DataError, match="not finite"):
        open_index(tmp_path / "idx").search(QUESTIONS, 3)
    meta = json.loads((tmp_path / "idx" / META_FILE).read_text())
    (tmp_path / "idx" / META_FILE).write_text(json.dumps(meta | {"compression": {"kind": "int9"}}))
    with pytest.raises(DataError, match="compression"):
        open_index(tmp_path / "idx")


def test_a_folder_that_nobody_began_is_not_touched(corpus: Path, tmp_path: Path, encoder: Encoder) -> None:
    (tmp_path / "idx.part").mkdir()
    (tmp_path / "idx.part" / "thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match=r"idx\.part"):
        make(corpus, tmp_path / "idx")
    assert (tmp_path / "idx.part" / "thesis.txt").exists()


def test_a_finished_folder_that_was_not_tidied_is_an_index(tmp_path: Path) -> None:
    """Killed between the rename and the removal of what says how far it is."""
    with continue_folder(tmp_path / "out", {"a": 1}) as begun:
        (begun.folder / "file").write_text("1")
        begun.note(file=True)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["file"]
    with open_output_folder(tmp_path / "other") as folder:
        Begun(folder).note(file=True)
    assert not list((tmp_path / "other").iterdir())


def test_what_does_not_fit_is_refused_before_it_starts(
    corpus: Path, tmp_path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(indexing, "_SMALL", 10)
    make(corpus, tmp_path / "idx", retriever="hybrid", compression="auto")
    assert "160 passages: vectors flat, memory " in capsys.readouterr().err
    monkeypatch.setattr(sizing, "free_memory", lambda: 1e6)
    with pytest.raises(ResourceError, match=r"GB of memory.*--no-preflight"):
        make(corpus, tmp_path / "idx", compression="auto")
    make(corpus, tmp_path / "idx", compression="auto", preflight=False)
    monkeypatch.setattr(sizing, "free_memory", lambda: None)
    monkeypatch.setattr(sizing, "_free_disk", lambda out: 10.0)
    with pytest.raises(ResourceError, match="GB of disk"):
        make(corpus, tmp_path / "idx", compression="auto")


def test_how_many_passages_there_are_follows_from_the_size(tmp_path: Path) -> None:
    for name in ("corpus.jsonl", "corpus.jsonl.gz"):
        write(tmp_path / name, [Passage(id=str(i), text=f"{i} ships, {i * 7} sails") for i in range(5000)])
        seen = looked_at(tmp_path / name)
        assert not seen.corpus.counted
        assert len(seen.first) == 1000
        assert seen.corpus.passages == pytest.approx(5000, rel=0.15)


def test_compression_needs_less_memory() -> None:
    wiki = Corpus(21_000_000, 700.0, 55.0, True)
    flat, int8, pq = (needs(wiki, ["dense"], kind, 768) for kind in ("none", "int8", "pq"))
    assert flat.memory > int8.memory > pq.memory
    assert flat.disk > int8.disk > pq.disk
    assert pq.memory < 24e9 < flat.memory


@pytest.mark.parametrize("kind", ["int8", "pq"])
def test_every_kind_finds_what_a_flat_index_finds(kind: compressed.Kind, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    vectors, queries = (rng.standard_normal((n, 16)).astype(np.float32) for n in (1500, 20))
    np.save(tmp_path / "vectors.npy", vectors.astype(np.float16))
    found = compressing.compress(tmp_path, len(vectors), kind, lambda: ("questions", queries))
    assert found.factory == {"int8": "IVF38,SQ8", "pq": "IVF38,PQ4np"}[kind]
    assert found.recall[-1].at_100 >= 0.95
    index_of = Compressed(tmp_path, len(vectors), found)
    scores, rows = index_of.search(queries, 10)
    wanted = compressing.exact_rows(vectors, queries, 10)
    assert compressing.recall(rows, wanted, 10) >= 0.95
    assert scores == pytest.approx(np.take_along_axis(queries @ vectors.T, rows, 1), abs=0.02)
    assert (compressing.exact_rows(vectors, queries, 10)[:, 0] == (queries @ vectors.T).argmax(1)).all()


def test_settings_that_compress_nothing(corpus: Path, tmp_path: Path, encoder: Encoder) -> None:
    with pytest.raises(ConfigError, match="no vectors"):
        make(corpus, tmp_path / "idx", retriever="bm25")
    with pytest.raises(ConfigError, match="too few"):
        make(corpus, tmp_path / "idx", compression="pq")
    assert lists_for(1) == 1


def test_codes_of_other_vectors_are_refused(corpus: Path, tmp_path: Path, encoder: Encoder) -> None:
    make(corpus, tmp_path / "idx")
    meta = json.loads((tmp_path / "idx" / META_FILE).read_text())
    compression = compressed.read_compression(meta["compression"], tmp_path)
    assert compression is not None
    with pytest.raises(DataError, match="rows, not 5"):
        Compressed(tmp_path / "idx" / "dense", 5, compression)
