"""Gain synthesis beside the sequential way: one forward pass a passage and alias, batch 1, whole logits.

    python benchmarks/synthesis.py nq=candidates.jsonl triviaqa=... [--questions 5] [--long nq=candidates.jsonl] ...

Every row scores the same prompts and all aliases of a question, at one alpha, with the same embedded model and threads;
rows take turns, a question a round, and a figure is the median over questions ("in total": of their summed times, where
questions with many answers weigh as much as they cost). The sequential scorer is written as
plainly and fairly as it can be: it runs the prompt without a passage once an alias, not once a pair. With --long, the
time of a question and the peak memory are followed over many questions, and where the time of a pass goes is profiled.
"""

from __future__ import annotations

import argparse
import resource
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from common import RESULTS, timed, write_results

from gainrag.files.streams import read
from gainrag.gain import best_loss, gain_from_loss
from gainrag.lms.local import LocalLM
from gainrag.lms.throughput import measured_peak
from gainrag.prompts import for_model
from gainrag.protocols import FloatArray, ScoringRequest, chunk_for
from gainrag.records import Retrieved
from gainrag.synthesis import CHUNK, scoring_request

FloatRow = dict[str, Any]


def sequential(lm: LocalLM, request: ScoringRequest, alpha: float) -> FloatArray:
    """[passage, alias], nats per token: the formula of gainrag.gain, as it reads."""
    import torch

    def logits(prompt: str, answer: list[int]) -> torch.Tensor:
        ids = lm.prompt_ids(prompt)
        with torch.inference_mode():
            whole = lm.model(torch.tensor([ids + answer])).logits[0]
        behind: torch.Tensor = whole[len(ids) - 1 : -1].float()
        return behind

    lm.model.set_attn_implementation("sdpa")
    losses = np.empty((len(request.with_prompts), len(request.answers)))
    for a, text in enumerate(request.answers):
        answer = lm.answer_ids(text)
        without = logits(request.without_prompt, answer) if alpha else None
        for p, prompt in enumerate(request.with_prompts):
            z = logits(prompt, answer)
            if without is not None:
                z = (1 + alpha) * z - alpha * without
            chosen = torch.log_softmax(z, dim=-1)[torch.arange(len(answer)), torch.tensor(answer)]
            losses[p, a] = -float(chosen.mean())
    return losses


def packed(lm: LocalLM, request: ScoringRequest, alpha: float) -> FloatArray:
    """[passage, alias], nats per token: ours."""
    return lm.losses([request], [alpha])[0][:, :, 0]


def spearman(a: FloatArray, b: FloatArray) -> float:
    """Rank correlation; gains of real passages have no ties to speak of."""
    one, other = (np.argsort(np.argsort(x)).astype(np.float64) for x in (a, b))
    return float(np.corrcoef(one, other)[0, 1])


def compare(name: str, records: list[Retrieved], lms: dict[str, LocalLM], alpha: float) -> list[FloatRow]:
    """The table's rows of one data set: the sequential way, and ours in each dtype."""
    slow = lms["float32"]
    prompts = for_model("completion", slow)
    requests = [scoring_request(prompts, record) for record in records]
    seconds: dict[str, list[float]] = {
        key: [] for key in ("sequential float32", *(f"gainrag {dtype}" for dtype in lms))
    }
    found: dict[str, list[FloatArray]] = {key: [] for key in seconds}
    for n, request in enumerate(requests):
        calls: dict[str, Callable[[], FloatArray]] = {"sequential float32": partial(sequential, slow, request, alpha)}
        for dtype, lm in lms.items():
            calls[f"gainrag {dtype}"] = partial(packed, lm, request, alpha)
        order = list(calls)
        for key in order[n % len(order) :] + order[: n % len(order)]:
            took, losses = timed(calls[key])
            seconds[key].append(took)
            found[key].append(losses)
    exact = found["sequential float32"]
    rows = []
    for key in seconds:
        apart = max(float(np.abs(a - b).max()) for a, b in zip(exact, found[key], strict=True))
        gains = [gain_from_loss(best_loss(x[:, :, None])[:, 0]) for x in found[key]]
        true = [gain_from_loss(best_loss(x[:, :, None])[:, 0]) for x in exact]
        speedups = [b / s for s, b in zip(seconds[key], seconds["sequential float32"], strict=True)]
        rows.append(
            {
                "data": name,
                "scorer": key,
                "s/question": round(median(seconds[key]), 3),
                "times faster": round(median(speedups), 2),
                "in total": round(sum(seconds["sequential float32"]) / sum(seconds[key]), 2),
                "nats apart, at most": f"{apart:.1e}",
                "rank correlation, mean": round(
                    float(np.mean([spearman(a, b) for a, b in zip(true, gains, strict=True)])), 4
                ),
                "passages": round(float(np.mean([len(r.with_prompts) for r in requests])), 1),
                "aliases": round(float(np.mean([len(r.answers) for r in requests])), 1),
            }
        )
    return rows


def follow(records: list[Retrieved], lm: LocalLM, alphas: list[float]) -> list[FloatRow]:
    """Time a question and peak memory as the questions go by, in chunks as synthesis makes them."""
    prompts = for_model("completion", lm)
    rows = []
    chunk = chunk_for(lm, CHUNK)
    block = 50 // chunk * chunk + chunk
    peak = measured_peak(lm.dtype)
    for start in range(0, len(records) - len(records) % block, block):
        part = records[start : start + block]
        before, flop = lm.throughput.tokens, lm.throughput.flop
        took = 0.0
        for at in range(0, len(part), chunk):
            requests = [scoring_request(prompts, record) for record in part[at : at + chunk]]
            took += timed(partial(lm.losses, requests, alphas))[0]
        rows.append(
            {
                "questions": f"{start + 1} to {start + len(part)}",
                "s/question": round(took / len(part), 3),
                "µs/token": round(1e6 * took / (lm.throughput.tokens - before), 1),
                "share of the peak": f"{(lm.throughput.flop - flop) / took / peak:.0%}",
                "peak memory MB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
            }
        )
        print(rows[-1], flush=True)
    return rows


def products_alone(lm: LocalLM, tokens: int = 2048) -> float:
    """Floating-point operations a second, on one thread, of the layers' products and nothing else, each at its own
    shape with a pack of tokens: what scoring could reach if all the rest took no time."""
    import torch

    head = lm.model.get_output_embeddings()
    layers = [m for m in lm.model.modules() if isinstance(m, torch.nn.Linear) and m is not head]
    shapes = Counter(m.weight.shape for m in layers)
    flop = seconds = 0.0
    with torch.inference_mode():
        for (to, of), count in shapes.items():
            x, weight = (torch.ones(n, of, dtype=lm.model.dtype) for n in (tokens, to))
            best = min(timed(partial(torch.nn.functional.linear, x, weight))[0] for _ in range(20))
            flop += count * 2.0 * tokens * to * of
            seconds += count * best
    return flop / seconds


def profile(records: list[Retrieved], lm: LocalLM, alphas: list[float]) -> list[FloatRow]:
    """Where the time of scoring goes, by operator, on one thread (the profiler sees one), and the share of the peak
    that scoring reaches and could reach."""
    import torch
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as watched

    prompts = for_model("completion", lm)
    requests = [scoring_request(prompts, record) for record in records]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    lm.losses(requests[:1], alphas)
    peak = measured_peak(lm.dtype)
    flop = lm.throughput.flop
    seconds, _ = timed(lambda: lm.losses(requests, alphas))
    share = (lm.throughput.flop - flop) / seconds / peak
    alone = products_alone(lm) / peak
    with watched(activities=[ProfilerActivity.CPU]) as seen:
        lm.losses(requests, alphas)
    torch.set_num_threads(threads)
    events = sorted(seen.key_averages(), key=lambda e: -e.self_cpu_time_total)
    total = sum(e.self_cpu_time_total for e in events)
    mark = f"of the one-thread peak, {peak / 1e9:.0f} GFLOP/s"
    rows: list[FloatRow] = [
        {"operator": f"(scoring: share {mark})", "share of time": f"{share:.0%}"},
        {"operator": f"(the layers' products alone, at their shapes: share {mark})", "share of time": f"{alone:.0%}"},
    ]
    return rows + [
        {"operator": e.key, "share of time": f"{e.self_cpu_time_total / total:.1%}", "calls": e.count}
        for e in events[:12]
    ]


def main() -> None:
    """Run what was asked for and write benchmarks/results/synthesis.*."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", nargs="+", help="NAME=candidates.jsonl, 20 passages and the pseudo-passage a question")
    parser.add_argument("--questions", type=int, default=5, help="rounds: questions a data set")
    parser.add_argument("--long", help="candidates.jsonl of at least 500 questions")
    parser.add_argument("--alpha", type=float, default=0.5)
    parser.add_argument("--model", default="embedded:smollm2-135m-instruct")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    lms = {dtype: LocalLM(arguments.model, dtype=dtype) for dtype in ("float32", "auto")}
    if lms["auto"].dtype == "float32":
        del lms["auto"]
    compared: list[FloatRow] = []
    shares: list[FloatRow] = []
    for item in arguments.data:
        name, _, path = item.partition("=")
        records = list(read(path, Retrieved))[: arguments.questions]
        for lm in lms.values():
            lm.losses([scoring_request(for_model("completion", lm), records[0])], [arguments.alpha])
        marks = {dtype: (lm.throughput.flop, lm.throughput.seconds, lm.throughput.tokens) for dtype, lm in lms.items()}
        compared += compare(name, records, lms, arguments.alpha)
        for dtype, lm in lms.items():
            flop, seconds, tokens = marks[dtype]
            peak, took = measured_peak(lm.dtype), lm.throughput.seconds - seconds
            shares.append(
                {
                    "data": name,
                    "dtype": f"{dtype} ({lm.dtype})",
                    "tokens/s": round((lm.throughput.tokens - tokens) / took),
                    "GFLOP/s of weight products": round((lm.throughput.flop - flop) / took / 1e9),
                    "measured peak GFLOP/s": round(peak / 1e9),
                    "share": f"{(lm.throughput.flop - flop) / took / peak:.0%}",
                }
            )
        print(compared[-len(lms) - 1 :], shares[-len(lms) :], flush=True)
    tables = {"Against the sequential way": compared, "Share of the measured matrix-product peak": shares}
    if arguments.long:
        records = list(read(arguments.long, Retrieved))[:512]
        fast = list(lms.values())[-1]
        tables["Over many questions"] = follow(records, fast, [0.0, arguments.alpha])
        tables["Where the time goes"] = profile(records[:8], fast, [0.0, arguments.alpha])
    settings = {"model": arguments.model, "alpha": arguments.alpha, "questions": arguments.questions}
    write_results("synthesis", "Gain synthesis", settings, tables, arguments.out)


if __name__ == "__main__":
    main()
