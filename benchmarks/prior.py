"""Train the feature selector that ships with the package, and show on held-out questions what it does without scores.

    python benchmarks/prior.py RUN/gains/train.jsonl [RUN/gains/train.jsonl ..] -o src/gainrag/selectors/gain_features

The files are gain records of training questions, one file a reader: what `gainrag restore` makes of the shared labels
of the six data sets. Of every third question there is a copy that lost what the retrievers said, so that the selector
can do without: one score alone, in whose order the passages stand; no score; or scores under names it does not know.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import RESULTS, asked, weights_of, write_results
from msgspec.structs import replace

from gainrag.files.folders import open_output_folder
from gainrag.files.streams import read
from gainrag.protocols import FloatArray
from gainrag.records import Gained, GainRecord
from gainrag.selectors.boosted import write_trees
from gainrag.selectors.features import FEATURES
from gainrag.selectors.trees import Trees
from gainrag.synthesis import losses_at
from gainrag.training.boosting import features_of, fit_trees, words_in
from gainrag.training.labels import Example, is_held_out, targets

SEEDS = 5
HELD_OUT = 0.2
LOST = ("one score", "no score", "other names")
ABOUT = (
    "HotpotQA (CC BY-SA 4.0), 2WikiMultiHopQA (Apache-2.0), Natural Questions (CC BY-SA 3.0), TriviaQA (Apache-2.0), "
    "WebQuestions (CC BY 4.0), SQuAD (CC BY-SA 4.0), over passages of Wikipedia (CC BY-SA): training questions only. "
    "No text of theirs is in here, only counts of single words and the trees."
)


def without(record: GainRecord, lost: str, retriever: str) -> GainRecord:
    """A copy of a question that lost scores.

    Args:
        lost: see LOST.
        retriever: whose order the passages stand in, and whose score is left where one is.
    """
    if lost == "other names":
        return replace(record, ctxs=[replace(c, scores=_renamed(c)) for c in record.ctxs])
    known = [i for i, c in enumerate(record.ctxs) if retriever in (c.scores or {})]
    known.sort(key=lambda i: -(record.ctxs[i].scores or {})[retriever])
    order = [*known, *(i for i in range(len(record.ctxs)) if i not in set(known))]
    kept = lost == "one score"
    ctxs = [
        replace(c, scores=None, score=(c.scores or {}).get(retriever) if kept else None)
        for c in (record.ctxs[i] for i in order)
    ]
    return replace(record, ctxs=ctxs)


def _renamed(passage: Gained) -> dict[str, float] | None:
    return {f"retriever {name}": score for name, score in passage.scores.items()} if passage.scores else None


def copies(records: Sequence[GainRecord], first: int = 0) -> list[GainRecord]:
    """A copy of every third question, what is lost taking turns."""
    return [without(r, LOST[n % 3], ("dense", "bm25")[n // 3 % 2]) for n, r in enumerate(records[first::3])]


def labelled(records: Sequence[GainRecord]) -> list[Example]:
    """The questions with their gains at alpha 0."""
    return [Example(r, targets(r, "gain", 0.0)) for r in records]


def regret(scores: Sequence[FloatArray], records: Sequence[GainRecord]) -> float:
    """Regret at alpha 0, nats per token, averaged over data sets."""
    losses = [np.array(losses_at(record, 0.0)) for record in records]
    lost = [every[int(np.argmax(own))] - every.min() for own, every in zip(scores, losses, strict=True)]
    return float(np.array(lost) @ weights_of(records))


def in_order(records: Sequence[GainRecord]) -> list[FloatArray]:
    """Scores that say what the order of the list says."""
    return [-np.arange(len(r.ctxs), dtype=np.float64) for r in records]


def check(trees: Trees, held: Mapping[str, Sequence[GainRecord]]) -> list[dict[str, Any]]:
    """The held-out table: by reader and by what is lost, regret in the list's order and by the selector."""
    rows = []
    for reader, records in held.items():
        lists = {"nothing": list(records)}
        for retriever in ("dense", "bm25"):
            for lost in LOST[:2]:
                lists[f"{lost}: {retriever}"] = [without(r, lost, retriever) for r in records]
        for lost, changed in lists.items():
            found = [trees.predict(m) for m in features_of(labelled(changed), trees.words, trees.names)]
            rows.append(
                {
                    "labels": reader,
                    "lost, all but": lost,
                    "questions": len(changed),
                    "in the list's order": round(regret(in_order(changed), changed), 4),
                    "by the selector": round(regret(found, changed), 4),
                }
            )
    return rows


def main() -> None:
    """Train, check, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("gains", type=Path, nargs="+")
    parser.add_argument("-o", "--out", type=Path, required=True, help="the selector folder")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--checked", type=int, default=350, help="held-out questions a reader in the first table")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    arguments = parser.parse_args()
    readers = {
        f"{n}: {path.parent.parent.name}": list(read(path, GainRecord)) for n, path in enumerate(arguments.gains)
    }
    first = next(iter(readers.values()))
    words = words_in(labelled(first))
    whole = {name: features_of(labelled(records), words) for name, records in readers.items()}
    lost = {name: copies(records, n % 2) for n, (name, records) in enumerate(readers.items())}
    changed = {name: features_of(labelled(records), words) for name, records in lost.items()}
    print("features are there", flush=True)

    def fit(names: Sequence[str], seeds: int, *, held_out: bool) -> Trees:
        examples, matrices = [], []
        for name in names:
            for records, own in ((readers[name], whole[name]), (lost[name], changed[name])):
                chosen = [i for i, r in enumerate(records) if not (held_out and is_held_out(r.id, HELD_OUT))]
                examples += labelled([records[i] for i in chosen])
                matrices += [own[i] for i in chosen]
        return fit_trees(examples, words=words, matrices=matrices, seeds=seeds)

    held = {name: [r for r in records if is_held_out(r.id, HELD_OUT)] for name, records in readers.items()}
    few = {name: records[: arguments.checked] for name, records in held.items()}
    tables: dict[str, list[dict[str, Any]]] = {}
    tables["Labels of all readers"] = check(fit(list(readers), arguments.seeds, held_out=True), few)
    for name in readers if len(readers) > 1 else ():
        alone = fit([name], arguments.seeds, held_out=True)
        own = {reader: [alone.predict(m) for m in _held(readers[reader], whole[reader])] for reader in readers}
        tables[f"Labels of {name} alone"] = [
            {"labels": reader, "by the selector": round(regret(own[reader], held[reader]), 4)} for reader in readers
        ]
    print(tables, flush=True)
    began = time.perf_counter()
    trees = fit(list(readers), arguments.seeds, held_out=False)
    facts = {
        "labels": "gain, alpha 0",
        "readers": f"{len(readers)}: SmolLM2-135M-Instruct and Gemma 3 270M",
        "questions": sum(map(len, readers.values())),
        "and copies without the retrievers' scores": sum(map(len, lost.values())),
        "features": len(FEATURES),
        "seeds": arguments.seeds,
        "learned from": ABOUT,
        "recipe": "benchmarks/prior.py",
    }
    with open_output_folder(arguments.out) as folder:
        write_trees(trees, folder, facts)
    settings = {**asked(arguments), "seconds of the last training": round(time.perf_counter() - began)}
    write_results(
        "prior", "The selector that ships, trained on 4 of 5 questions", settings, tables, arguments.results
    )


def _held(records: Sequence[GainRecord], own: Sequence[FloatArray]) -> list[FloatArray]:
    return [m for r, m in zip(records, own, strict=True) if is_held_out(r.id, HELD_OUT)]


if __name__ == "__main__":
    main()
