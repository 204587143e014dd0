"""kill -9 at random moments of `gainrag synthesize`: is the final file that of a run never stopped?

    python benchmarks/kill.py candidates.jsonl [--kills 10] [--questions 40] [--seed 0]

Prints what each kill found, the hashes of both files, and exits 1 when they differ.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from gainrag.files.streams import file_hash, read, write
from gainrag.records import Retrieved


def command(candidates: Path, out: Path) -> list[str]:
    """The synthesis under test."""
    program = [sys.executable, "-m", "gainrag", "synthesize", str(candidates)]
    return [*program, "--llm", "embedded:smollm2-135m-instruct", "--alpha", "0", "--alpha", "0.5", "-o", str(out)]


def finished(out: Path) -> int:
    """Questions that are on disk."""
    partial = out.with_name(out.name + ".part")
    return partial.read_bytes().count(b"\n") if partial.exists() else 0


def main() -> int:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("candidates", type=Path)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--questions", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        few = folder / "few.jsonl"
        write(few, list(read(arguments.candidates, Retrieved))[: arguments.questions])
        whole, broken = folder / "whole.jsonl", folder / "broken.jsonl"
        began = time.monotonic()
        subprocess.run(command(few, whole), check=True, capture_output=True)
        took = time.monotonic() - began
        print(f"uninterrupted: {took:.0f} s for {arguments.questions} questions", flush=True)
        killed, same = 0, True
        while killed < arguments.kills:
            process = subprocess.Popen(command(few, broken), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            # Anywhere in the time that an uninterrupted run takes; loading the model is a good part of a short one.
            moment = rng.uniform(0, took)
            try:
                process.wait(moment)
                # What was killed before is complete now: it counts for the comparison, not as a kill.
                same &= file_hash(whole) == file_hash(broken)
                verdict = "the same" if same else "DIFFERENT"
                print(f"the run ended before {moment:.1f} s, {verdict}; begun anew", flush=True)
                broken.unlink()
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                killed += 1
                print(f"kill {killed}: after {moment:.1f} s, {finished(broken)} questions on disk", flush=True)
        subprocess.run(command(few, broken), check=True, capture_output=True)
        print(f"uninterrupted {file_hash(whole)}\nkilled        {file_hash(broken)}")
        same &= file_hash(whole) == file_hash(broken)
        print("the same" if same else "DIFFERENT")
        return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
