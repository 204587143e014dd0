"""What runs on a worker: the model, and the stage's work on a chunk of questions at a time.

A row of Ray's tables is a whole chunk, the questions that one process works on together (see gainrag.files.resuming):
what a question gets may depend a little on its batch. Where a chunk fails, its questions are asked one by one, and
those that fail alone are told apart with their error.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import pyarrow as pa

from gainrag import lms
from gainrag.errors import GainragError
from gainrag.files.decoding import decode
from gainrag.records import Question, Retrieved, encode, from_builtins

# The columns of a row: which chunk it is, its records as JSON lines, and what failed as a JSON list.
KEY, LINES, FAILED = "chunk", "lines", "failed"


@dataclass(frozen=True)
class Task:
    """What every worker does.

    stage: the function; its settings, and what it is given beside them.
    llm: settings of `gainrag.lms.open_lm`, with the dtype that all workers have.
    """

    stage: Callable[..., Sequence[Question]]
    settings: Mapping[str, Any]
    more: Mapping[str, Any]
    llm: Mapping[str, Any]
    cores: int


class Worker:
    """A model in a process of its own, which Ray starts anew if it dies."""

    def __init__(self, task: Task) -> None:
        import torch

        torch.set_num_threads(task.cores)
        self.task = task
        self.lm = lms.open_lm(**task.llm)

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Chunks of questions -> chunks of records."""
        made = [self._work(lines.as_py(), key.as_py()) for key, lines in zip(rows[KEY], rows[LINES], strict=True)]
        lines, failed = zip(*made, strict=True)
        return pa.table({KEY: rows[KEY], LINES: pa.array(lines, pa.large_binary()), FAILED: list(failed)})

    def _work(self, lines: bytes, key: str) -> tuple[bytes, str]:
        """The records of a chunk's questions as JSON lines, and those that failed."""
        records = [from_builtins(Retrieved, decode(line, f"chunk {key}")) for line in lines.splitlines()]
        try:
            return self._made(records), "[]"
        except Exception:
            return self._one_by_one(records)

    def _made(self, records: Sequence[Retrieved]) -> bytes:
        made = self.task.stage(records, self.lm, **self.task.settings, **self.task.more)
        return b"".join(map(encode, made))

    def _one_by_one(self, records: Sequence[Retrieved]) -> tuple[bytes, str]:
        made, failed = b"", []
        for record in records:
            try:
                made += self._made([record])
            except Exception as error:
                said = str(error) if isinstance(error, GainragError) else traceback.format_exc(limit=-3)
                failed.append({"id": record.id, "error": said})
        return made, msgspec.json.encode(failed).decode()
