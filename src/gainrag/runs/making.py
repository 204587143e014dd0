"""The data that a run makes itself: a corpus of documents, and questions on it that the language model writes.

data/NAME/   corpus.jsonl left_out.jsonl          of `documents`: as `gainrag ingest docs` writes them
             train.jsonl test.jsonl               of data sets without questions: as `gainrag ask` writes them
             written-1.jsonl ..                   every question that was written, with the reason where it was rejected
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gainrag import asking, ingestion
from gainrag.errors import DataError
from gainrag.files.meta import hashes
from gainrag.files.progress import say
from gainrag.files.streams import write
from gainrag.retrievers import BM25
from gainrag.runs.config import Dataset
from gainrag.runs.folder import CONFIG, Run


def ingest_all(run: Run) -> None:
    """Read the documents of every data set that names some; of those that were read before, what has changed.

    Raises:
        DataError: there is no such folder, or none of its files has text.
        ModelError: the tokenizer cannot be loaded.
        ResourceError: the disk is full.
    """
    for dataset in run.config.datasets:
        if dataset.documents is None or dataset.corpus is None:
            continue
        name = dataset.corpus.relative_to(run.folder)
        say(f"{name}: documents of {dataset.documents}")
        skip = _runs_among(dataset.documents, run.folder)
        found = ingestion.ingest_documents(dataset.documents, dataset.corpus.parent, skip, **run.config.table("ingest"))
        for line in str(found).splitlines():
            say(f"  {line}")


def _runs_among(documents: Path, folder: Path) -> list[Path]:
    """The run folder and those beside it, where they lie among the documents: their reports are none."""
    own = folder.resolve()
    if not own.is_relative_to(documents.resolve()):
        return []
    return [own, *(path.parent for path in own.parent.glob(f"*/{CONFIG}") if path.parent != documents.resolve())]


def ask_all(run: Run) -> None:
    """Have the language model write the questions of every data set that has none; the proxy, where one labels.

    A run holds questions out of those that it learns from, so there is no tune split here.

    Raises:
        ConfigError: the model tells no losses.
        DataError: no question was kept, or too few for both splits.
        GainragError: whatever the model raises.
    """
    for dataset in run.config.datasets:
        if dataset.asked:
            _ask(run, dataset)


def _ask(run: Run, dataset: Dataset) -> None:
    corpus, train, test = dataset.corpus, dataset.train, dataset.test
    assert corpus is not None, "what is asked about has a corpus"
    assert train is not None
    assert test is not None
    table = run.config.table("ask")
    inputs = {"corpus": corpus, **({"questions": dataset.questions} if dataset.questions else {})}
    settings = {**run.prompted(asking.ask, table, proxy=run.proxy), "tune": 0.0}
    # What is written does not depend on what people asked.
    own = {"llm": settings["llm"], "inputs": hashes({"corpus": corpus})}
    asked: list[asking.Questions] = []  # of both splits, once

    def written() -> asking.Questions:
        if not asked:
            passages = list(ingestion.read_passages(corpus))
            real = ingestion.read_questions(dataset.questions, need_answers=True) if dataset.questions else []
            retriever, lm = BM25.build(passages), run.lm(run.proxy)  # the run's own index comes later
            asked.append(asking.ask(passages, lm, retriever, train.parent, own, real, tune=0.0, **table))
            for line in str(asked[0]).splitlines():
                say(f"  {line}")
        return asked[0]

    for split, artefact in (("train", train), ("test", test)):

        def make(_: dict[str, Any], split: str = split, artefact: Path = artefact) -> dict[str, Any]:
            found = written()
            if not found.splits[split]:
                kept = sum(map(len, found.splits.values()))
                hint = "raise n of [ask], or use a larger model"
                raise DataError(f"no question for {split}: {kept} were kept", where="[ask]", hint=hint)
            write(artefact, found.splits[split])
            return {"tried": found.tried, **found.rejected}

        run.stage(artefact, settings, inputs, make)
