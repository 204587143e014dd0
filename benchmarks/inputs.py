"""The folder that `make bench` reads, made of data sets.

    python benchmarks/inputs.py DATA/nq DATA/triviaqa DATA/hotpotqa --selector selector/ -o bench/ [--questions 16]

Each data set's folder holds corpus.jsonl.gz and train.jsonl.gz. Passages are those that BM25 finds for the first
training questions, 100 of them for the first data set's `candidates.jsonl`, 20 for NAME.jsonl; the pseudo-passages are
short ones by the smallest embedded model. What is there is not made again.
"""

from __future__ import annotations

import argparse
import shutil
from itertools import islice
from pathlib import Path

from gainrag import cli
from gainrag.files.streams import write
from gainrag.ingestion import read_questions


def run(*arguments: str | Path) -> None:
    """A command; the first one that fails ends this."""
    if status := cli.main([str(argument) for argument in arguments]):
        raise SystemExit(status)


def main() -> None:
    """Make what is not there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--selector", type=Path, required=True, help="a cross-encoder with lazy.json; copied")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--llm", default="embedded:smollm2-135m-instruct")
    parser.add_argument("--questions", type=int, default=16)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if not (args.out / "selector").exists():
        shutil.copytree(args.selector, args.out / "selector")
    for folder in args.folders:
        index = args.out / ("index" if folder == args.folders[0] else f"index-{folder.name}")
        questions = args.out / ("questions.jsonl" if folder == args.folders[0] else f"questions-{folder.name}.jsonl")
        found = read_questions(folder / "train.jsonl.gz", need_answers=True)
        write(questions, list(islice(found, args.questions)))
        run("index", folder / "corpus.jsonl.gz", "-o", index, "--retriever", "bm25")
        sizes = {folder.name: 20, **({"candidates": 100} if folder == args.folders[0] else {})}
        for name, k in sizes.items():
            retrieved, out = args.out / f"retrieved-{name}.jsonl", args.out / f"{name}.jsonl"
            run("retrieve", questions, "--index", index, "-k", str(k), "-o", retrieved)
            run("augment", retrieved, "-o", out, "--llm", args.llm, "--max-new-tokens", "32")


if __name__ == "__main__":
    main()
