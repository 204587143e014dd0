"""What keeps a GPU busy, each means off and on: tokens a second and the share of the measured peak, by model size.

    python benchmarks/gpu.py                 on a GPU, in under ten minutes
    python benchmarks/gpu.py --tiny          on a CPU, in under a minute: whether all of it runs

One process, models of the shapes of SmolLM2-135M and of Llama 3 with random weights, as speed does not depend on them.
It needs no hub, no download and no data: questions and passages are the demo's, and the tokenizer is learned from
them. Each row adds one means to those above it. "before" is scoring as it was: packs of 16,384 tokens, one question's
logits after another, kernels started one by one, texts tokenized first. The peak is that of bfloat16 matrix products,
measured beside each row. Losses are compared with those of "before".
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import numpy as np
from common import RESULTS, asked, timed, write_results
from shapes import FIELDS, SHAPES

from gainrag.demo import load
from gainrag.lms import graphs
from gainrag.lms.local import LocalLM
from gainrag.lms.means import Means
from gainrag.lms.throughput import measured_peak
from gainrag.prompts import for_model
from gainrag.protocols import FloatArray, ScoringRequest
from gainrag.records import Retrieved, Scored
from gainrag.synthesis import scoring_request

# By the name of a shape, questions: that a pass takes a few seconds.
QUESTIONS = {"135m": 384, "1b": 96, "8b": 24}
TINY = (32, 48, 2, 4, 2, 8, 8192, True)
PASSAGES = 20
VOCABULARY = 8192
ALPHAS = [0.0, 0.5]
ROUNDS = 3

BESIDE = Means(beside=True)
STEPS = (
    ("before", Means()),
    ("+ rows beside one another, losses of many questions at once", BESIDE),
    ("+ tokenized and laid out ahead, in a thread", replace(BESIDE, ahead=True)),
    ("+ batches as large as memory allows", replace(BESIDE, ahead=True, measured=True)),
    ("+ CUDA graphs", replace(BESIDE, ahead=True, measured=True, graphs=True)),
    ("+ compiled layers", replace(BESIDE, ahead=True, measured=True, graphs=True, compiled=True)),
)
ALL = STEPS[-1][1]
SHARED = (
    ("instruction first, its beginning run for each prompt", ALL),
    ("instruction first, its beginning run once a batch", replace(ALL, shared=True)),
)


def questions(n: int) -> list[Retrieved]:
    """Questions of the demo, each with passages, the last of them without a title as a pseudo-passage is."""
    own, _, corpus = load()
    made = []
    for i in range(n):
        question, start = own[i % len(own)], 7 * i
        some = [corpus[(start + p) % len(corpus)] for p in range(PASSAGES + 1)]
        ctxs = [Scored(id=p.id, title=p.title if k < PASSAGES else "", text=p.text) for k, p in enumerate(some)]
        made.append(Retrieved(id=f"q{i}", question=question.question, answers=question.answers, ctxs=ctxs))
    return made


def write_tokenizer(folder: Path) -> None:
    """Write a tokenizer learned from the demo's texts."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    own = ByteLevelBPETokenizer()
    texts: Any = [text for passage in load()[2] for text in (passage.title, passage.text)]
    own.train_from_iterator(texts, VOCABULARY, special_tokens=["<end>"], show_progress=False)
    fast = PreTrainedTokenizerFast(tokenizer_object=own._tokenizer, eos_token="<end>", pad_token="<end>")
    fast.save_pretrained(folder)


def random_lm(sizes: Sequence[Any], folder: Path, device: str) -> LocalLM:
    """A Llama of these sizes with random weights, made on its device."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    own = dict(zip(FIELDS, sizes, strict=True))
    # Weights so large that every layer matters to the losses, which are compared.
    own["initializer_range"] = own["hidden_size"] ** -0.5
    config = AutoConfig.for_model("llama", max_position_embeddings=8192, **own)
    config.save_pretrained(folder)
    torch.manual_seed(0)

    def made(_path: object, dtype: str, where: str) -> Any:
        with torch.device(where):
            return AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype)).eval()

    with mock.patch("gainrag.lms.loaded.load_model", made):
        lm = LocalLM(str(folder), dtype="bfloat16", device=device)
    lm.kind = "cuda"  # on a CPU, too: what runs is the GPU's way
    return lm


def begin(lm: LocalLM, means: Means, requests: Sequence[ScoringRequest]) -> float:
    """Set the means and run once or more what is to be measured; the seconds that took."""
    import torch

    lm.means, lm.way, lm.graphs, lm.batch_tokens, lm.short_of_memory = means, None, graphs.Graphs(), None, False
    if lm.device.startswith("cuda"):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    # A shape is captured when it comes for the second time, and replayed from then on.
    few = requests if means.graphs else requests[: max(1, len(requests) // 8)]
    return sum(timed(lambda: lm.losses(few, ALPHAS))[0] for _ in range(2 if means.graphs else 1))


def measure(
    lm: LocalLM, means: Means, requests: Sequence[ScoringRequest], rounds: int
) -> tuple[dict[str, Any], list[FloatArray]]:
    """The row of some means, and the losses."""
    import torch

    started = begin(lm, means, requests)
    rates, shares, took, losses = [], [], [], list[FloatArray]()
    for _ in range(rounds):
        tokens, flop, peak = lm.throughput.tokens, lm.throughput.flop, measured_peak(lm.dtype, lm.device)
        seconds, losses = timed(lambda: lm.losses(requests, ALPHAS))
        rates.append((lm.throughput.tokens - tokens) / seconds)
        shares.append((lm.throughput.flop - flop) / seconds / peak)
        took.append(seconds)
    cuda = lm.device.startswith("cuda")
    return {
        "tokens/s": round(median(rates)),
        "questions/s": round(len(requests) / median(took), 2),
        "share of the peak": f"{median(shares):.1%}",
        "measured peak TFLOP/s": round(peak / 1e12, 3),
        "tokens a batch": lm.batch_tokens or "",
        "graphs": len(lm.graphs) or "",
        "way": "plain" if lm.way is None or not lm.way.packed else "swift" if lm.way.swift else "packed",
        "s to begin": round(started, 1),
        "memory MB": round(torch.cuda.max_memory_allocated() / 2**20) if cuda else "",
    }, losses


def apart(found: Sequence[FloatArray], expected: Sequence[FloatArray]) -> str:
    """The largest difference of any loss, in nats per token."""
    return f"{max(float(np.abs(a - b).max()) for a, b in zip(found, expected, strict=True)):.1e}"


def rows_of(
    name: str, lm: LocalLM, records: Sequence[Retrieved], rounds: int, until: float
) -> Iterator[dict[str, Any]]:
    """The table's rows of one model."""
    cuda = lm.device.startswith("cuda")
    for form, steps in (("completion", STEPS), ("instruction_first", SHARED)):
        prompts = for_model(form, lm)
        requests = [scoring_request(prompts, record) for record in records]
        expected: list[FloatArray] = []
        first = 0.0
        for step, means in steps:
            row: dict[str, Any] = {"model": name, "means": step}
            if not cuda:
                possible = replace(means, graphs=False, measured=False)
                if possible != means and not means.compiled:
                    yield {**row, "tokens/s": "needs CUDA"}
                    continue
                means = possible
            if time.monotonic() > until:
                yield {**row, "tokens/s": "not run: time is over"}
                continue
            try:
                found, losses = measure(lm, means, requests, rounds)
            except Exception as error:  # one row that fails must not cost the others
                yield {**row, "tokens/s": f"failed: {type(error).__name__}: {error}".split("\n")[0][:160]}
                continue
            expected, first = expected or losses, first or float(found["questions/s"])
            times = {"times as fast": round(found["questions/s"] / first, 2), "nats apart": apart(losses, expected)}
            yield {**row, **found, **times}


def main() -> None:
    """Measure all shapes and write OUT/gpu.json and OUT/gpu.md, after each row anew."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="tiny models and few questions; also what a CPU gets")
    parser.add_argument("--shapes", nargs="+", choices=list(QUESTIONS), default=list(QUESTIONS))
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--minutes", type=float, default=8.5, help="after which no further row is begun")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    until = time.monotonic() + 60 * arguments.minutes
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    tiny = arguments.tiny or device == "cpu"
    if device == "cpu":
        graphs.BACKEND = "eager"  # inductor would take minutes
    rows: list[dict[str, Any]] = []
    settings = {**asked(arguments), "device": device, "tiny": tiny, "passages": PASSAGES + 1, "alphas": ALPHAS}
    for name in arguments.shapes:
        with tempfile.TemporaryDirectory(prefix="gainrag-bench-") as scratch:
            write_tokenizer(Path(scratch))
            torch.compiler.reset()  # it stops compiling after eight variants of a layer
            lm = random_lm(TINY if tiny else SHAPES[name], Path(scratch), device)
        records = questions(4 if tiny else QUESTIONS[name])
        for row in rows_of("tiny" if tiny else name, lm, records, arguments.rounds, until):
            rows.append(row)
            print(row, flush=True)
        tables = {"Each means, added to those above it": rows}
        write_results("gpu", "Keeping a GPU busy", settings, tables, arguments.out)
        del lm
        if device == "cuda":
            torch.cuda.empty_cache()
        if tiny:
            break


if __name__ == "__main__":
    main()
