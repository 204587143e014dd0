"""Labels by two workers of Ray beside one process on the same cores: the rate, and whether the bytes are the same.

    python benchmarks/cluster.py CANDIDATES.jsonl [--questions 160] [--few 32] [--passages 10] [--rounds 3]

CANDIDATES holds retrieved passages, as `gainrag retrieve` writes them. One process has as many threads as there are
workers; each worker has one. Every row is the command itself, `gainrag synthesize`, on few and on all questions, rows
taking turns: "start s" is what it takes before and after the work, "questions/s" the rate between the two sizes,

    (all - few) / (seconds of all - seconds of few).

In bfloat16 the last digits depend on how many threads share a chunk. So the bytes, of labels and meta file, are
compared with those of one process of one thread, on the few questions. Exits with 1 when they differ.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
from common import RESULTS, asked, write_results

from gainrag.files.streams import file_hash, read, write
from gainrag.records import Retrieved


def labelled(candidates: Path, out: Path, llm: str, workers: int, on_ray: bool) -> float:
    """Seconds that the command took, with a thread a worker."""
    command = [sys.executable, "-m", "gainrag", "synthesize", str(candidates), "-o", str(out), "--llm", llm]
    command += ["--dtype", "bfloat16"]
    if on_ray:
        command += ["--ray", "local", "--workers", str(workers), "--cores", "1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1" if on_ray else str(workers)}
    began = time.perf_counter()
    ran = subprocess.run(command, env=environment, capture_output=True, text=True)
    if ran.returncode:
        raise SystemExit(ran.stderr)
    return time.perf_counter() - began


def hashes(labels: Path) -> tuple[str, str]:
    """Of the labels and of their meta file."""
    return file_hash(labels), file_hash(labels.with_name(f"{labels.stem}.meta.json"))


def main() -> int:
    """Measure and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("candidates", type=Path)
    parser.add_argument("--llm", default="embedded:smollm2-135m-instruct")
    parser.add_argument("--questions", type=int, default=160)
    parser.add_argument("--few", type=int, default=32)
    parser.add_argument("--passages", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    names = {f"one process, {args.workers} threads": False, f"Ray, {args.workers} workers of one thread": True}
    seconds: dict[tuple[str, int], list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        records = [
            msgspec.structs.replace(record, ctxs=record.ctxs[: args.passages])
            for record in islice(read(args.candidates, Retrieved), args.questions)
        ]
        sizes = (args.few, len(records))
        for size in sizes:
            write(work / f"{size}.jsonl", records[:size])
        for number in range(args.rounds):
            for size in sizes:
                for name in list(names)[:: 1 if number % 2 else -1]:
                    out = work / ("ray" if names[name] else "one") / f"gains-{size}.jsonl"
                    out.parent.mkdir(exist_ok=True)
                    for left in out.parent.glob(f"gains-{size}.*"):
                        left.unlink()
                    took = labelled(work / f"{size}.jsonl", out, args.llm, args.workers, names[name])
                    seconds.setdefault((name, size), []).append(took)
                    print(f"{name}, {size} questions: {took:.1f} s", flush=True)
        single = work / "single" / f"gains-{args.few}.jsonl"
        single.parent.mkdir()
        labelled(work / f"{args.few}.jsonl", single, args.llm, 1, False)
        same = {name: hashes(work / name / single.name) == hashes(single) for name in ("one", "ray")}
    rows: list[dict[str, Any]] = []
    for name in names:
        few, every = (median(seconds[name, size]) for size in sizes)
        rate = (sizes[1] - sizes[0]) / (every - few)
        row = {"labels by": name, f"s, {sizes[0]} questions": round(few, 1), f"s, {sizes[1]}": round(every, 1)}
        rows.append({**row, "start s": round(few - sizes[0] / rate, 1), "questions/s": round(rate, 2)})
    rows[-1]["times the rate"] = round(rows[-1]["questions/s"] / rows[0]["questions/s"], 2)
    for row, name in zip(rows, ("one", "ray"), strict=True):
        row["bytes of one thread"] = "yes" if same[name] else "no"
    write_results("cluster", "Ray beside one process", asked(args), {"Gain labels": rows}, args.out)
    return 0 if same["ray"] else 1


if __name__ == "__main__":
    sys.exit(main())
