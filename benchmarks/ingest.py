"""Many files: how long `gainrag ingest docs` takes, in how much memory, and again after one file has changed.

    python benchmarks/ingest.py --files 20000 --kib 50

Each measurement is a process of its own, so that its peak memory is its own. The files are Markdown with headings,
prose, lists, tables and code, made of words drawn from the texts that Python's own help ships, as often as they are
there, so that no two passages are alike and words have the usual number of tokens.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from pydoc_data.topics import topics

FOLDERS = 100


def make_files(folder: Path, files: int, size: int, seed: int = 0) -> int:
    """Write the files; their bytes in all."""
    rng = random.Random(seed)
    counts = Counter(word for text in topics.values() for word in text.split() if word.isalpha())
    words, weights = list(counts), list(itertools.accumulate(counts.values()))
    total = 0
    for number in range(files):
        path = folder / f"{number % FOLDERS:02d}" / f"page{number:05d}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        drawn = iter(rng.choices(words, cum_weights=weights, k=size // 4))
        parts, length = [f"# Page {number}\n"], 0
        while length < size:
            parts.append(_part(rng, [next(drawn, "end") for _ in range(60)]))
            length += len(parts[-1])
        text = "\n".join(parts)[:size]
        path.write_text(text, encoding="utf-8")
        total += len(text)
    return total


def _part(rng: random.Random, words: list[str]) -> str:
    """A heading and what stands under it."""
    kind = rng.randrange(4)
    head = f"## {' '.join(words[:3]).title()}\n\n"
    if kind == 0:
        rows = "\n".join(f"| {words[i]} | {words[i + 1]} |" for i in range(3, 41, 2))
        return f"{head}| name | value |\n|---|---|\n{rows}\n"
    if kind == 1:
        code = "\n".join(f"{words[i]} = {words[i + 1]}()" for i in range(3, 41, 2))
        return f"{head}```python\n{code}\n```\n"
    if kind == 2:
        return head + "\n".join(f"- {' '.join(words[i : i + 8])}" for i in range(3, 51, 8)) + "\n"
    return f"{head}{' '.join(words[3:30]).capitalize()}. {' '.join(words[30:]).capitalize()}.\n"


def measure(source: Path, out: Path) -> dict[str, float]:
    """One run in a process of its own: seconds and MiB."""
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, __file__, "--run", str(source), str(out)], check=True, capture_output=True, text=True
    )
    seconds = time.perf_counter() - begun
    return {"seconds": round(seconds, 1), **json.loads(done.stdout.splitlines()[-1])}


def main() -> None:
    """Make the files, read them, change one, read again, and a third time without a change."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--kib", type=int, default=50, help="KiB a file")
    parser.add_argument("--folder", help="where the files and the corpus go, and stay [a temporary one]")
    parser.add_argument("--run", nargs=2, metavar=("SOURCE", "OUT"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.run:
        from gainrag.ingestion import ingest_documents

        found = ingest_documents(given.run[0], given.run[1])
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"MiB": round(peak), "passages": found.passages, "files read": found.counts["files read"]}))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(given.folder or temporary)
        source, out = folder / "docs", folder / "data"
        begun = time.perf_counter()
        total = make_files(source, given.files, given.kib * 1024)
        print(f"{given.files} files, {total / 1e6:.0f} MB, made in {time.perf_counter() - begun:.0f} s", flush=True)
        print("first run           ", measure(source, out), flush=True)
        changed = source / "00" / "page00000.md"
        changed.write_text(changed.read_text(encoding="utf-8") + "\nOne more line.\n", encoding="utf-8")
        print("after one change    ", measure(source, out), flush=True)
        print("nothing has changed ", measure(source, out), flush=True)


if __name__ == "__main__":
    main()
