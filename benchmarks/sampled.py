"""Sampled labels beside exact ones: how far they agree, and what a selector that learns from them is worth.

    python benchmarks/sampled.py runs/six/gains/train.jsonl --labels labels/ [--questions 300] [-n 1 -n 5] [--at-most 8]

GAINS are gain records with losses at alpha 0, of the language model --llm. Of their questions that no training holds
out the first --questions, drawn by the seed, are labelled again by sampled answers; labels/ keeps what was answered,
and a run that was stopped goes on there. Then feature selectors learn, from scratch, from the exact and from the
sampled labels of the same questions. They are judged on --judge held-out questions by the exact losses: by how many
nats a token the loss of the passage that they put first is above the best one's. Beside their first choice stand the
retriever's and one by chance. The shipped selector is no start here: it has learned from questions like these.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from common import RESULTS, asked, with_error, write_results

from gainrag.errors import DataError
from gainrag.files.streams import read
from gainrag.lms import DEFAULT, open_lm
from gainrag.lms.local import LocalLM
from gainrag.prompts import question_with_choices
from gainrag.protocols import FloatArray, scores_with
from gainrag.records import GainRecord, Retrieved, Scored
from gainrag.synthesis import agree, losses_at, requests_for, summarize, synthesize
from gainrag.training import train
from gainrag.training.held_out import regret_of_retrieval
from gainrag.training.labels import Example, is_held_out

HELD_OUT = 0.2


def as_candidates(record: GainRecord) -> Retrieved:
    """What the record was labelled from."""
    ctxs = [Scored(**{name: getattr(ctx, name) for name in Scored.__struct_fields__}) for ctx in record.ctxs]
    own = {name: getattr(record, name) for name in ("id", "question", "answers", "choices", "extra")}
    return Retrieved(**own, ctxs=ctxs)


def at_plain(record: GainRecord) -> GainRecord:
    """The record with its gains at alpha 0, which are what the selectors are judged by."""
    losses = losses_at(record, 0.0)
    ctxs = [
        msgspec.structs.replace(ctx, gain=-float(np.logaddexp(0.0, loss)))
        for ctx, loss in zip(record.ctxs, losses, strict=True)
    ]
    return msgspec.structs.replace(record, ctxs=ctxs, silver=int(np.argmin(losses)))


def lost_by(learned: Sequence[GainRecord], held: Sequence[GainRecord], only_kept: bool) -> FloatArray:
    """The regret on each held-out question, nats a token, of a feature selector that learns from these labels."""
    with tempfile.TemporaryDirectory() as folder:
        selector = train(
            learned,
            Path(folder) / "selector",
            kind="features",
            start="scratch",
            validation=0.0,
            only_kept=only_kept,
            keep_worse=True,
        )
        scores = scores_with(selector, [(question_with_choices(r.question, r.choices), r.ctxs) for r in held])
    losses = [np.array(losses_at(r, 0.0)) for r in held]
    return np.array([float(own[int(np.argmax(s))] - own.min()) for own, s in zip(losses, scores, strict=True)])


def figure(found: dict[str, Any]) -> str:
    """A mean with its interval."""
    if found["mean"] is None or found["low"] is None:
        return str(found["mean"])
    return f"{found['mean']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"


def main() -> None:
    """Label, compare, learn, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gains", type=Path)
    parser.add_argument("--labels", type=Path, required=True, help="the folder for sampled labels")
    parser.add_argument("--llm", default=DEFAULT)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--judge", type=int, default=500)
    parser.add_argument("-n", type=int, action="append", help="answers a passage; may be given several times [1, 5]")
    parser.add_argument("--at-most", type=int, help="also with so many candidates a question, for the largest n")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    records = [at_plain(record) for record in read(arguments.gains, GainRecord)]
    order = np.random.default_rng(arguments.seed).permutation(len(records))
    drawn = [records[i] for i in order]
    held = [r for r in drawn if is_held_out(r.id, HELD_OUT)][: arguments.judge]
    exact = [r for r in drawn if not is_held_out(r.id, HELD_OUT)][: arguments.questions]
    candidates = [as_candidates(record) for record in exact]
    arguments.labels.mkdir(parents=True, exist_ok=True)
    lm = open_lm(model=arguments.llm, dtype=arguments.dtype)
    assert isinstance(lm, LocalLM), "labels of the same model are compared: it tells its losses"
    counts = arguments.n or [1, 5]
    plans: list[tuple[str, dict[str, Any]]] = [(f"{n} a passage", {"n": n}) for n in counts]
    if arguments.at_most:
        most = max(counts)
        plans.append((f"{most} a passage, {arguments.at_most} passages", {"n": most, "at_most": arguments.at_most}))
    learned = {"exact losses": exact}
    agreement = []
    for name, own in plans:
        told: dict[str, object] = {"llm": lm.name, "dtype": lm.dtype}
        settings = {**own, "labels": "sampled", "sampling_temperature": arguments.temperature, "seed": arguments.seed}
        path = arguments.labels / f"{'-'.join(f'{key}={value}' for key, value in settings.items())}.jsonl"
        done = list(read(path, GainRecord)) if path.exists() else []
        if [record.id for record in done] != [record.id for record in candidates]:
            done = synthesize(candidates, lm, path, told, **settings)
        learned[name] = done
        found, figures = agree(done, exact), summarize(done)
        agreement.append(
            {
                "labels": name,
                "requests": requests_for(candidates, own["n"], "contains", own.get("at_most")),
                "right": f"{figures['right']:.1%}",
                "questions that tell": f"{figures['telling']:.1%}",
                "Spearman with exact": figure(found["rank_correlation"]),
                "defined on": found["questions"] - found["rank_correlation"]["undefined"],
                "same silver": f"{found['same_silver']['k'] / found['same_silver']['n']:.1%}",
                "regret of the silver passage, gain": figure(found["regret"]),
                "of a random one": f"{found['regret']['chance']:.3f}",
            }
        )
    judged = [Example(r, [-loss for loss in losses_at(r, 0.0)]) for r in held]
    by_chance = [max(e.own) - float(np.mean(e.own)) for e in judged]
    rows = [
        {"learned from": "nothing: the retriever's first", "regret": f"{regret_of_retrieval(judged):.3f}"},
        {"learned from": "nothing: a random passage", "regret": f"{np.mean(by_chance):.3f}"},
    ]
    for only_kept in (False, True):
        first: FloatArray | None = None
        for name, labels in learned.items():
            questions = sum(r.kept or not only_kept for r in labels)
            row: dict[str, Any] = {"learned from": name, "questions": f"{questions}{' kept' if only_kept else ''}"}
            try:
                lost = lost_by(labels, held, only_kept)
            except DataError as error:  # of few questions none may be kept, or all passages be alike
                row["regret"] = error.what
            else:
                first = lost if first is None else first
                row |= {"regret": with_error(lost), "above exact": with_error(lost - first, "+")}
            rows.append(row)
    title = f"Sampled labels beside exact ones: {len(exact)} questions labelled, {len(held)} held out"
    tables = {
        "Agreement with the exact gains at alpha 0": agreement,
        "Regret on held-out questions, nats a token (standard error)": rows,
    }
    write_results("sampled", title, asked(arguments), tables, arguments.out)


if __name__ == "__main__":
    main()
