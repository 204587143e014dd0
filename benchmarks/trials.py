"""What a training setting is worth: selectors from a finished run's warm start, one setting changed at a time.

    python benchmarks/trials.py runs/six --other runs/gemma -o trials.json

Each learns from the run's first LEARN labelled questions that no selector holds out and is judged by JUDGE questions
that all of them hold out: by how much the first passage loses against the best candidate, in nats a token of the plain
loss (alpha 0), and by its difference to the first trial, with standard errors. Test questions play no part. Trials
that FILE has already are not made again; all others are, or those that --trial names. Beyond what `gainrag tune` varies
there are labels, what the selector starts from, and gains averaged over two readers (--other: a run of the same
questions and passages with another one).
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from common import with_error

from gainrag.files.streams import read, read_json, write_json
from gainrag.protocols import scores_with
from gainrag.records import GainRecord
from gainrag.synthesis import losses_at
from gainrag.training import train
from gainrag.training.labels import is_held_out

TRIALS: dict[str, dict[str, Any]] = {
    "as the run": {},
    "gains averaged over two readers": {},
    "temperature 1": {"temperature": 1.0},
    "all 11 candidates a visit": {"group_size": 11},
    "negatives among the first five": {},
    "no warm start": {"base": "embedded:all-minilm-l6-v2"},
    "kept questions alone": {"only_kept": True},
    "learning rate a third": {"learning_rate": 2e-5},
    "two epochs": {"epochs": 2},
    "temperature 0.1": {"temperature": 0.1},
    "alpha 0": {"alpha": 0.0},
    "has-answer labels": {"labels": "relevance"},
    "labels by likelihood": {"labels": "likelihood"},
    "point-wise loss": {"labels": "information_gain"},
}
TWO_READERS, HARDER = "gains averaged over two readers", "negatives among the first five"


def averaged(records: Sequence[GainRecord], other: Sequence[GainRecord]) -> list[GainRecord]:
    """The records with the mean of both readers' losses of every retrieved passage, for each alpha; a pseudo-passage is
    its reader's own and keeps its loss."""
    by_id = {record.id: {ctx.id: ctx.loss for ctx in record.ctxs} for record in other}
    found = []
    for record in records:
        ctxs = []
        for ctx in record.ctxs:
            theirs = by_id[record.id].get(ctx.id) if ctx.origin != "generated" else None
            loss = {a: (mine + theirs[a]) / 2 for a, mine in ctx.loss.items()} if theirs else ctx.loss
            ctxs.append(msgspec.structs.replace(ctx, loss=loss))
        found.append(msgspec.structs.replace(record, ctxs=ctxs))
    return found


def harder(records: Sequence[GainRecord]) -> list[GainRecord]:
    """The records with nothing but the candidate of the highest gain and the first five that were retrieved."""
    found = []
    for record in records:
        best = max(record.ctxs, key=lambda ctx: ctx.gain)
        first = [*record.ctxs[:5], *([] if best in record.ctxs[:5] else [best])]
        found.append(msgspec.structs.replace(record, ctxs=first))
    return found


def main() -> None:
    """Make the trials that are not there yet and print all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--other", type=Path, help="the run of another reader")
    parser.add_argument("--learn", type=int, default=600)
    parser.add_argument("--judge", type=int, default=500)
    parser.add_argument("--trial", action="append", choices=TRIALS, help="one of them; may be given several times")
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    table = read_json(arguments.run / "selector.meta.json")["settings"]
    kept = ("max_length", "temperature", "alpha", "only_kept", "group_size", "dropout", "validation")
    shared = {key: table[key] for key in kept}
    shared |= {"base": str(arguments.run / "warm_start"), "epochs": 1, "retrieval_prior": True}
    records = list(read(arguments.run / "gains" / "train.jsonl", GainRecord))
    held = [r for r in records if is_held_out(r.id, shared["validation"])][: arguments.judge]
    learn = [r for r in records if not is_held_out(r.id, shared["validation"])]
    plain = [np.array(losses_at(r, 0.0)) for r in held]
    done: dict[str, Any] = read_json(arguments.output) if arguments.output.exists() else {}
    for name in arguments.trial or TRIALS:
        changed = TRIALS[name]
        if name in done or (name == TWO_READERS and not arguments.other):
            continue
        own = {"kind": "cross-encoder", **shared, **changed}
        usable = [r for r in learn if r.kept or not own["only_kept"]][: arguments.learn]
        taught = [*(harder(usable) if name == HARDER else usable), *held]
        if name == TWO_READERS:
            taught = averaged(taught, list(read(arguments.other / "gains" / "train.jsonl", GainRecord)))
        own["only_kept"] = False  # the judges stay the same: the filter is of what is learned
        with tempfile.TemporaryDirectory() as folder:
            selector = train(taught, Path(folder) / "selector", **own)
            # Within: near-ties are scored again by a copy that is loaded then.
            scores = scores_with(selector, [(r.question, r.ctxs) for r in held])
        lost = [float(p[int(np.argmax(s))] - p.min()) for p, s in zip(plain, scores, strict=True)]
        holds = [bool(r.ctxs[int(np.argmax(s))].hasanswer) for r, s in zip(held, scores, strict=True)]
        done[name] = {"questions": len(usable), "regrets": [round(x, 5) for x in lost], "holds an answer": holds}
        write_json(arguments.output, done)
        print(describe(done), end="\n\n", flush=True)


def describe(done: dict[str, Any]) -> str:
    """The trials as a few lines: regret, difference to the first trial, share that holds an answer."""
    first = np.array(next(iter(done.values()))["regrets"])
    lines = [f"{'trial':34} {'regret':16} {'above the first':18} holds an answer"]
    for name, found in done.items():
        lost = np.array(found["regrets"])
        holds = np.mean(found["holds an answer"])
        lines.append(f"{name:34} {with_error(lost):16} {with_error(lost - first, '+'):18} {holds:.1%}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
