"""The whole method on a small data set written for this project: `gainrag demo`.

corpus.jsonl, train.jsonl and test.jsonl lie beside this file. A question names in `outright`, `hint`, `mislead` and
`near` the passages that answer it, hint at the answer, tempt to a wrong one, or are near in topic but useless, and in
`needs` the one or two passages that the answer follows from. The method does not read these; the tests do.
"""

from __future__ import annotations

import sys
from pathlib import Path

from gainrag.files.streams import read
from gainrag.ingestion import read_passages, read_questions
from gainrag.records import GainRecord, Passage, Question
from gainrag.runs import names, printing, stages
from gainrag.runs.config import read_config

FOLDER = Path(__file__).parent
# Questions shown with every candidate's gain.
SHOWN = 2


def load() -> tuple[list[Question], list[Question], list[Passage]]:
    """Training questions, test questions and passages of the demo."""
    return (
        read_questions(FOLDER / "train.jsonl", need_answers=True),
        read_questions(FOLDER / "test.jsonl", need_answers=True),
        list(read_passages(FOLDER / "corpus.jsonl")),
    )


def demo(out: str | Path) -> None:
    """Run every stage, then print the table, two questions with every candidate's gain, and where the files are.

    Raises:
        GainragError: as `gainrag.runs.stages.run`.
    """
    config = read_config(FOLDER / "demo.toml", stages.STAGES)
    found = stages.run(config, out, **config.table("run"))
    print(printing.text_table(found, baseline=names.GAINRAG))
    gains = list(read(Path(out) / "gains" / "test.jsonl", GainRecord))
    for record in most_telling(gains)[:SHOWN]:
        print("\n" + printing.candidates_view(record))
    print(f"\nEverything is in {out}: see gains/ for the labels, selector/ for the model, answers/ for each system.")
    print("Now with your own passages and questions: gainrag run CONFIG.toml -o runs/mine", file=sys.stderr)


def most_telling(gains: list[GainRecord]) -> list[GainRecord]:
    """Questions answered right from the silver passage although the retriever put another one first, by how much the
    silver passage gains over the first."""
    telling = [r for r in gains if r.kept and r.silver != 0]
    return sorted(telling or gains, key=lambda r: r.ctxs[0].gain - r.ctxs[r.silver].gain)
