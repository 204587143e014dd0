"""Mutated inputs of every reader, every setting and every flag, through the command line, in one process.

    python -m tests.fuzz_inputs --cases 1500 --seed 0

A case is wrong when a command ends in a traceback or hangs, when a value known to be bad is accepted, or when the
message does not name the file or flag. A table says how many of each kind; the exit status is 1 when there is a
traceback or a bad value was accepted. What is mutated, and how: tests/fuzz_world.py,
fuzz_files.py and fuzz_settings.py.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import shlex
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from tests.fuzz_files import (
    COMMAND,
    gains_meta,
    index_folder,
    paths,
    records,
    run_folder,
    selector_folder,
    shared_folder,
    tsv,
)
from tests.fuzz_settings import datasets, flags, outputs, settings
from tests.fuzz_world import NO_MODEL, Case, Rng, World

# So long may one command take.
SECONDS = 60


@dataclass(frozen=True)
class Outcome:
    """How a command ended: its exit status, what it said, and where it broke."""

    status: int
    said: str
    broke: str | None = None


# How many of all cases each kind is, and how one is made.
KINDS: dict[str, tuple[int, Callable[[World, Rng], Case]]] = {
    **{reader: (110, records(reader)) for reader in COMMAND},
    "tsv": (50, tsv),
    "paths": (70, paths),
    "index": (120, index_folder),
    "selector": (70, selector_folder),
    "shared": (70, shared_folder),
    "report": (60, run_folder),
    "meta": (30, gains_meta),
    "settings": (220, settings),
    "datasets": (40, datasets),
    "flags": (180, flags),
    "outputs": (40, outputs),
}


def execute(argv: Sequence[str]) -> Outcome:
    """Run one command in this process."""
    from gainrag.cli.main import main

    err = io.StringIO()

    def late(signum: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"no end after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
            return Outcome(main(list(argv)), err.getvalue())
    except SystemExit as error:
        return Outcome(int(error.code or 0), err.getvalue())
    except BaseException as error:
        where = traceback.extract_tb(error.__traceback__)
        own = [f"{Path(f.filename).name}:{f.lineno}" for f in where if "/gainrag/" in f.filename]
        last = own[-1] if own else "?"
        return Outcome(-1, err.getvalue(), f"{type(error).__name__}: {str(error)[:100]!r} at {last}")
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def judge(case: Case, outcome: Outcome) -> str | None:
    """What is wrong with how a case ended: "traceback", "accepted" or "unnamed"; None where nothing is."""
    if outcome.broke or outcome.status not in (0, 1, 2):
        return "traceback"
    refused = outcome.status != 0 and NO_MODEL not in outcome.said
    if case.bad and not refused:
        return "accepted"
    last = outcome.said.strip().rpartition("\n")[2]
    if refused and (not any(name in last for name in case.names) or not last.startswith("gainrag: ")):
        return "unnamed"
    return None


def fuzz(cases: int, seed: int, folder: Path, only: str | None = None) -> tuple[Counter[tuple[str, str]], list[str]]:
    """Try so many cases; (kind, verdict) counted, and a line for each that is wrong."""
    logging.disable(logging.CRITICAL)
    os.environ["HF_HUB_OFFLINE"] = "1"
    counts: Counter[tuple[str, str]] = Counter()
    faults: list[str] = []
    world = World(folder)
    here = Path.cwd()
    os.chdir(folder)  # outputs without a folder go here
    kinds = {name: kind for name, kind in KINDS.items() if only in (None, name)}
    whole = sum(share for share, _ in kinds.values())
    try:
        for name, (share, make) in kinds.items():
            for n in range(max(1, round(cases * share / whole))):
                case = make(world, Rng(f"{seed} {name} {n}"))
                outcome = execute(case.argv)
                verdict = judge(case, outcome)
                counts[case.kind, verdict or "fine"] += 1
                if verdict:
                    said = outcome.broke or outcome.said.strip().rpartition("\n")[2]
                    line = shlex.join(case.argv).replace(str(folder), "")
                    faults.append(f"{verdict}: {name} #{n} ({case.what}) | {line[:160]} | {said[:240]}")
    finally:
        os.chdir(here)
        logging.disable(logging.NOTSET)
    return counts, faults


def table(counts: Counter[tuple[str, str]]) -> Iterator[str]:
    """The counts by kind, a line each."""
    columns = ("fine", "traceback", "accepted", "unnamed")
    yield f"{'kind':<12}" + "".join(f"{column:>11}" for column in columns)
    kinds = dict.fromkeys(kind for kind, _ in counts)
    for kind in kinds:
        yield f"{kind:<12}" + "".join(f"{counts[kind, column]:>11}" for column in columns)
    yield f"{'all':<12}" + "".join(f"{sum(counts[k, column] for k in kinds):>11}" for column in columns)


def main() -> int:
    """Print the table and the faults; 1 where there was a traceback or a bad value was accepted."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--cases", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", help="this kind alone")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gainrag-fuzz-") as folder:
        counts, faults = fuzz(given.cases, given.seed, Path(folder), given.kind)
    for line in (*faults, *table(counts)):
        print(line)
    return int(any(verdict in ("traceback", "accepted") for (_, verdict), n in counts.items() if n))


if __name__ == "__main__":
    sys.exit(main())
