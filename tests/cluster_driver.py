"""A process that spreads a slow stage over two workers and may be killed: python -m tests.cluster_driver MODEL OUT LOG.

What is asked of the model is written to a log, a line a chunk: the worker's process and the ids of the questions.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gainrag.cluster import Cluster
from gainrag.cluster.driving import distribute
from gainrag.errors import DataError
from gainrag.records import Answer, Retrieved

QUESTIONS = [Retrieved(id=f"q{i}", question=f"What is {i}?", ctxs=[]) for i in range(38)]
CHUNK = 4


def slow(
    records: Sequence[Retrieved], lm: Any, *, log: str, seconds: float = 0.0, bad: Sequence[str] = ()
) -> list[Answer]:
    """An answer that names the batch, after some seconds; none to a bad question."""
    ids = "+".join(record.id for record in records)
    with open(log, "a") as stream:
        stream.write(f"{os.getpid()} {ids}\n")
    time.sleep(seconds)
    for record in records:
        if record.id in bad:
            raise DataError("it is bad", where=f"question {record.id}")
    return [Answer(id=r.id, question=r.question, prediction=f"{lm.dtype} {ids}") for r in records]


def run(model: str, out: Path, log: Path, may_fail: int = 0, **settings: Any) -> int:
    """Answer all questions with two workers; how many were left out."""
    return distribute(
        slow,
        QUESTIONS,
        out,
        {"settings": {}},
        cluster=Cluster(ray="local", workers=2, may_fail=may_fail),
        llm={"model": model, "dtype": "float32"},
        sizes={"cpu": CHUNK},
        settings={"log": str(log), **settings},
    )


if __name__ == "__main__":
    run(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), seconds=2.0)
