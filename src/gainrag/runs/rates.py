"""How fast this machine, or an engine, does what a run does most: measured on a few of the person's own passages."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from gainrag import lms
from gainrag.errors import DataError
from gainrag.ingestion import ingest_documents, read_passages
from gainrag.prompts import for_model
from gainrag.protocols import Generator, Scorer, ScoringRequest, continue_with, losses_with, need
from gainrag.records import Passage
from gainrag.retrievers import Dense

# Enough to fill a batch, few enough for a measurement of seconds.
_FILES, _PASSAGES, _TEXTS, _TOKENS = 8, 16, 4, 16
_LARGEST = 1 << 20  # bytes of a document that is read for the measurement
_QUESTION, _ANSWER = "What is said about it in the first sentence?", "the first sentence"


@dataclass(frozen=True)
class Rates:
    """Seconds for one of each.

    read: a document's byte. encode: a passage's vector. score: a candidate's loss. write: a token of the model that
    labels and asks. answer: a token of the model that answers.
    passages: how many a document's byte gives.
    """

    read: float
    encode: float
    score: float
    write: float
    answer: float
    passages: float


def measure(documents: Sequence[Path], corpus: Path | None, llm: str, labeller: str | None) -> Rates:
    """Measure on the first passages of a corpus, or on some documents, spread over all.

    Args:
        llm: the model that answers.
        labeller: the model that tells losses and writes questions, the same or another one; None where none does, and
            `llm` labels by what it answers.

    Raises:
        DataError: none of the documents has text.
        ModelError: a model cannot be loaded, or an engine does not do what it is asked.
    """
    read, each, passages = _read(documents, corpus)
    encode = _seconds(lambda _: Dense.build(passages)) / len(passages)
    reader = lms.open_lm(model=llm)
    answer = write = _write(reader, passages)
    if labeller is None:
        return Rates(read, encode, 0.0, write, answer, each)
    lm = reader if labeller == llm else lms.open_lm(model=labeller)
    if lm is not reader:
        write = _write(lm, passages)
    need(lm, Scorer, what="the model that labels", where="init", hint="name one that tells losses: docs/endpoints.md")
    assert isinstance(lm, Scorer)
    return Rates(read, encode, _score(lm, passages), write, answer, each)


def _read(documents: Sequence[Path], corpus: Path | None) -> tuple[float, float, list[Passage]]:
    """(seconds a byte, passages a byte, some passages)."""
    if corpus is not None:
        passages = [passage for passage, _ in zip(read_passages(corpus), range(_PASSAGES), strict=False)]
        return 0.0, 0.0, passages
    small = [path for path in documents if 0 < path.stat().st_size <= _LARGEST] or list(documents)
    some = small[:: max(1, len(small) // _FILES)][:_FILES]
    with TemporaryDirectory() as folder:
        for number, path in enumerate(some):
            shutil.copy(path, Path(folder, f"{number}{path.suffix}"))
        out, size = Path(folder, "out"), sum(path.stat().st_size for path in some)
        ingest_documents(folder, out)  # what is loaded stays loaded
        shutil.rmtree(out)
        began = time.perf_counter()
        ingest_documents(folder, out)
        seconds = time.perf_counter() - began
        passages = list(read_passages(out / "corpus.jsonl"))
    if not passages:
        raise DataError("none of the documents that were tried has text", where="init", hint="name another folder")
    return seconds / size, len(passages) / size, passages[:_PASSAGES]


def _score(lm: Scorer, passages: Sequence[Passage]) -> float:
    """Seconds a passage."""
    prompts = for_model(None, lm)

    def work(turn: int) -> None:
        question = f"{_QUESTION} ({turn})"
        request = ScoringRequest(
            with_prompts=[prompts.with_passages(question, [passage], reserve=_TOKENS) for passage in passages],
            without_prompt=prompts.without(question),
            answers=[prompts.scored_answer(_ANSWER)],
        )
        losses_with(lm, [request], [0.0])

    return _seconds(work) / len(passages)


def _write(lm: Generator, passages: Sequence[Passage]) -> float:
    """Seconds a token, of several texts at a time."""
    prompts, shown = for_model(None, lm), passages[:_TEXTS]

    def work(turn: int) -> None:
        asked = [prompts.with_passages(f"{_QUESTION} ({turn})", [passage], reserve=_TOKENS) for passage in shown]
        continue_with(lm, asked, _TOKENS)

    return _seconds(work) / (len(shown) * _TOKENS)


def _seconds(work: Callable[[int], object]) -> float:
    """How long something takes the second time: the first one loads and compiles. It is told which turn it is, as an
    engine's answer is kept."""
    work(1)
    began = time.perf_counter()
    work(2)
    return time.perf_counter() - began
