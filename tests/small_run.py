"""The data, config and language model of a whole run on a handful of questions; the fixture `folder` writes them.

The selectors start from `tiny`, a cross-encoder of a few thousand weights: what a run makes of its parts is tested, not
how well they learn. With WITH_REAL_BASE a run has the encoder that is the default.
"""

from __future__ import annotations

import json
from pathlib import Path

from gainrag.evaluation import Evaluation
from gainrag.records import Retrieved, Scored
from gainrag.runs import stages
from gainrag.runs.config import Config, read_config
from gainrag.testing import OverlapLM

RIVERS = {
    "Paris": "Seine",
    "Berlin": "Spree",
    "London": "Thames",
    "Vienna": "Danube",
    "Rome": "Tiber",
    "Prague": "Vltava",
}

CONFIG = """
[run]
diagnose = 0
warm_start_questions = 3

[[dataset]]
name = "rivers"
corpus = "corpus.jsonl"
train = "train.jsonl"
test = "test.jsonl"

[retrieve]
k = 4

[train]
kind = "cross-encoder"
base = "tiny"
epochs = 1
only_kept = false
group_size = 4
"""

WITH_REAL_BASE = CONFIG.replace('base = "tiny"\n', "")


class Model(OverlapLM):
    """The overlap model with what a local model says of itself."""

    name, dtype, device = "overlap", "float32", "cpu"


def write_data(folder: Path) -> None:
    """A corpus of two passages a city, four training questions, two test questions, and the config."""
    corpus = [
        line
        for city, river in RIVERS.items()
        for line in (
            {"id": f"{city}-1", "text": f"{river} is the river that flows through {city}."},
            {"id": f"{city}-2", "text": f"Rain falls on {city} in winter."},
        )
    ]
    questions = [
        {"id": city, "question": f"Which river flows through {city}?", "answers": [river], "level": "easy"}
        for city, river in RIVERS.items()
    ]
    for name, lines in (("corpus", corpus), ("train", questions[:4]), ("test", questions[4:])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "config.toml").write_text(CONFIG)


def config_of(folder: Path) -> Config:
    return read_config(folder / "config.toml", stages.STAGES)


def run(folder: Path, update: bool = False) -> Evaluation:
    config = config_of(folder)
    return stages.run(config, folder / "out", update, **config.table("run"))


def cities() -> list[Retrieved]:
    """Forty questions with three passages each, of which the last names the answer."""
    return [
        Retrieved(
            id=f"q{i}",
            question=f"Who founded city number {i}?",
            answers=[f"Founder{i}", f"Mister Founder{i}"],
            ctxs=[
                Scored(id=f"p{i}a", text=f"Rain falls on city {i} in winter.", score=3.0, hasanswer=False),
                Scored(id=f"p{i}b", text="Somebodyelse founded another city.", score=2.0, hasanswer=False),
                Scored(id=f"p{i}c", text=f"Founder{i} laid its first stone.", score=1.0, hasanswer=True),
            ],
        )
        for i in range(40)
    ]
