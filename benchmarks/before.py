"""Labels and selection by the code of another commit beside this one's: is it slower now?

    git worktree add /elsewhere COMMIT
    python benchmarks/before.py /elsewhere candidates.jsonl --selector selector/ [--questions 48] [--rounds 3]

Each is the command itself in a process of its own, `gainrag synthesize` and `gainrag select`, the two trees taking
turns on the same questions; what starting takes is part of both. The libraries are those of this environment.
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

from common import RESULTS, asked, write_results

from gainrag.files.streams import file_hash, read, write
from gainrag.records import Retrieved

HERE = Path(__file__).parents[1]


def seconds_of(tree: Path, arguments: list[str]) -> float:
    """What a command of the code in a tree took."""
    environment = {**os.environ, "PYTHONPATH": str(tree / "src")}
    began = time.perf_counter()
    ran = subprocess.run([sys.executable, "-m", "gainrag", *arguments], env=environment, capture_output=True, text=True)
    if ran.returncode:
        raise SystemExit(ran.stderr)
    return time.perf_counter() - began


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tree", type=Path, help="a checkout of the other commit")
    parser.add_argument("candidates", type=Path)
    parser.add_argument("--selector", type=Path, required=True)
    parser.add_argument("--llm", default="embedded:smollm2-135m-instruct")
    parser.add_argument("--questions", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        some, out = Path(folder) / "some.jsonl", Path(folder) / "out.jsonl"
        write(some, list(islice(read(args.candidates, Retrieved), args.questions)))
        commands = {
            "synthesize": ["synthesize", str(some), "-o", str(out), "--llm", args.llm],
            "select": ["select", str(some), "-o", str(out), "--selector", str(args.selector)],
        }
        for name, command in commands.items():
            seconds: dict[Path, list[float]] = {args.tree: [], HERE: []}
            made = set()
            for number in range(args.rounds):
                for tree in list(seconds)[:: 1 if number % 2 else -1]:
                    for left in Path(folder).glob("out.*"):
                        left.unlink()
                    seconds[tree].append(seconds_of(tree, command))
                    made.add(file_hash(out))
            before, now = (median(took) for took in seconds.values())
            ratio = median(b / n for b, n in zip(*seconds.values(), strict=True))
            row = {"command": name, "before s": round(before, 1), "now s": round(now, 1)}
            rows.append({**row, "times as fast": round(ratio, 2), "same bytes": "yes" if len(made) == 1 else "no"})
            print(rows[-1], flush=True)
    write_results("before", "This commit beside another", asked(args), {"Whole commands": rows}, args.out)


if __name__ == "__main__":
    main()
