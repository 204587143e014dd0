"""The table of the six data sets. The test files of HotpotQA, 2WikiMultiHopQA and TriviaQA have no answers.

A split's file is the one that open-domain question answering uses: HotpotQA's distractor setting, TriviaQA's unfiltered
questions. Other files of the same format (hotpot_dev_fullwiki_v1.json, TriviaQA's rc) can be named one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gainrag.ingestion import formats
from gainrag.ingestion.formats import Found


@dataclass(frozen=True)
class Release:
    """A data set: its official files by split, the same splits on the hub, and its format."""

    name: str
    origin: str  # where the official files are available
    files: dict[str, str]  # split -> file name
    hub: str
    config: str | None  # of the hub's data set
    hub_splits: dict[str, str]  # split -> the hub's name for it
    entry: type[Any]
    read: Callable[[Any, str], Found]
    key: str | None = None  # where the list of entries stands in the file; at its top when None
    row: Callable[[Mapping[str, Any]], dict[str, Any]] = dict  # hub row -> official shape
    has_ids: bool = True


RELEASES: dict[str, Release] = {
    release.name: release
    for release in (
        Release(
            name="hotpotqa",
            origin="hotpotqa.github.io",
            files={
                "train": "hotpot_train_v1.1.json",
                "dev": "hotpot_dev_distractor_v1.json",
                "test": "hotpot_test_fullwiki_v1.json",
            },
            hub="hotpotqa/hotpot_qa",
            config="distractor",
            hub_splits={"train": "train", "dev": "validation"},
            entry=formats.Hotpot,
            read=formats.hotpot,
            row=formats.hotpot_row,
        ),
        Release(
            name="2wikimultihopqa",
            origin="data_ids_april7.zip at github.com/Alab-NII/2wikimultihop",
            files={"train": "train.json", "dev": "dev.json", "test": "test.json"},
            hub="framolfese/2WikiMultihopQA",
            config=None,
            hub_splits={"train": "train", "dev": "validation", "test": "test"},
            entry=formats.Hotpot,
            read=formats.hotpot,
            row=formats.hotpot_row,
        ),
        Release(
            name="nq",
            origin="github.com/google-research-datasets/natural-questions, folder nq_open",
            files={"train": "NQ-open.train.jsonl", "dev": "NQ-open.dev.jsonl"},
            hub="google-research-datasets/nq_open",
            config="nq_open",
            hub_splits={"train": "train", "dev": "validation"},
            entry=formats.NQ,
            read=formats.nq,
            has_ids=False,
        ),
        Release(
            name="triviaqa",
            origin="triviaqa-unfiltered.tar.gz at nlp.cs.washington.edu/triviaqa",
            files={
                "train": "unfiltered-web-train.json",
                "dev": "unfiltered-web-dev.json",
                "test": "unfiltered-web-test-without-answers.json",
            },
            hub="mandarjoshi/trivia_qa",
            config="unfiltered.nocontext",
            hub_splits={"train": "train", "dev": "validation", "test": "test"},
            entry=formats.Trivia,
            read=formats.trivia,
            key="Data",
            row=formats.trivia_row,
        ),
        Release(
            name="webquestions",
            origin="nlp.stanford.edu/software/sempre (packed as .bz2: unpack it)",
            files={"train": "webquestions.examples.train.json", "test": "webquestions.examples.test.json"},
            hub="stanfordnlp/web_questions",
            config=None,
            hub_splits={"train": "train", "test": "test"},
            entry=formats.WebQuestion,
            read=formats.web_question,
            has_ids=False,
        ),
        Release(
            name="squad",
            origin="rajpurkar.github.io/SQuAD-explorer",
            files={"train": "train-v1.1.json", "dev": "dev-v1.1.json"},
            hub="rajpurkar/squad",
            config=None,
            hub_splits={"train": "train", "dev": "validation"},
            entry=formats.Article,
            read=formats.squad,
            key="data",
            row=formats.squad_row,
        ),
    )
}
