"""What a run retrieves for its questions: lists of passages by split and retriever, and the indexes they come from.

retrieved/   train.jsonl test.jsonl test.RETRIEVER.jsonl
index/       one folder a corpus, by the name of the first data set that has it
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gainrag import indexing, retrieval
from gainrag.files.meta import digest, hashes, is_current, meta_path, was_made
from gainrag.files.progress import say
from gainrag.files.streams import read, write
from gainrag.models.identity import identity
from gainrag.protocols import Retriever
from gainrag.records import Question, Retrieved
from gainrag.retrievers.hybrid import Hybrid
from gainrag.runs.folder import Run
from gainrag.settings import settings_of


def retrieve_all(
    state: Run, train: Sequence[Question], test: Sequence[Question], train_k: int | None, *, some: bool
) -> dict[str, list[Retrieved]]:
    """Lists of passages: "train" and "test" are the candidates of either split's questions, other keys the test
    questions' lists by the name of their retriever.

    Where a data set brings its passages, a list of all test questions is no retriever's: it is called "retrieved", and
    single retrievers have none.

    Args:
        some: whether there are further training questions in questions/train.jsonl.
    """
    table, whole = state.config.table("retrieve"), settings_of(indexing.index, state.config.table("index"))["retriever"]
    homes: dict[Path, str] = {}  # where a corpus is indexed: once, however many data sets search it
    for dataset in state.config.datasets:
        if dataset.corpus:
            homes.setdefault(dataset.corpus, dataset.name)
    brought = [dataset.name for dataset in state.config.datasets if not dataset.corpus]
    if homes and brought:
        say(f"{', '.join(brought)} brought passages: systems \"retrieved top-K\" have these and those searched here")
    single = [] if brought else [name for name in indexing.parts_of(whole) if name != whole]
    wanted: list[tuple[str, Sequence[Question], str | None]] = [("train", train, None), ("test", test, None)]
    wanted += [("test", test, name) for name in single]
    indexes = _Indexes(state, homes)
    stages = []
    for split, questions, only in wanted:
        artefact = state.path("retrieved", f"{split if only is None else f'{split}.{only}'}.jsonl")
        inputs = {"questions": state.path("questions", f"{split}.jsonl"), **indexes.metas()}
        own = {**table, "k": train_k} if split == "train" and train_k is not None else table
        settings = {**settings_of(retrieval.retrieve, own), "retriever": only}
        if split == "train" and some:
            settings["ids"] = digest("\n".join(question.id for question in questions))

        def make(
            _: dict[str, Any],
            questions: Sequence[Question] = questions,
            only: str | None = only,
            to: Path = artefact,
            own: Mapping[str, Any] = own,
        ) -> None:
            write(to, _search(indexes.opened, questions, only, own))

        stages.append((artefact, settings, inputs, make))
    # Before any of them: an index that is built again may be another, and then all lists are.
    if not all(is_current(artefact, settings, hashes(inputs)) for artefact, settings, inputs, _ in stages):
        indexes.open()
    for stage in stages:
        state.stage(*stage)
    found = {artefact.stem: list(read(artefact, Retrieved)) for artefact, *_ in stages}
    lists = {"train": found["train"], "test": found["test"]} | {name: found[f"test.{name}"] for name in single}
    lists["retrieved" if brought else whole] = found["test"]
    return lists


class _Indexes:
    """The indexes of a run, by data set once they are `opened`. They are built where they never were; one that was and
    is gone is built again when something has to be searched, not before."""

    def __init__(self, state: Run, homes: Mapping[Path, str]) -> None:
        self.state, self.homes = state, homes
        self.settings = settings_of(indexing.index, state.config.table("index"))
        if "dense" in indexing.parts_of(self.settings["retriever"]):
            self.settings["identity"] = identity(self.settings["model"])
        self.opened: dict[str, Any] = {}
        for corpus, name in homes.items():
            gone = not self._folder(name).exists()
            if not (gone and was_made(self._folder(name), self.settings, hashes({"corpus": corpus}))):
                self._build(corpus, name)

    def metas(self) -> dict[str, Path]:
        """What a list that was retrieved from them depends on."""
        return {f"index of {name}": meta_path(self._folder(name)) for name in self.homes.values()}

    def open(self) -> None:
        """Open them all."""
        for corpus, name in self.homes.items():
            if not self._folder(name).exists():
                self._build(corpus, name)
        by_corpus = {corpus: indexing.open_index(self._folder(name)) for corpus, name in self.homes.items()}
        self.opened = {d.name: by_corpus[d.corpus] for d in self.state.config.datasets if d.corpus}

    def _folder(self, name: str) -> Path:
        return self.state.path("index", name)

    def _build(self, corpus: Path, name: str) -> None:
        folder = self._folder(name)

        def make(_: dict[str, Any]) -> None:
            indexing.index(corpus, folder, **self.state.config.table("index"))

        self.state.stage(folder, self.settings, {"corpus": corpus}, make)


def _parts(retriever: Retriever) -> dict[str, Retriever]:
    """The retrievers a hybrid is made of, by their names; none for a single one."""
    parts = retriever.retrievers if isinstance(retriever, Hybrid) else ()
    return {type(part).__name__.lower(): part for part in parts}


def _search(
    opened: Mapping[str, Any], questions: Sequence[Question], only: str | None, table: Mapping[str, Any]
) -> list[Retrieved]:
    """Every question searched in its own data set, in the order of the questions."""
    by_id: dict[str, Retrieved] = {q.id: q for q in questions if isinstance(q, Retrieved)}  # brought their passages
    for name, retriever in opened.items():
        mine = [q for q in questions if q.extra["dataset"] == name]
        searched = _parts(retriever)[only] if only else retriever
        by_id |= {r.id: r for r in retrieval.retrieve(mine, searched, **table)}
    return [by_id[q.id] for q in questions]
