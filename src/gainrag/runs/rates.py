"""How fast this machine, or an engine, does what a run does most: measured on some of the run's own passages."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory

import msgspec

from gainrag import synthesis
from gainrag.errors import DataError
from gainrag.ingestion import ingest_documents, read_passages
from gainrag.prompts import PromptForm, Prompts, for_model
from gainrag.protocols import Generator, Scorer, continue_with, losses_with
from gainrag.records import Passage, Retrieved
from gainrag.retrievers import Dense

# A model is measured on so many questions with so many passages each, for at least so many seconds.
QUESTIONS, PASSAGES, _SECONDS = 8, 4, 3.0
# Prompts that are continued, and the tokens that are written to see what one more takes.
_CONTINUED, _WRITTEN = 16, 8
# Documents that are read, the bytes of the largest of them, and passages that are encoded.
_FILES, _LARGEST, _TEXTS = 8, 1 << 20, 16


@dataclass(frozen=True)
class Rates:
    """How fast a model works.

    scored, read, written: seconds a token of a prompt that answers are scored behind (0 where the model tells no
        losses), of one that is continued, and of what is written.
    prompt, bare: mean tokens of a prompt with one passage and with none; `background`, of one for the pseudo-passage.
        Of a model that does not count tokens they are bytes, as are those of `scored` and `read`.
    opened: seconds until the model is there; what each machine takes once.
    """

    scored: float
    read: float
    written: float
    prompt: float
    bare: float
    background: float
    opened: float = 0.0

    @property
    def passage(self) -> float:
        """Mean tokens that a passage adds to a prompt."""
        return self.prompt - self.bare


@dataclass(frozen=True)
class Reading:
    """How fast documents become passages, and passages vectors.

    read: seconds a document's byte. passages: how many a document's byte gives. encode: seconds a passage's vector.
    """

    read: float
    passages: float
    encode: float


def measure(lm: Generator, some: Sequence[Retrieved], form: PromptForm | None = None, opened: float = 0.0) -> Rates:
    """Measure a model on some questions with their passages.

    Args:
        form: of the prompts.
        opened: how long it took to open it.

    Raises:
        ModelError: it does not do what it is asked.
        EngineError: nothing answers, or it answers no.
    """
    prompts = for_model(form, lm)
    some = [record for record in some if record.ctxs]
    requests = [synthesis.scoring_request(prompts, record, 16) for record in some]
    lengths = [_length(prompts, prompt) for request in requests for prompt in request.with_prompts]
    bare = [_length(prompts, request.without_prompt) for request in requests]
    scored = _scored(lm, prompts, some) / (sum(lengths) + sum(bare)) if isinstance(lm, Scorer) else 0.0
    continued = lengths[:_CONTINUED]
    _continued(lm, prompts, some, 0, 1)  # the first time it loads and compiles
    first, more = (_continued(lm, prompts, some, turn, tokens) for turn, tokens in ((1, 1), (2, 1 + _WRITTEN)))
    step = max(0.0, more - first) / _WRITTEN
    return Rates(
        scored=scored,
        read=max(first - step, 0.0) / sum(continued),
        written=step / len(continued),
        prompt=fmean(lengths),
        bare=fmean(bare),
        background=fmean(_length(prompts, prompts.background(record.question)) for record in some),
        opened=opened,
    )


def _length(prompts: Prompts, prompt: str) -> int:
    return prompts.bound.count_tokens(prompt) if prompts.bound else len(prompt.encode())


def _renewed(some: Sequence[Retrieved], turn: int) -> list[Retrieved]:
    """The same questions and passages with other beginnings: an engine keeps what it read, and answers are kept."""
    renew = msgspec.structs.replace
    return [renew(r, ctxs=[renew(ctx, title=f"{turn}. {ctx.title}") for ctx in r.ctxs]) for r in some]


def _scored(lm: Scorer, prompts: Prompts, some: Sequence[Retrieved]) -> float:
    """Seconds until the answers to all are scored."""
    losses_with(lm, [synthesis.scoring_request(prompts, some[0], 16)], [0.0])  # how it is scored is found out now
    turns, began = 0, time.perf_counter()
    while not turns or time.perf_counter() - began < _SECONDS:
        turns += 1
        losses_with(lm, [synthesis.scoring_request(prompts, r, 16) for r in _renewed(some, turns)], [0.0])
    return (time.perf_counter() - began) / turns


def _continued(lm: Generator, prompts: Prompts, some: Sequence[Retrieved], turn: int, tokens: int) -> float:
    """Seconds until some prompts are continued by so many tokens."""
    asked = [prompts.with_passages(r.question, [ctx], reserve=tokens) for r in _renewed(some, turn) for ctx in r.ctxs]
    began = time.perf_counter()
    continue_with(lm, asked[:_CONTINUED], tokens)
    return time.perf_counter() - began


def measure_reading(documents: Sequence[Path], corpus: Path | None) -> tuple[Reading, list[Passage]]:
    """Measure on the first passages of a corpus, or on some documents, spread over all; these passages, too.

    Raises:
        DataError: none of the documents that were tried has text.
    """
    if corpus is not None:
        read, each = 0.0, 0.0
        passages = list(islice(read_passages(corpus), _TEXTS))
    else:
        read, each, passages = _read(documents)
    Dense.build(passages)  # the first time it loads
    began = time.perf_counter()
    Dense.build(passages)
    return Reading(read, each, (time.perf_counter() - began) / len(passages)), passages


def _read(documents: Sequence[Path]) -> tuple[float, float, list[Passage]]:
    """(seconds a byte, passages a byte, some passages)."""
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
    return seconds / size, len(passages) / size, passages[:_TEXTS]
