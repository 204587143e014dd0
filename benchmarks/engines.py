"""Labels from an engine behind HTTP against those of the same weights in this process, on real questions.

    python benchmarks/engines.py candidates.jsonl [--labels 50] [--bounds 200] [--throughput 20] [--seed 0]

| part | what |
|---|---|
| labels | the first `--labels` questions by the model in float32 here and by llama.cpp's server, from one GGUF file |
| bounds | the model's own distributions of `--bounds` questions, cut to the k most likely tokens: do the bounds hold? |
| throughput | questions a second from llama.cpp's server with 1, 4 and 16 requests in flight |

A part of 0 questions is left out. Of a question's gold answers the first is scored.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from common import RESULTS, asked, write_results

from gainrag.files.progress import progress
from gainrag.files.streams import read
from gainrag.gain import FloatArray, Known, token_loss_bounds
from gainrag.lms import DEFAULT, open_lm
from gainrag.lms.local import LocalLM
from gainrag.lms.remote.scorer import RemoteScorer
from gainrag.prompts import for_model
from gainrag.protocols import ScoringRequest
from gainrag.records import Retrieved
from gainrag.statistics import rank_correlation

ROOT = Path(__file__).parent.parent
ALPHAS = (0.0, 0.5)
TOPS = (20, 100)
FLOORS = (0.0, 1e-6, 1e-4)
IN_FLIGHT = (1, 4, 16)


def main() -> int:
    """Run the parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("candidates", type=Path)
    parser.add_argument("--labels", type=int, default=50, metavar="N")
    parser.add_argument("--bounds", type=int, default=200, metavar="N")
    parser.add_argument("--throughput", type=int, default=20, metavar="N")
    parser.add_argument("--passages", type=int, help="of each question the first so many and the pseudo-passage")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    records = list(read(arguments.candidates, Retrieved))
    random.Random(arguments.seed).shuffle(records)
    local = open_lm(model=DEFAULT, dtype="float32")
    assert isinstance(local, LocalLM)
    requests = [request_of(local, record, arguments.passages) for record in records]
    tables: dict[str, list[dict[str, Any]]] = {}
    if arguments.labels:
        tables["Labels of llama.cpp's server against the same weights in float32"] = compare(
            local, requests[: arguments.labels]
        )
    if arguments.bounds:
        tables["Bounds from the k most likely tokens, alpha 0.5"] = bound(local, requests[: arguments.bounds])
    if arguments.throughput:
        tables["Requests in flight to llama.cpp's server, alpha 0"] = throughput(requests[: arguments.throughput])
    write_results("engines", "Engines behind HTTP", asked(arguments), tables, arguments.out)
    return 0


def request_of(lm: LocalLM, record: Retrieved, passages: int | None) -> ScoringRequest:
    """A question with its first answer, in the completion form."""
    prompts = for_model("completion", lm)
    few = record.ctxs[:passages] + [c for c in record.ctxs[passages or 0 :] if c.origin == "generated"]
    return ScoringRequest(
        [prompts.with_passages(record.question, [ctx], reserve=64) for ctx in (few if passages else record.ctxs)],
        prompts.without(record.question),
        [prompts.scored_answer(record.answers[0])],
    )


@contextmanager
def server() -> Iterator[tuple[str, int]]:
    """The base URL of llama.cpp's server, and its process."""
    command = [sys.executable, "-m", "tests.llama_server", ""]
    quiet: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, text=True, cwd=ROOT, **quiet) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip(), process.pid
        finally:
            process.kill()


def opened(base: str, in_flight: int) -> RemoteScorer:
    """The server's model."""
    lm = open_lm(model=f"{base}#smollm2", concurrency=in_flight, timeout=600.0)
    assert isinstance(lm, RemoteScorer)
    return lm


# --- labels --------------------------------------------------------------------------------------------------------


def compare(local: LocalLM, requests: Sequence[ScoringRequest]) -> list[dict[str, Any]]:
    """Losses [passage, answer, alpha] of both, by alpha."""
    with server() as (base, _):
        remote = opened(base, 4)
        theirs = [remote.losses([r], ALPHAS)[0] for r in progress(requests, "llama.cpp", unit="questions")]
    ours = [local.losses([r], ALPHAS)[0] for r in progress(requests, "float32", unit="questions")]
    rows = []
    for i, alpha in enumerate(ALPHAS):
        pairs = [(a[:, 0, i], b[:, 0, i]) for a, b in zip(ours, theirs, strict=True)]
        apart = np.concatenate([np.abs(a - b) for a, b in pairs])
        rhos = [rho for a, b in pairs if (rho := rank_correlation(a.tolist(), b.tolist())) is not None]
        rows.append(
            {
                "alpha": alpha,
                "questions": len(pairs),
                "losses": len(apart),
                "mean loss, nats a token": round(float(np.mean(np.concatenate([a for a, _ in pairs]))), 3),
                "mean difference": f"{apart.mean():.4f}",
                "largest difference": f"{apart.max():.4f}",
                "rank correlation in a question": f"{np.mean(rhos):.4f}",
                "same silver passage": f"{np.mean([a.argmin() == b.argmin() for a, b in pairs]):.1%}",
            }
        )
    return rows


# --- bounds --------------------------------------------------------------------------------------------------------


def distributions(lm: LocalLM, prompt: str, answer: list[int]) -> FloatArray:
    """Log-probabilities behind a prompt at each token of an answer [token, vocabulary]."""
    import torch

    ids = lm.prompt_ids(prompt)
    with torch.inference_mode():
        logits = lm.model(torch.tensor([[*ids, *answer[:-1]]]), use_cache=False).logits[0, len(ids) - 1 :]
    return np.asarray(logits.double().log_softmax(-1).numpy(), dtype=np.float64)


def known(logs: FloatArray, gold: int, top: int) -> Known:
    """What an engine that names the most likely tokens would tell of a distribution [vocabulary]."""
    best = np.argpartition(-logs, top)[:top]
    ids = np.union1d(best, [gold])
    return Known(ids, logs[ids], cutoff=float(logs[best].min()))


def bound(lm: LocalLM, requests: Sequence[ScoringRequest]) -> list[dict[str, Any]]:
    """By k and floor: how often the truth lies between the bounds, how far these are apart, and what they decide."""
    alpha = 0.5
    settings = [(top, floor) for top in TOPS for floor in FLOORS]
    found: dict[tuple[int, float], list[FloatArray]] = {key: [] for key in settings}  # [passage, (true, low, high)]
    published: list[FloatArray] = []
    for request in progress(requests, "distributions", unit="questions"):
        answer = lm.answer_ids(request.answers[0])
        bare = distributions(lm, request.without_prompt, answer)
        rows: dict[tuple[int, float], list[list[float]]] = {key: [] for key in settings}
        for prompt in request.with_prompts:
            own = distributions(lm, prompt, answer)
            for top, floor in settings:
                tokens = []
                for p, q, gold in zip(own, bare, answer, strict=True):
                    clipped = np.maximum(q, np.log(floor)) if floor else q
                    z = (1 + alpha) * p - alpha * clipped
                    true = float(np.logaddexp.reduce(z) - z[gold])
                    sides = known(p, gold, top), known(q, gold, top)
                    tokens.append((true, *token_loss_bounds(gold, *sides, alpha, floor, lm.vocabulary)))
                rows[top, floor].append(np.mean(tokens, axis=0).tolist())
        for key, values in rows.items():
            found[key].append(np.array(values))
        published.append(np.array(rows[TOPS[0], 0.0])[:, 0])
    return [bounds_row(top, floor, found[top, floor], published) for top, floor in settings]


def bounds_row(top: int, floor: float, found: Sequence[FloatArray], published: Sequence[FloatArray]) -> dict[str, Any]:
    """One row of the table; `published` is the true loss without a floor, by question."""
    whole = np.concatenate(found)
    true, low, high = whole.T
    certain, right = [], []
    for own in found:
        silver = int(own[:, 1].argmin())
        certain.append(bool((np.delete(own[:, 1], silver) > own[silver, 2]).all()))
        right.append(int(own[:, 0].argmin()) == silver)
    pairs = zip(found, published, strict=True)
    rhos = [rho for a, b in pairs if (rho := rank_correlation(a[:, 1].tolist(), b.tolist())) is not None]
    slack = 1e-6 * np.maximum(1.0, np.abs(true))  # the sums' rounding
    open_by = np.quantile(true - low, (0.5, 0.95))
    return {
        "k": top,
        "floor": floor or "none",
        "losses": len(whole),
        "coverage": f"{np.mean((low <= true + slack) & (true <= high + slack)):.2%}",
        "estimate below the truth by (median, 95%)": f"{open_by[0]:.4f}, {open_by[1]:.4f}",
        "width (median)": f"{np.median(high - low):.3f}",
        "certain silver passages": f"{np.mean(certain):.1%}",
        "silver passage of the estimate is the true one": f"{np.mean(right):.1%}",
        "rank correlation with the published label": f"{np.mean(rhos):.4f}",
    }


# --- throughput ----------------------------------------------------------------------------------------------------


def throughput(requests: Sequence[ScoringRequest]) -> list[dict[str, Any]]:
    """Questions a second by the number of requests in flight; each starts with a server that has read nothing."""
    rows = []
    for in_flight in IN_FLIGHT:
        with server() as (base, pid):
            lm = opened(base, in_flight)
            lm.losses(requests[:1], [0.0])
            before, used, began = lm.caller.spent.sent, cpu_seconds(pid), time.perf_counter()
            lm.losses(requests[1:], [0.0])
            seconds = time.perf_counter() - began
            sent = lm.caller.spent.sent - before
            rows.append(
                {
                    "in flight": in_flight,
                    "questions": len(requests) - 1,
                    "requests": sent,
                    "questions a second": round((len(requests) - 1) / seconds, 3),
                    "requests a second": round(sent / seconds, 1),
                    "the server computes": f"{(cpu_seconds(pid) - used) / seconds:.0%} of the time",
                }
            )
    return rows


def cpu_seconds(pid: int) -> float:
    """Processor time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    sys.exit(main())
