"""Selection of one passage out of 101: latency of every backend beside `CrossEncoder.predict` with its defaults.

    python benchmarks/selection.py candidates.jsonl --selector selector/ [--questions 50] [--rounds 5] [--threads 2]

The candidates come from `gainrag retrieve -k 100` and `gainrag augment`. All rows score the same pairs with the weights
of the same folder, in turns. OpenVINO and ONNX rows are there where their runtimes are installed: a copy of the
selector is exported for them first.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
from common import RESULTS, ROUNDS, asked, in_turns, latency, times_faster, write_results

from gainrag.errors import DataError
from gainrag.files.streams import read
from gainrag.prompts import selector_text
from gainrag.records import Retrieved
from gainrag.selection import top
from gainrag.selectors import CrossEncoderSelector
from gainrag.selectors.backends import Exported, is_installed
from gainrag.selectors.calibration import Calibration
from gainrag.selectors.exporting import export
from gainrag.selectors.learned import read_learned

BASELINE = "CrossEncoder.predict"


def rows_of(
    folder: str, candidates: list[Retrieved], scratch: Path, more: bool
) -> dict[str, Callable[[Retrieved], Any]]:
    """What is compared, by name: scores of a question's candidates."""
    from sentence_transformers import CrossEncoder

    plain, calibration = CrossEncoder(folder, device="cpu"), read_learned(folder, Calibration)

    def predict(r: Retrieved) -> Any:
        scores = plain.predict([(r.question, selector_text(c)) for c in r.ctxs])
        return calibration.apply(r.ctxs, scores) if calibration else scores

    rows: dict[str, Callable[[Retrieved], Any]] = {BASELINE: predict}

    def add(name: str, selector: CrossEncoderSelector) -> None:
        rows[name] = lambda r: selector.score(r.question, r.ctxs)

    for dtype in ("float32", "bfloat16"):
        add(f"torch {dtype}", CrossEncoderSelector(folder, backend="torch", dtype=dtype, device="cpu"))
    if more:
        for tokens in (1024, 4096):
            sized = CrossEncoderSelector(folder, backend="torch", dtype="bfloat16", device="cpu", batch_tokens=tokens)
            add(f"torch bfloat16, {tokens} tokens a batch", sized)
        # Fused attention is transformers' default; whether that is right on this machine is for this row to say.
        written_out = CrossEncoderSelector(folder, backend="torch", dtype="bfloat16", device="cpu")
        written_out.model.model.set_attn_implementation("eager")
        add("torch bfloat16, attention written out", written_out)
    for backend in get_args(Exported):
        for quantize in ("none", "int8") if is_installed(backend) else ():
            copy = export(folder, scratch / f"{backend}-{quantize}", candidates, backend=backend, quantize=quantize)
            add(f"{backend} {quantize}", CrossEncoderSelector(copy, backend=backend))
    return rows


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("candidates", type=Path)
    parser.add_argument("--selector", required=True, help="a selector folder")
    parser.add_argument("--questions", type=int, default=50)
    parser.add_argument("--passages", type=int, default=101, help="candidates a question; with fewer it is left out")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--more", action="store_true", help="also other batch sizes, and attention written out")
    parser.add_argument("--threads", type=int, help="of torch alone; hold every runtime to a core with taskset")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    import torch

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    wide = [r for r in read(arguments.candidates, Retrieved) if len(r.ctxs) >= arguments.passages]
    records = wide[: arguments.questions]
    if len(records) < arguments.questions:
        raise DataError(
            f"{len(records)} questions have {arguments.passages} candidates",
            where=str(arguments.candidates),
            hint="retrieve with -k 100 and augment, or lower --questions",
        )
    for record in records:  # the pseudo-passage, which stands last, is one of them
        record.ctxs = [*record.ctxs[: arguments.passages - 1], record.ctxs[-1]]
    with tempfile.TemporaryDirectory(prefix="gainrag-bench-") as scratch:
        rows = rows_of(arguments.selector, wide, Path(scratch), arguments.more)
        seconds, scores = in_turns(rows, records, arguments.rounds)
    base = scores[BASELINE]
    table = [
        {
            "backend": name,
            **latency(seconds[name]),
            "times faster": times_faster(seconds[name], seconds[BASELINE]),
            "same top-1": round(float(np.mean([top(a, 1) == top(b, 1) for a, b in zip(found, base, strict=True)])), 4),
            "largest difference": f"{max(float(np.abs(a - b).max()) for a, b in zip(found, base, strict=True)):.1e}",
        }
        for name, found in scores.items()
    ]
    settings = asked(arguments)
    title = f"Selection of 1 out of {arguments.passages}, {len(records)} questions, {arguments.rounds} rounds"
    write_results("selection", title, settings, {"Latency a question": table}, arguments.out)


if __name__ == "__main__":
    main()
