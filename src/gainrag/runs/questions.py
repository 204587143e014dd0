"""What a run learns from and is tested on: the questions of its data sets, and draws of them by a seed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from gainrag import ingestion
from gainrag.errors import DataError
from gainrag.records import GainRecord, Question, Retrieved
from gainrag.runs.config import Config

T = TypeVar("T", Question, Retrieved, GainRecord)


def read_all(config: Config) -> dict[str, list[Question]]:
    """Every question of a config's data sets by split, each marked with its data set; of several data sets its id
    begins with the name.

    Raises:
        DataError: a file is missing, malformed or empty.
    """
    found: dict[str, list[Question]] = {"train": [], "test": []}
    for dataset in config.datasets:
        reader = ingestion.read_questions if dataset.corpus else ingestion.read_retrieved
        for split in found:
            path = dataset.split(split)
            for question in reader(path, need_answers=True) if path else ():
                if len(config.datasets) > 1:
                    question.id = f"{dataset.name}/{question.id}"
                question.extra = {**question.extra, "dataset": dataset.name}
                found[split].append(question)
    return found


def by_dataset(records: Iterable[T]) -> dict[str, list[T]]:
    """Questions, or what was made of them, by the name of their data set."""
    groups: dict[str, list[T]] = {}
    for record in records:
        groups.setdefault(str(record.extra["dataset"]), []).append(record)
    return groups


def draw(questions: Sequence[Question], n: int, seed: int) -> list[Question]:
    """n questions of each data set, by the seed, data sets taking turns; all where n is 0 or more than there are."""
    drawn = []
    for group in by_dataset(questions).values():
        order = np.random.default_rng(seed).permutation(len(group))
        drawn.append([group[i] for i in (order[:n] if n else order)])
    longest = max(map(len, drawn), default=0)
    return [group[i] for i in range(longest) for group in drawn if i < len(group)]


def check_apart(found: Mapping[str, Sequence[Question]]) -> None:
    """Whether no question is both learned from and tested on.

    Raises:
        DataError: one is.
    """
    if shared := {q.question for q in found["train"]} & {q.question for q in found["test"]}:
        raise DataError(
            f"{len(shared)} questions are both in train and in test, such as {min(shared)!r}",
            where="[[dataset]]",
            hint="remove them from one of the two: a test on training questions shows nothing",
        )
