"""What share of the machine's matrix-product peak scoring reaches, by the size of the model.

    python benchmarks/shapes.py candidates.jsonl [--shapes 135m 1b] [--questions 4] [--rounds 5]

The candidates come from `gainrag retrieve -k 20` and `gainrag augment`. The shapes are those of SmolLM2-135M and of
Llama 3; weights are random, as speed does not depend on them, and the tokenizer is the embedded model's. The peak is
measured anew in every round, beside what it is compared with.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from common import RESULTS, ROUNDS, asked, timed, write_results

from gainrag.files.streams import read
from gainrag.lms.local import LocalLM
from gainrag.lms.throughput import measured_peak
from gainrag.models.folder import resolve
from gainrag.models.loading import load_tokenizer
from gainrag.prompts import for_model
from gainrag.records import Retrieved
from gainrag.synthesis import scoring_request

# hidden size, size inside the feed-forward part, layers, heads, key-value heads, size of a head, vocabulary, tied head
SHAPES = {
    "135m": (576, 1536, 30, 9, 3, 64, 49152, True),
    "1b": (2048, 8192, 16, 32, 8, 64, 128256, True),
    "3b": (3072, 8192, 28, 24, 8, 128, 128256, True),
    "8b": (4096, 14336, 32, 32, 8, 128, 128256, False),
}
FIELDS = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "vocab_size",
    "tie_word_embeddings",
)


def random_model(shape: str, folder: Path, dtype: str) -> None:
    """Write a Llama of this shape with random weights, and the embedded model's tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    sizes = dict(zip(FIELDS, SHAPES[shape], strict=True))
    config = AutoConfig.for_model("llama", max_position_embeddings=8192, **sizes)
    AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype)).save_pretrained(folder)
    load_tokenizer(resolve("embedded:smollm2-135m-instruct")).save_pretrained(folder)


def measure(shape: str, records: list[Retrieved], dtype: str, device: str, alphas: list[float], rounds: int) -> Any:
    """The table's row of one shape."""
    with tempfile.TemporaryDirectory(prefix="gainrag-bench-") as scratch:
        random_model(shape, Path(scratch), "float32" if dtype == "float32" else "bfloat16")
        lm = LocalLM(scratch, dtype=dtype, device=device)
    prompts = for_model("completion", lm)
    requests = [scoring_request(prompts, record) for record in records]
    lm.losses(requests[:1], alphas)
    rates, shares, peaks = [], [], []
    for _ in range(rounds):
        tokens, flop = lm.throughput.tokens, lm.throughput.flop
        peak = measured_peak(lm.dtype, lm.device)
        seconds, _found = timed(lambda: lm.losses(requests, alphas))
        rates.append((lm.throughput.tokens - tokens) / seconds)
        shares.append((lm.throughput.flop - flop) / seconds / peak)
        peaks.append(peak)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if lm.kind == "cuda":
        import torch

        memory = torch.cuda.max_memory_allocated() / 2**20
    return {
        "shape": shape,
        "hidden size": SHAPES[shape][0],
        "dtype": lm.dtype,
        "tokens/s": round(median(rates)),
        "s/question": round((lm.throughput.tokens - tokens) / len(requests) / median(rates), 3),
        "measured peak GFLOP/s": round(median(peaks) / 1e9),
        "share of the peak": f"{median(shares):.0%}",
        "peak memory MB": round(memory),
    }


def main() -> None:
    """Measure the shapes one after another and write benchmarks/results/shapes.*."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("candidates", type=Path)
    parser.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=["135m", "1b"])
    parser.add_argument("--questions", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--alphas", nargs="+", type=float, default=[0.0, 0.5])
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    records = list(read(arguments.candidates, Retrieved))[: arguments.questions]
    rows = []
    for shape in arguments.shapes:
        how = (arguments.dtype, arguments.device, arguments.alphas, arguments.rounds)
        rows.append(measure(shape, records, *how))
        print(rows[-1], flush=True)
    settings = asked(arguments)
    tables = {"Share of the measured matrix-product peak, by the model's size": rows}
    write_results("shapes", "Scoring with models of several sizes", settings, tables, arguments.out)


if __name__ == "__main__":
    main()
