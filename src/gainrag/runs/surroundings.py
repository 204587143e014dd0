"""What is there to begin with: documents, a corpus, questions, engines, and the machine. Only looked at, not loaded."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from gainrag.errors import DataError, GainragError
from gainrag.ingestion import read_questions
from gainrag.ingestion.documents import is_readable
from gainrag.lms.remote.nearby import Nearby, nearby
from gainrag.models.registry import PREFIX, is_installed
from gainrag.records import ASKED_BY, BY_MODEL, BY_PEOPLE

# Language models that come as packages, the best reader first.
READERS = ("qwen2.5-coder-1.5b", "qwen2.5-coder-0.5b", "gemma3-270m", "smollm2-135m-instruct")
_LINES = (".jsonl", ".jsonl.gz")


@dataclass(frozen=True)
class Machine:
    """Cores that this process may use, bytes of memory (None where the system does not say), and the GPU's name."""

    cores: int
    memory: int | None
    gpu: str | None

    def __str__(self) -> str:
        memory = f", {self.memory / 2**30:.0f} GiB of memory" if self.memory else ""
        return f"{self.cores} cores{memory}, {self.gpu or 'no GPU'}"


@dataclass
class Surroundings:
    """What lies in a folder and what runs on this machine.

    documents: how many files a reader is there for, by their ending; `paths` are these, and `size` their bytes.
    files: corpus, train, test and questions, by what they are called; `counts` are their questions.
    mixed: whether a model wrote some of the test, and people asked the others.
    engines: language models behind HTTP on this machine.
    embedded: the installed language models, the best first, as `open_lm` takes them.
    notes: what was seen and cannot be used, a line each.
    """

    folder: Path
    machine: Machine
    documents: Counter[str] = field(default_factory=Counter)
    paths: list[Path] = field(default_factory=list)
    size: int = 0
    files: dict[str, Path] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    mixed: bool = False
    engines: list[Nearby] = field(default_factory=list)
    embedded: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def look(folder: Path) -> Surroundings:
    """Look at a folder and the machine.

    Files are known by their names, in the folder or in data/ below it: corpus.jsonl, train.jsonl, test.jsonl, and
    questions.jsonl, plain or .gz.

    Raises:
        DataError: there is no such folder.
    """
    if not folder.is_dir():
        raise DataError("no such folder", where=str(folder), hint="name the folder of your documents")
    found = Surroundings(folder, machine())
    _look_for_files(found)
    _look_for_documents(found)
    if hasattr(os, "getloadavg") and (load := os.getloadavg()[0]) > found.machine.cores:
        found.notes.append(f"other programs keep the machine busy (a load of {load:.1f}): alone it is faster")
    found.engines, others = nearby()
    found.notes += others
    found.embedded = [PREFIX + name for name in READERS if is_installed(name)]
    return found


def machine() -> Machine:
    """What this process can use."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not every system says
        memory = None
    return Machine(cores, memory, torch.cuda.get_device_name() if torch.cuda.is_available() else None)


def _look_for_files(found: Surroundings) -> None:
    for name in ("corpus", "train", "test", "questions"):
        there = _places(found.folder, name)
        if not there:
            continue
        if name != "corpus":
            try:
                questions = read_questions(there[0], need_answers=True)
            except GainragError as error:
                found.notes.append(f"{there[0]} is not used: {error}")
                continue
            found.counts[name] = len(questions)
            if name == "test":
                found.mixed = {q.extra.get(ASKED_BY) for q in questions} == {BY_MODEL, BY_PEOPLE}
        found.files[name] = there[0]
        found.notes += [f"{path} is not used: {there[0]} is" for path in there[1:]]
    given = {"train", "test"} & found.files.keys()
    unused, why = "", ""
    if len(given) == 1:
        unused, why = min(given), "a run takes both train and test, or has both written"
    elif given and "questions" in found.files:
        unused, why = "questions", "train and test are there"
    if unused:
        found.notes.append(f"{found.files.pop(unused)} is not used: {why}")
    if given and (tune := _places(found.folder, "tune")):
        found.notes.append(f"{tune[0]} is not used: a run holds out some of train; `gainrag ask --tune 0` writes none")


def _places(folder: Path, name: str) -> list[Path]:
    """Where a file of this name is, in the folder or in data/ below it."""
    places = [place / f"{name}{suffix}" for place in (folder, folder / "data") for suffix in _LINES]
    return [path for path in places if path.is_file()]


def _look_for_documents(found: Surroundings) -> None:
    """Count what `gainrag ingest docs` would read."""
    for folder, folders, names in os.walk(found.folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(folder, name)
            if not name.startswith(".") and is_readable(path) and path.is_file():
                found.documents[path.suffix.lower()] += 1
                found.paths.append(path)
                found.size += path.stat().st_size
