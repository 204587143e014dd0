"""What a run retrieves for its questions: lists of passages by split and retriever, and the indexes they come from.

retrieved/   train.jsonl test.jsonl test.RETRIEVER.jsonl
             weights.json           of fusion by scores: each part's, fitted on training questions
index/       one folder a corpus, by the name of the first data set that has it
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from gainrag import indexing, retrieval
from gainrag.files.meta import digest, hashes, is_current, meta_path, was_made
from gainrag.files.progress import say
from gainrag.files.streams import read, read_json, write, write_json
from gainrag.models.identity import identity
from gainrag.protocols import Retriever
from gainrag.records import Question, Retrieved
from gainrag.retrievers.hybrid import Fusion, Hybrid, fit_weights
from gainrag.runs.folder import Run
from gainrag.runs.recorded import read_meta
from gainrag.settings import recorded, settings_of

# So many training questions of a data set say what a hybrid's parts weigh: more do not change it.
_FITTED = 200
# What a list that was fused by weights names among the inputs that it was made from.
_WEIGHTS = "weights"


def retrieve_all(
    run: Run, train: Sequence[Question], test: Sequence[Question], train_k: int | None, every: Sequence[Question]
) -> dict[str, list[Retrieved]]:
    """Lists of passages: "train" and "test" are the candidates of either split's questions, other keys the test
    questions' lists by the name of their retriever.

    Where a data set brings its passages, a list of all test questions is no retriever's: it is called "retrieved", and
    single retrievers have none.

    Args:
        train: the training questions that lists are wanted of.
        every: all training questions, as they are in questions/train.jsonl. Weights are fitted on some of these, so
            that they stay what they are when more questions are labelled.
    """
    table, whole = run.config.table("retrieve"), settings_of(indexing.index, run.config.table("index"))["retriever"]
    homes: dict[Path, str] = {}  # where a corpus is indexed: once, however many data sets search it
    for dataset in run.config.datasets:
        if dataset.corpus:
            homes.setdefault(dataset.corpus, dataset.name)
    brought = [dataset.name for dataset in run.config.datasets if not dataset.corpus]
    if homes and brought:
        say(f"{', '.join(brought)} brought passages: systems \"retrieved top-K\" have these and those searched here")
    single = [] if brought else [name for name in indexing.parts_of(whole) if name != whole]
    wanted: list[tuple[str, Sequence[Question], str | None]] = [("train", train, None), ("test", test, None)]
    wanted += [("test", test, name) for name in single]
    some = len(train) < len(every)
    indexes = _Indexes(run, homes)
    weights = indexes.weigh(every) if indexes.fusion == "scores" else {}
    stages = []
    for split, questions, only in wanted:
        artefact = run.path("retrieved", f"{split if only is None else f'{split}.{only}'}.jsonl")
        inputs = {"questions": run.path("questions", f"{split}.jsonl"), **indexes.metas()}
        if only is None:
            inputs |= weights
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
        run.stage(*stage)
    found = {artefact.stem: list(read(artefact, Retrieved)) for artefact, *_ in stages}
    lists = {"train": found["train"], "test": found["test"]} | {name: found[f"test.{name}"] for name in single}
    lists["retrieved" if brought else whole] = found["test"]
    return lists


class _Indexes:
    """The indexes of a run, by data set once they are `opened`. They are built where they never were; one that was and
    is gone is built again when something has to be searched, not before."""

    def __init__(self, run: Run, homes: Mapping[Path, str]) -> None:
        self.run, self.homes = run, homes
        self.fusion = _fusion(run, [meta_path(self._folder(name)) for name in homes.values()])
        self.settings = recorded(indexing.index, run.config.table("index"))
        del self.settings["fusion"]  # is no matter of the index's words and vectors: `weigh`
        self.settings.pop("preflight", None)  # nor is that
        if "dense" in indexing.parts_of(self.settings["retriever"]):
            self.settings["identity"] = identity(self.settings["model"])
        self.opened: dict[str, Any] = {}
        self.fitted: dict[str, float] | None = None  # what a hybrid's parts weigh, once it is known
        for corpus, name in homes.items():
            gone = not self._folder(name).exists()
            if not (gone and was_made(self._folder(name), self.settings, hashes({"corpus": corpus}))):
                self._build(corpus, name)

    def metas(self) -> dict[str, Path]:
        """What a list that was retrieved from them depends on."""
        return {f"index of {name}": meta_path(self._folder(name)) for name in self.homes.values()}

    def weigh(self, every: Sequence[Question]) -> dict[str, Path]:
        """Fit what the parts of the hybrids weigh; the file that says so, as an input of what is retrieved by it.

        The weights are those of all data sets together: fitted for each by itself they are no better, and one that has
        no training questions would have none.
        """
        artefact = self.run.path("retrieved", "weights.json")
        inputs = {"questions": self.run.path("questions", "train.jsonl"), **self.metas()}
        settings = {"questions": _FITTED}

        def make(_: dict[str, Any]) -> None:
            asked = []
            for name, hybrid in self.opened.items():
                asked.append((hybrid, [q for q in every if q.extra["dataset"] == name][:_FITTED]))
            found = fit_weights(asked)
            say("weights of the scores: " + ", ".join(f"{part} {weight}" for part, weight in found.items()))
            write_json(artefact, found)

        if not is_current(artefact, settings, hashes(inputs)):
            self.open()
        self.run.stage(artefact, settings, inputs, make)
        self.fitted = read_json(artefact)
        return {_WEIGHTS: artefact}

    def open(self) -> None:
        """Open them all, fusing as the run does."""
        for corpus, name in self.homes.items():
            if not self._folder(name).exists():
                self._build(corpus, name)
            if self.fusion:
                # In the folder itself, so that whoever else opens it finds what the run found.
                indexing.set_fusion(self._folder(name), self.fusion, self.fitted)
        by_corpus = {corpus: indexing.open_index(self._folder(name)) for corpus, name in self.homes.items()}
        self.opened = {d.name: by_corpus[d.corpus] for d in self.run.config.datasets if d.corpus}

    def _folder(self, name: str) -> Path:
        return self.run.path("index", name)

    def _build(self, corpus: Path, name: str) -> None:
        folder = self._folder(name)

        def make(_: dict[str, Any]) -> None:
            indexing.index(corpus, folder, **self.run.config.table("index"))

        self.run.stage(folder, self.settings, {"corpus": corpus}, make)


def _fusion(run: Run, indexes: Sequence[Path]) -> Fusion | None:
    """How the run's hybrids fuse; None where there is none.

    Lists that are there and were fused by ranks, as all were before there was a choice, stay so where the config does
    not say: labels are made of them.

    Args:
        indexes: the meta files of the run's indexes.
    """
    table = run.config.table("index")
    settings = settings_of(indexing.index, table)
    if settings["retriever"] != "hybrid" or not indexes:
        return None
    lists = meta_path(run.path("retrieved", "train.jsonl"))
    if "fusion" not in table and settings["fusion"] == "scores" and all(path.exists() for path in (lists, *indexes)):
        fused = all(read_meta(path).settings.get("retriever") == "hybrid" for path in indexes)
        if fused and _WEIGHTS not in read_meta(lists).inputs:
            say('this run fuses ranks, as it began; to retrieve and label anew by scores: fusion = "scores" in [index]')
            return "ranks"
    return cast(Fusion, settings["fusion"])


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
