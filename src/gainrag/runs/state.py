"""A run under way, as its stages see it: each reads what those before it made, and adds its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gainrag.evaluation import Evaluation
from gainrag.records import Answer, GainRecord, Question, Retrieved
from gainrag.runs.config import Options
from gainrag.runs.folder import Run
from gainrag.runs.thresholds import Thresholds


@dataclass
class State:
    """A run under way: what it was given, and what its stages have made so far.

    found: every question of the data sets, by split.
    train, test: all training questions in the order of a draw, and the drawn test questions.
    labelled: of the training questions those that get gain labels, by id, with their data set.
    retrieved: "train", "test", and the test questions' lists by the name of their retriever.
    candidates, gains: by split; no gains of the test split where `oracle` is off.
    selectors: by system and test data set, the folder of the selector that ranks its questions.
    chosen: by system, what it gives to the language model; K/SYSTEM are those of the sweep, SYSTEM.seed1 .. those of
        its further seeds.
    thresholds: by data set with two fixed choices and by system, what the margin of the two is compared with.
    """

    run: Run
    options: Options
    found: dict[str, list[Question]] = field(default_factory=dict)
    train: list[Question] = field(default_factory=list)
    test: list[Question] = field(default_factory=list)
    labelled: dict[str, str] = field(default_factory=dict)
    retrieved: dict[str, list[Retrieved]] = field(default_factory=dict)
    candidates: dict[str, list[Retrieved]] = field(default_factory=dict)
    gains: dict[str, list[GainRecord]] = field(default_factory=dict)
    selectors: dict[str, dict[str, Path]] = field(default_factory=dict)
    chosen: dict[str, list[Retrieved]] = field(default_factory=dict)
    thresholds: Thresholds = field(default_factory=dict)
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    evaluation: Evaluation | None = None

    def table(self, stage: str) -> dict[str, Any]:
        """The config's settings of a stage."""
        return self.run.config.table(stage)

    def path(self, *parts: str) -> Path:
        """A path inside the run folder."""
        return self.run.path(*parts)
