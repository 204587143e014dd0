"""Where the time of an answer goes: retrieval, pseudo-passage, selection, answer; eager and lazy pseudo-passage.

    python benchmarks/answer.py questions.jsonl --index idx/ --selector selector/ [--llm MODEL] [--candidates FILE]

Both forms answer the same questions in turns. With --candidates (augmented, with gold answers) it also measures what
being lazy costs in contains and F1.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from common import RESULTS, ROUNDS, asked, latency, write_results

from gainrag import CrossEncoderSelector, GainRAG, open_index, open_lm
from gainrag.errors import DataError
from gainrag.ingestion import read_questions, read_retrieved
from gainrag.lms import DEFAULT
from gainrag.lms.local import LocalLM
from gainrag.training.laziness import compare_with_eager

PARTS = ("retrieval", "pseudo-passage", "selection", "answer")


class Stopwatch:
    """Seconds by part. A part that runs inside another one counts as the outer."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self.running = False

    def wrap(self, owner: Any, method: str, part: str) -> None:
        """Time a method of an object from now on."""
        plain: Callable[..., Any] = getattr(owner, method)

        def timed(*args: Any, **more: Any) -> Any:
            if self.running:
                return plain(*args, **more)
            self.running, began = True, time.perf_counter()
            try:
                return plain(*args, **more)
            finally:
                self.seconds[part] += time.perf_counter() - began
                self.running = False

        setattr(owner, method, timed)

    def read(self) -> dict[str, float]:
        """The seconds so far, set back to nothing."""
        found, self.seconds = self.seconds, dict.fromkeys(PARTS, 0.0)
        return found


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("questions", type=Path)
    parser.add_argument("--index", required=True)
    parser.add_argument("--selector", required=True, help="a selector folder with a lazy threshold")
    parser.add_argument("--llm", default=DEFAULT)
    parser.add_argument("--depth", type=int, default=100)
    parser.add_argument("--first", type=int, default=20, help="so many questions")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--threads", type=int, help="of torch alone; hold every runtime to a core with taskset")
    parser.add_argument("--candidates", type=Path, help="also: what being lazy costs on these")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    import torch

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    questions = [q.question for q in read_questions(arguments.questions, need_answers=False)[: arguments.first]]
    if len(questions) < arguments.first:
        raise DataError(f"{len(questions)} questions", where=str(arguments.questions), hint="lower --first")
    retriever, lm = open_index(arguments.index), open_lm(model=arguments.llm)
    assert isinstance(lm, LocalLM)
    selector = CrossEncoderSelector(arguments.selector)
    tables: dict[str, list[dict[str, Any]]] = {}
    if arguments.candidates:
        records = read_retrieved(arguments.candidates, need_answers=True)
        found = compare_with_eager(records, selector, lm)
        tables["Lazy less eager"] = [{key: round(value, 4) for key, value in found.items()}]

    watch = Stopwatch()
    watch.wrap(retriever, "search", "retrieval")
    watch.wrap(selector, "score", "selection")
    watch.wrap(lm, "generate", "pseudo-passage")
    watch.wrap(lm, "generate_until", "answer")
    forms = {form: GainRAG(retriever, selector, lm, depth=arguments.depth, pseudo=form) for form in ("eager", "lazy")}
    seconds = {form: np.zeros((len(PARTS), arguments.rounds, len(questions))) for form in forms}
    totals = {form: np.zeros((arguments.rounds, len(questions))) for form in forms}
    for rag in forms.values():  # warm up
        rag.answer(questions[0])
    for r in range(arguments.rounds):
        for i, question in enumerate(questions):
            for form in ("eager", "lazy") if (r + i) % 2 else ("lazy", "eager"):
                watch.read()
                began = time.perf_counter()
                forms[form].answer(question)
                totals[form][r, i] = time.perf_counter() - began
                seconds[form][:, r, i] = list(watch.read().values())
    rows = []
    for form, rag in forms.items():
        whole = totals[form].mean(axis=1)
        parts = [*seconds[form].mean(axis=2), whole - seconds[form].mean(axis=2).sum(axis=0)]
        shares = {
            f"{name}, ms": f"{1000 * median(part.tolist()):.1f} ({median((part / whole).tolist()):.0%})"
            for name, part in zip((*PARTS, "other"), parts, strict=True)
        }
        skipped = f"{rag.skipped_share:.0%}"
        rows.append({"pseudo-passage form": form, **shares, **latency(totals[form]), "skipped": skipped})
    heading = "Mean milliseconds of a question (share), and the whole answer's p50 and p95"
    settings = asked(arguments)
    settings |= {"LLM dtype": lm.dtype, "selector dtype": selector.dtype, "selector backend": selector.backend}
    title = f"GainRAG.answer, {len(questions)} questions, {arguments.rounds} rounds"
    write_results("answer", title, settings, {heading: rows, **tables}, arguments.out)


if __name__ == "__main__":
    main()
