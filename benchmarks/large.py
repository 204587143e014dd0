"""Indexes of 20 thousand, 200 thousand and 2 million passages: time, memory, disk, speed of search, recall, and a kill.

    python benchmarks/large.py DATA/nq DATA/squad .. --work FOLDER [--size 20000 --size 200000 --size 2000000]
        [--step bm25 --step flat --step int8 --step pq --step kill] [--encoded 20000] [--encode]

Each folder holds corpus.jsonl.gz and test.jsonl.gz.

Passages: those of the data sets, in random order, each text once. Where more are wanted: the first half of the
sentences of one passage, under its title, and the second half of the sentences of another, both drawn at random; a text
that came before is drawn again. So texts differ, and the vocabulary stays that of the data sets: a real corpus of this
size has more words.

Vectors: the embedded encoder's of the first passages (--encoded). The others are mixed, unless --encode asks for the
hours that encoding all takes: (1 - w) of one real vector, w of another, w even between 0 and 0.5, and noise of length
0.1, brought to length 1. Such vectors lie closer together than real ones; recall on them is not that on real text.

Questions: of the test sets, as many of each. Search is timed one question at a time, the vector of the question made
before; k is 100.

Each step runs in a process of its own, so that its memory is its own. "memory" is what the process holds itself, "with
files" what it has mapped of files, too, which the system takes back when others need it. Seconds are of the processor
and of the clock: others may work on the machine. What is finished in --work is not made again, so that steps can run
one by one.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from common import RESULTS, asked, write_results

from gainrag.files.folders import Begun
from gainrag.files.streams import file_hash, read_json, write, write_json
from gainrag.indexing import index, open_index
from gainrag.ingestion import read_passages, read_questions
from gainrag.records import Passage
from gainrag.retrievers.compressed import VECTORS_FILE, Compressed, Kind, read_compression
from gainrag.retrievers.compressing import compress, encode_to, recall
from gainrag.retrievers.dense import MODEL, Encoding, encode_questions, load_encoder

STEPS = ("bm25", "flat", "int8", "pq", "kill")
SEED, K, BLOCK = 0, 100, 1 << 14
SENTENCE = re.compile(r"(?<=[.!?])\s+")
HOW = Encoding(MODEL, True, 64)

Vectors = npt.NDArray[np.float32]


def real_passages(folders: Sequence[Path]) -> list[Passage]:
    """All passages of the data sets, mixed; ids carry the data set's name, texts that come twice stand once."""
    found: dict[str, Passage] = {}
    for folder in folders:
        for p in read_passages(folder / "corpus.jsonl.gz"):
            found.setdefault(p.text, Passage(id=f"{folder.name}/{p.id}", title=p.title, text=p.text))
    mixed = list(found.values())
    random.Random(SEED).shuffle(mixed)
    return mixed


def real_questions(folders: Sequence[Path], number: int) -> list[str]:
    """Test questions, drawn at random, as many of each data set."""
    drawn: list[str] = []
    for folder in folders:
        of_set = [q.question for q in read_questions(folder / "test.jsonl.gz", need_answers=False)]
        drawn += random.Random(SEED).sample(of_set, min(len(of_set), number // len(folders)))
    return drawn


def passages_of(real: Sequence[Passage], number: int) -> Iterator[Passage]:
    """So many passages with different texts: the real ones first, then recombined ones."""
    rng = random.Random(SEED)
    halves = []
    for p in real:
        sentences = SENTENCE.split(p.text)
        middle = (len(sentences) + 1) // 2
        halves.append((" ".join(sentences[:middle]), " ".join(sentences[middle:])))
    seen = {hash(p.text) for p in real}
    yield from real[:number]
    made = len(real)
    while made < number:
        one, other = rng.randrange(len(real)), rng.randrange(len(real))
        text = f"{halves[one][0]} {halves[other][1]}".strip()
        if text and hash(text) not in seen:
            seen.add(hash(text))
            yield Passage(id=f"made/{made}", title=real[one].title, text=text)
            made += 1


def mixed_vectors(real: Vectors, number: int) -> Iterator[Vectors]:
    """Vectors of length 1 in blocks: the real ones first, then mixtures of two."""
    rng = np.random.default_rng(SEED)
    yield real[:number]
    for start in range(len(real), number, BLOCK):
        n = min(BLOCK, number - start)
        w = rng.uniform(0, 0.5, (n, 1)).astype(np.float32)
        one, other = (real[rng.integers(0, len(real), n)] for _ in range(2))
        noise = rng.standard_normal((n, real.shape[1]), dtype=np.float32) * np.float32(0.1 / real.shape[1] ** 0.5)
        mixed = (1 - w) * one + w * other + noise
        yield mixed / np.linalg.norm(mixed, axis=1, keepdims=True)


def prepare(folders: Sequence[Path], work: Path, sizes: Sequence[int], encoded: int, questions: int) -> None:
    """Corpora, real vectors and questions, where they are not there yet."""
    work.mkdir(parents=True, exist_ok=True)
    real = real_passages(folders)
    for size in sizes:
        if not (file := work / f"corpus-{size}.jsonl").exists():
            write(file, passages_of(real, size))
    if not (work / "questions.json").exists():
        texts = real_questions(folders, questions)
        np.save(work / "questions.npy", encode_questions(load_encoder(MODEL), texts, MODEL, True))
        write_json(work / "questions.json", {"questions": texts})
    if not (work / "real.npy").exists():
        (work / "encoding").mkdir(exist_ok=True)
        encode(real[:encoded], work / "encoding", work / "real.npy")


def encode(passages: Sequence[Passage], folder: Path, out: Path) -> None:
    """The real vectors of passages, from where an earlier run stopped."""
    done = read_json(folder / "begun.json")["done"] if (folder / "begun.json").exists() else {}
    begun, began = Begun(folder, {}, done), time.process_time()
    first = int(done.get("encoded", 0))
    encode_to(folder / VECTORS_FILE, passages, begun, HOW, np.float32)
    took = time.process_time() - began
    print(f"encoded {len(passages) - first} passages in {took:.0f} s of the processor", file=sys.stderr)
    os.replace(folder / VECTORS_FILE, out)
    shutil.rmtree(folder)


# --- what runs in a process of its own -----------------------------------------------------------------------------


class Memory(threading.Thread):
    """Looks every 20 ms at what this process holds; the most is what counts."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.own = 0.0

    def run(self) -> None:
        """Look until the process ends."""
        while True:
            self.own = max(self.own, _status("RssAnon"))
            time.sleep(0.02)


def _status(field: str) -> float:
    """GB of a field of the process's status."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024 / 1e9


def child(step: str, size: int, work: Path, whole: bool) -> dict[str, Any]:
    """Build or search one index, and say what it took."""
    memory = Memory()
    memory.start()
    wall, cpu = time.perf_counter(), time.process_time()
    found = (build if not step.startswith("search ") else search)(step.removeprefix("search "), size, work, whole)
    return {
        "CPU s": round(time.process_time() - cpu, 1),
        "clock s": round(time.perf_counter() - wall, 1),
        "memory GB": round(memory.own, 2),
        "with files GB": round(_status("VmHWM"), 2),
        **found,
    }


def build(step: str, size: int, work: Path, whole: bool) -> dict[str, Any]:
    """One index."""
    import faiss

    out = work / f"{step}-{size}"
    if step == "vectors":  # in single precision, what all others are made of
        if whole:
            folder = work / f"encoding-{size}"
            folder.mkdir(exist_ok=True)
            encode(list(read_passages(work / f"corpus-{size}.jsonl")), folder, work / f"vectors-{size}.npy")
            return {}
        real = np.load(work / "real.npy")
        made = np.lib.format.open_memmap(
            str(work / f"vectors-{size}.npy"), mode="w+", dtype=np.float32, shape=(size, real.shape[1])
        )
        start = 0
        for block in mixed_vectors(real, size):
            made[start : start + len(block)] = block
            start += len(block)
        made.flush()
    elif step == "bm25":
        index(work / f"corpus-{size}.jsonl", out, retriever="bm25")
    elif step == "flat":
        vectors = np.load(work / f"vectors-{size}.npy", mmap_mode="r")
        flat = faiss.IndexFlatIP(vectors.shape[1])
        for start in range(0, size, BLOCK):
            flat.add(np.asarray(vectors[start : start + BLOCK]))
        out.mkdir()
        faiss.write_index(flat, str(out / "dense.faiss"))
    else:
        kind: Kind = "pq" if step == "pq" else "int8"
        vectors = np.load(work / f"vectors-{size}.npy", mmap_mode="r")
        out.mkdir(exist_ok=True)
        if not (out / VECTORS_FILE).exists():
            half = np.lib.format.open_memmap(str(out / "half.npy"), mode="w+", dtype=np.float16, shape=vectors.shape)
            for start in range(0, size, BLOCK):
                half[start : start + BLOCK] = vectors[start : start + BLOCK]
            half.flush()
            os.replace(out / "half.npy", out / VECTORS_FILE)
        queries = np.load(work / "questions.npy")
        found = compress(out, size, kind, lambda: ("questions", queries[::2]))
        write_json(out / "compression.json", msgspec.to_builtins(found))
    return {}


def search(step: str, size: int, work: Path, whole: bool) -> dict[str, Any]:
    """Every question by itself."""
    import faiss

    out = work / f"{step}-{size}"
    questions, queries = read_json(work / "questions.json")["questions"], np.load(work / "questions.npy")
    rows: list[Any] = []
    call: Callable[[int], Any]
    more: dict[str, Any] = {}
    if step == "bm25":
        opened = open_index(out)
        call = lambda i: opened.search([questions[i]], K)  # noqa: E731
    elif step == "flat":
        flat = faiss.read_index(str(out / "dense.faiss"), faiss.IO_FLAG_MMAP_IFC)
        call = lambda i: rows.append(flat.search(queries[i : i + 1], K)[1][0])  # noqa: E731
    else:
        compression = read_compression(read_json(out / "compression.json"), out)
        assert compression is not None
        codes = Compressed(out, size, compression)
        call = lambda i: rows.append(codes.search(queries[i : i + 1], K)[1][0])  # noqa: E731
        more = {"factory": compression.factory, "probes": compression.probes}
    for i in range(3):
        call(i)
    rows.clear()
    wall, cpu = [], []
    for i in range(len(questions)):
        began, used = time.perf_counter(), time.process_time()
        call(i)
        wall.append(time.perf_counter() - began)
        cpu.append(time.process_time() - used)
    for name, seconds in (("CPU", cpu), ("clock", wall)):
        more |= {f"p{q} ms {name}": round(1000 * float(np.percentile(seconds, q)), 2) for q in (50, 95)}
    if step == "flat":
        np.save(work / f"exact-{size}.npy", np.stack(rows))
    elif step != "bm25":
        # Half of the questions chose how many lists are looked at; the others, which it never saw, are measured.
        wanted = np.load(work / f"exact-{size}.npy")
        for k in (10, 100):
            more[f"recall@{k}"] = round(recall(np.stack(rows)[1::2], wanted[1::2], k), 4)
    return more


# --- what runs them ------------------------------------------------------------------------------------------------


def start(step: str, size: int, work: Path, whole: bool) -> subprocess.Popen[str]:
    """A step in a process of its own."""
    arguments = [sys.executable, __file__, "--child", step, "--size", str(size), "--work", str(work)]
    return subprocess.Popen(arguments + ["--encode"] * whole, stdout=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What a step said.

    Raises:
        RuntimeError: it failed.
    """
    said, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"a step ended with {process.returncode}")
    found: dict[str, Any] = json.loads(said.splitlines()[-1])
    return found


def bytes_of(folder: Path) -> int:
    """Of all files of a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def measure(step: str, size: int, work: Path, whole: bool) -> dict[str, Any]:
    """One row of the table: build and search."""
    out, kept = work / f"{step}-{size}", work / f"{step}-{size}.json"
    if kept.exists():
        return read_json(kept)
    shutil.rmtree(out, ignore_errors=True)
    if step != "bm25" and not (work / f"vectors-{size}.npy").exists():
        finish(start("vectors", size, work, whole))
    built = finish(start(step, size, work, whole))
    searched = finish(start(f"search {step}", size, work, whole))
    row = {"passages": f"{size:,}", "index": step, **{f"build {key}": value for key, value in built.items()}}
    row |= {"disk GB": round(bytes_of(out) / 1e9, 3)}
    row |= {f"search {key}": value for key, value in searched.items() if "memory" in key or "files" in key}
    figures = ("p50", "p95", "recall", "factory", "probes")
    row |= {key: value for key, value in searched.items() if key.startswith(figures)}
    write_json(kept, row)
    return row


def kill(size: int, work: Path) -> dict[str, Any]:
    """Kill -9 while vectors are added, go on, and compare with the index that was never stopped."""
    out, never, kept = work / f"kill-{size}", work / f"int8-{size}", work / f"killed-{size}.json"
    if kept.exists():
        return read_json(kept)
    shutil.rmtree(out, ignore_errors=True)
    process, began = start("kill", size, work, False), time.perf_counter()
    # With more than one part, when the first one is there.
    sign = "added-0.faiss" if size > 250_000 else "trained.faiss"
    while not (out / sign).exists() and process.poll() is None:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    killed = time.perf_counter() - began
    left = sorted(path.name for path in out.iterdir())
    again = finish(start("kill", size, work, False))
    names = sorted(path.name for path in never.iterdir())
    same = names == sorted(path.name for path in out.iterdir()) and all(
        file_hash(never / name) == file_hash(out / name) for name in names
    )
    shutil.rmtree(out)
    row = {
        "passages": f"{size:,}",
        "killed after s": round(killed, 1),
        "left": ", ".join(left),
        "going on: CPU s": again["CPU s"],
        "going on: clock s": again["clock s"],
        "same bytes as never stopped": same,
    }
    write_json(kept, row)
    return row


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folders", type=Path, nargs="*", help="data sets: folders with corpus.jsonl.gz, test.jsonl.gz")
    parser.add_argument("--work", type=Path, required=True, help="a folder for corpora and indexes: 20 GB at 2 million")
    parser.add_argument("--size", type=int, action="append", help="passages; may be given more than once")
    parser.add_argument("--step", action="append", choices=STEPS)
    parser.add_argument("--encoded", type=int, default=20_000, help="passages that are really encoded")
    parser.add_argument("--encode", action="store_true", help="encode all: 2 million take days on a CPU")
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    sizes = arguments.size or [20_000, 200_000, 2_000_000]
    if arguments.child:
        print(json.dumps(child(arguments.child, sizes[0], arguments.work, arguments.encode)))
        return
    steps = arguments.step or list(STEPS)
    prepare(arguments.folders, arguments.work, sizes, arguments.encoded, arguments.questions)
    rows, kills = [], []
    for size in sizes:
        for step in steps:
            if step == "kill":
                kills.append(kill(size, arguments.work))
                print(kills[-1], file=sys.stderr, flush=True)
            else:
                rows.append(measure(step, size, arguments.work, arguments.encode))
                print(rows[-1], file=sys.stderr, flush=True)
    settings = {**asked(arguments), "folders": " ".join(folder.name for folder in arguments.folders)}
    encoded = len(np.load(arguments.work / "real.npy", mmap_mode="r"))
    settings["really encoded"] = "all" if arguments.encode else str(encoded)
    tables = {"Build and search": rows} | ({"Killed": kills} if kills else {})
    write_results("large", "Large corpora", settings, tables, arguments.out)


if __name__ == "__main__":
    main()
