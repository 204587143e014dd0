"""A finished run folder made of nothing but records: quick to make, any number of questions, text that bites."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar
from zlib import crc32

import numpy as np

from gainrag import evaluation
from gainrag.files.streams import write, write_json
from gainrag.metrics import holds_answer
from gainrag.records import Answer, Gained, GainRecord, Retrieved, Scored
from gainrag.runs import names
from gainrag.selection import rescored

T = TypeVar("T")

SYSTEMS = (
    "no retrieval",
    "bm25 top-1",
    "hybrid top-1",
    "hybrid top-3",
    names.RELEVANCE,
    names.NO_PSEUDO,
    names.GAINRAG,
    names.FIRST_WITH,
    names.ORACLE,
)
BITES = '</script><script>window.bitten = 1</script><!-- <img src="http://example.org/x.png" onerror="bitten = 1">'
CONFIG = """
[[dataset]]
name = "sea"
train = "a"
test = "b"

[[dataset]]
name = "shore"
train = "c"
test = "d"

[train]
kind = "cross-encoder"
temperature = 0.5
"""


def make_run(
    folder: Path,
    n: int = 60,
    candidates: int = 5,
    scores: bool = True,
    sweep: bool = True,
    datasets: Sequence[str] = ("shore", "sea"),
    variants: Mapping[str, Mapping[str, Any]] | None = None,
) -> Path:
    """A run on n questions, the first of which has markup in every text.

    variants: by system, its settings as a [[variant]] of the config; half of the questions count as labelled.

    Every question has `candidates` retrieved passages and a pseudo-passage. Gains are drawn at random, the selectors'
    scores are gains with noise; an answer is right more often where the passages read hold it.
    """
    rng = np.random.default_rng(7)
    gains: list[GainRecord] = []
    variants = variants or {}
    read: dict[str, list[Answer]] = {name: [] for name in (*SYSTEMS, *variants)}
    scored: dict[str, list[Retrieved]] = {name: [] for name in (names.RELEVANCE, names.GAINRAG, *variants)}
    swept: dict[int, dict[str, list[Answer]]] = {2: {}, 3: {}}
    for i in range(n):
        record = _question(i, candidates, rng, datasets[i % len(datasets)])
        gains.append(record)
        true = np.array([c.gain for c in record.ctxs])
        plain = [Scored(id=c.id, title=c.title, text=c.text, origin=c.origin, score=c.score) for c in record.ctxs]
        order = {
            names.RELEVANCE: rescored(plain, true + rng.normal(0, 3, len(true)), len(plain)),
            names.GAINRAG: rescored(plain, true + rng.normal(0, 1, len(true)), len(plain)),
        }
        others = {name: rescored(plain, true + rng.normal(0, 2, len(true)), len(plain)) for name in variants}
        for system, ranked in (order | others).items():
            scored[system].append(_as(Retrieved, record, ctxs=ranked))
        firsts = {
            "no retrieval": [],
            "bm25 top-1": [Scored(id="far", title="No candidate", text="Found by this retriever alone.", score=1.0)],
            "hybrid top-1": plain[:1],
            "hybrid top-3": plain[:3],
            names.RELEVANCE: order[names.RELEVANCE][:1],
            names.NO_PSEUDO: [c for c in order[names.GAINRAG] if c.origin != "generated"][:1],
            names.GAINRAG: order[names.GAINRAG][:1],
            names.FIRST_WITH: rescored(plain, [holds_answer(c, record.answers) for c in plain], 1),
            names.ORACLE: rescored(plain, true, 1),
            **{name: ranked[:1] for name, ranked in others.items()},
        }
        for system, ctxs in firsts.items():
            read[system].append(_answer(record, ctxs))
        for k, by_system in swept.items():
            for system, ranked in order.items():
                by_system.setdefault(system, []).append(_answer(record, ranked[:k]))
    (folder / "answers").mkdir(parents=True)
    tables = []
    for name, own in variants.items():
        rows = [f"{key} = {json.dumps(value)}\n" for key, value in {"name": name, **own}.items()]
        tables.append("".join(["\n[[variant]]\n", *rows]))
    (folder / "config.toml").write_text("".join([CONFIG, *tables]))
    write(folder / "gains" / "test.jsonl", gains)
    write(folder / "gains" / "train.jsonl", gains[: n // 2])
    settings = {"alpha": [0.0], "llm": {"model": "none", "dtype": "float32"}}
    meta = {"settings": settings, "inputs": {}, "versions": {"python": "3.11"}}
    write_json(folder / "gains" / "test.meta.json", meta)
    write_json(folder / "selector.meta.json", {**meta, "settings": {"alpha": None, "temperature": 0.5}})
    for system, answers in read.items():
        write(folder / "answers" / f"{names.file_name(system)}.jsonl", answers)
    if scores:
        for system, records in scored.items():
            write(folder / "scores" / f"{names.file_name(system)}.jsonl", records)
    if sweep:
        for k, by_system in swept.items():
            for system, answers in by_system.items():
                write(folder / "answers" / str(k) / f"{names.file_name(system)}.jsonl", answers)
    found = evaluation.evaluate(read, resamples=200, group_by="dataset")
    write_json(folder / "evaluation.json", found.to_json())
    return folder


def _question(i: int, candidates: int, rng: np.random.Generator, dataset: str) -> GainRecord:
    bites = f" {BITES}" if i == 0 else ""
    answer = f"Harbour{i}" if i % 3 else f"Old Harbour{i}"
    ctxs = []
    for j in range(candidates + 1):
        generated = j == candidates
        gain = round(float(-rng.uniform(0.7, 6)), 6)
        holds = gain > -2.5
        text = f"The ship called at {answer}.{bites}" if holds else f"Nothing is known of ship {i}.{bites}"
        ctxs.append(
            Gained(
                id=f"q{i}" if generated else f"p{i}-{j}",
                title="" if generated else f"Log {j} $x$ | of ship {i}{bites}",
                text=f"{text} {'Waves. ' * 60}",
                origin="generated" if generated else "corpus",
                score=None if generated else float(candidates - j),
                loss={"0.0": -gain},
                gain=gain,
            )
        )
    return GainRecord(
        id=f"sea/{i}" if i else 'sea/<0>"',
        question=f"Where did ship {i} call?{bites}",
        answers=[answer, f"the port of {answer}"],
        kept=True,
        prediction=answer,
        silver=int(np.argmax([c.gain for c in ctxs])),
        ctxs=ctxs,
        extra={"dataset": dataset, "question_type": "where" if i % 4 else "when"},
    )


def _answer(record: GainRecord, ctxs: list[Scored]) -> Answer:
    gold = record.answers[0]
    # Greedy: the same passages, the same answer; right more often, but not always, where a passage holds the answer.
    luck = crc32("".join([record.id, *(c.id for c in ctxs)]).encode()) % 10
    said = f"It was {gold}" if luck < (7 if any(gold in c.text for c in ctxs) else 2) else "It was nowhere"
    return _as(Answer, record, prediction=said, ctxs=ctxs, extra={"dataset": record.extra["dataset"]})


def _as(kind: Callable[..., T], record: GainRecord, **fields: object) -> T:
    shared = {name: getattr(record, name) for name in ("id", "question", "answers", "extra")}
    return kind(**{**shared, **fields})

