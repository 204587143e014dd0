"""An index whose files are damaged is refused, when it is opened or when it is searched: it never gives a ranking."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from gainrag.errors import DataError, GainragError, ModelError
from gainrag.indexing import index, open_index
from gainrag.protocols import Retriever
from gainrag.records import Passage, Question, Scored
from gainrag.retrieval import retrieve
from gainrag.retrievers import BM25, Hybrid, dense
from gainrag.testing import OverlapRetriever

TEXTS = ["Emma is a novel by Jane Austen.", "Everest is the highest mountain.", "The violin has four strings."]
QUESTION = "Who wrote the novel Emma, on which mountain, with a violin?"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("index")
    lines = [json.dumps({"id": f"p{i}", "text": text}) for i, text in enumerate(TEXTS)]
    (folder / "corpus.jsonl").write_text("\n".join(lines))
    index(folder / "corpus.jsonl", folder / "idx")
    return folder / "idx"


@pytest.fixture
def idx(whole: Path, tmp_path: Path) -> Path:
    """A copy of a hybrid index, to be damaged."""
    return Path(shutil.copytree(whole, tmp_path / "idx"))


def refused(folder: Path) -> None:
    """It cannot be opened and searched, and the error says what to do."""
    with pytest.raises(DataError) as caught:
        open_index(folder).search([QUESTION], 3)
    message = str(caught.value)
    assert str(folder) in message
    assert "gainrag index" in message
    assert "\n" not in message


JSON_FILES = ["index.meta.json", "bm25/params.index.json", "bm25/vocab.index.json"]
ARRAYS = ["offsets.npy", "bm25/data.csc.index.npy", "bm25/indices.csc.index.npy", "bm25/indptr.csc.index.npy"]
CONTENTS = [
    b"",
    b"null",
    b"[]",
    b"{}",
    b"5",
    b"[" * 100_000,
    b"\xff\xfe\x00",
    b'{"": "a"}',
    b'{"settings": null}',
    b"PK\x03\x04",
]


@pytest.mark.parametrize("name", [*JSON_FILES, *ARRAYS, "passages.jsonl", "dense.faiss"])
@pytest.mark.parametrize("content", CONTENTS)
def test_files_of_something_else(idx: Path, name: str, content: bytes) -> None:
    (idx / name).write_bytes(content)
    refused(idx)


@pytest.mark.parametrize("name", [*JSON_FILES, *ARRAYS, "passages.jsonl", "dense.faiss"])
def test_files_that_are_not_there_or_cut(idx: Path, name: str) -> None:
    data = (idx / name).read_bytes().rstrip(b"\n")
    for length in (1, len(data) // 2, len(data) - 1):
        (idx / name).write_bytes(data[:length])
        refused(idx)
    (idx / name).unlink()
    refused(idx)
    (idx / name).mkdir()
    refused(idx)


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_of_another_type_or_shape(idx: Path, name: str) -> None:
    good = np.load(idx / name)
    for other in (
        good.astype(np.float64),
        good.astype(np.int16),
        good.reshape(1, -1),
        good[:-1],
        np.concatenate([good, good]),
        np.array(5),
        np.array(["a"] * len(good)),
        np.array([], dtype=good.dtype),
    ):
        np.save(idx / name, other)
        refused(idx)
    np.save(idx / name, np.array([None] * len(good)), allow_pickle=True)
    refused(idx)


def change(name: str, act: Callable[[Any], None]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        values = np.load(folder / name)
        act(values)
        np.save(folder / name, values)

    return damage


def at(position: Any, value: float) -> Callable[[Any], None]:
    def act(values: Any) -> None:
        values[position] = value

    return act


def vectors(change: Callable[[Any], Any]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        old = faiss.read_index(str(folder / "dense.faiss"))
        faiss.write_index(change(old.reconstruct_n(0, old.ntotal)), str(folder / "dense.faiss"))

    return damage


def filled(kind: Any) -> Callable[[Any], Any]:
    def make(rows: Any) -> Any:
        made = kind(rows.shape[1])
        made.add(rows)
        return made

    return make


def with_nan(rows: Any) -> Any:
    rows[1, 5] = np.nan
    return filled(faiss.IndexFlatIP)(rows)


def with_large_ids(rows: Any) -> Any:
    made = faiss.IndexIDMap(faiss.IndexFlatIP(rows.shape[1]))
    made.add_with_ids(rows, np.arange(len(rows)) + 10**12)
    return made


def settings(**changes: Any) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        meta = json.loads((folder / "index.meta.json").read_text())
        meta["settings"].update(changes)
        (folder / "index.meta.json").write_text(json.dumps(meta))

    return damage


def params(**changes: Any) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        file = folder / "bm25" / "params.index.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        change("bm25/data.csc.index.npy", at(slice(None), np.nan)),
        change("bm25/data.csc.index.npy", at(slice(None), np.inf)),
        change("bm25/data.csc.index.npy", at(slice(None), -1.0)),
        change("bm25/indices.csc.index.npy", at(slice(None), -1)),
        change("bm25/indices.csc.index.npy", at(slice(None), 3)),
        change("bm25/indptr.csc.index.npy", at(1, -1)),
        change("bm25/indptr.csc.index.npy", at(1, 10**6)),
        change("offsets.npy", at(1, -5)),
        change("offsets.npy", at(1, 10**12)),
        change("offsets.npy", at(1, 3)),
        vectors(filled(faiss.IndexFlatL2)),
        vectors(filled(lambda d: faiss.IndexHNSWFlat(d, 8))),
        vectors(lambda rows: filled(faiss.IndexFlatIP)(rows[:2])),
        vectors(lambda rows: filled(faiss.IndexFlatIP)(np.ascontiguousarray(rows[:, :16]))),
        vectors(with_nan),
        vectors(with_large_ids),
        settings(retriever="bm26"),
        settings(retriever=None),
        settings(model=5),
        settings(normalize="yes"),
        params(num_docs=None),
        params(num_docs=4),
        params(method="bm25l"),
        params(k1="x"),
    ],
)
def test_values_that_cannot_be_right(idx: Path, damage: Callable[[Path], None]) -> None:
    damage(idx)
    refused(idx)


def test_any_flipped_byte_is_refused_or_does_no_harm(idx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be told from a good index still gives whole rankings."""
    encoder = dense.load_encoder(dense.MODEL)
    monkeypatch.setattr(dense, "load_encoder", lambda model: encoder)
    ids = {f"p{i}" for i in range(len(TEXTS))}
    shutil.rmtree(idx / "bm25")  # its arrays are looked at above; the file of vectors has a header of FAISS's own
    settings(retriever="dense")(idx)
    data = (idx / "dense.faiss").read_bytes()
    for place in range(64):
        (idx / "dense.faiss").write_bytes(data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :])
        try:
            (found,) = open_index(idx).search([QUESTION], 3)
        except GainragError:
            continue
        assert {passage.id for passage in found} == ids
        assert all(passage.score is not None and np.isfinite(passage.score) for passage in found)


# --- retrievers of others ------------------------------------------------------------------------------------------


class Gives:
    """A Retriever that gives what it was told."""

    def __init__(self, found: Any) -> None:
        self.found = found

    def search(self, questions: Any, k: int) -> Any:
        return self.found


P = Scored(id="1", text="t", score=1.0)


@pytest.mark.parametrize(
    ("found", "part"),
    [
        (None, "None, not lists of passages"),
        ([], "0 lists"),
        ([None], "something else"),
        ([[None]], "something else"),
        ([[Passage(id="1", text="t")]], "something else"),
        ([[P, P]], "duplicate"),
        ([[P, Scored(id="2", text="t"), Scored(id="3", text="t")]], "3 passages where 2"),
        ([[Scored(id="1", text="t", score=float("nan"))]], "score is nan"),
        ([[Scored(id="1", text=" ")]], "text is empty"),
    ],
)
def test_what_is_no_ranking_is_refused(found: Any, part: str) -> None:
    with pytest.raises(ModelError) as caught:
        retrieve([Question(id="q", question="?")], Gives(found), k=2)
    assert part in str(caught.value)
    assert "Gives" in str(caught.value)


def test_choices_and_other_keys_go_with_the_question() -> None:
    question = Question(id="q", question="?", choices=["yes", "no"], extra={"n": 1})
    (found,) = retrieve([question], Gives([[P]]), k=2)
    assert (found.choices, found.extra) == (["yes", "no"], {"n": 1})


def test_two_parts_of_one_kind_keep_their_scores() -> None:
    passages = [Passage(id=f"p{i}", text=text) for i, text in enumerate(TEXTS)]
    parts: list[Retriever] = [
        BM25.build(passages),
        OverlapRetriever(passages),
        BM25.build([*passages, Passage(id="more", text="A novel mountain.")]),
    ]
    (found,) = Hybrid(parts).search([QUESTION], 3)
    alone = {
        name: {p.id: p.score for p in part.search([QUESTION], 100)[0]}
        for name, part in zip(("bm25", "overlapretriever", "bm25-2"), parts, strict=True)
    }
    assert alone["bm25"] != alone["bm25-2"]
    for passage in found:
        expected = {name: scores[passage.id] for name, scores in alone.items() if passage.id in scores}
        assert passage.scores == expected
