"""The same boosted trees on different labels: what each loses on test questions, over several seeds.

    python benchmarks/labels.py RUN/gains/train.jsonl RUN/gains/test.jsonl [--labels gain@0 relevance likelihood@0]

The files are gain records. Learner, features and seeds are alike for all labels; nothing is chosen on test questions.
With --scores the scores of every system are written as JSON lines: id, scores.

| labels | what is learned, list-wise |
|---|---|
| gain@ALPHA | the gain |
| likelihood@ALPHA | the log-likelihood of the answer, as REPLUG; information gain is this less a constant |
| relevance | whether a passage holds an answer |
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import RESULTS, asked, weights_of, write_results

from gainrag.files.streams import read
from gainrag.protocols import FloatArray
from gainrag.records import GainRecord
from gainrag.statistics import permutation_p
from gainrag.synthesis import losses_at
from gainrag.training.boosting import features_of, fit_trees, words_in
from gainrag.training.features import SEEDS
from gainrag.training.labels import Example, targets

LABELS = ("gain@0", "relevance", "gain@0.5", "likelihood@0")


def labelled(records: Sequence[GainRecord], labels: str) -> list[Example]:
    """The questions with their labels; without labels, an empty list each."""
    kind, _, alpha = labels.partition("@")
    if kind == "relevance":
        return [Example(r, targets(r, "relevance")) for r in records]
    if kind == "likelihood":
        return [Example(r, [-loss for loss in losses_at(r, float(alpha))]) for r in records]
    return [Example(r, targets(r, "gain", float(alpha))) for r in records]


def standard_error(values: FloatArray, weights: FloatArray) -> float:
    """Of the weighted mean, the questions of each data set drawn by themselves."""
    total = 0.0
    for weight in np.unique(weights):
        own = values[weights == weight]
        total += float(own.var() * weight**2 * len(own))
    return float(total**0.5)


def main() -> None:
    """Train, judge, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("--labels", nargs="+", default=LABELS, help="the first is what the others are compared with")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--scores", type=Path, help="a folder")
    parser.add_argument("--name", default="labels")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    train, test = (list(read(path, GainRecord)) for path in (arguments.train, arguments.test))
    words = words_in(labelled(train, "gain@0"))
    learn, judge = (features_of(labelled(records, "gain@0"), words) for records in (train, test))
    losses = [np.array(losses_at(r, 0.0)) for r in test]
    weights = weights_of(test)
    found: dict[str, list[FloatArray]] = {}
    for labels in arguments.labels:
        examples = labelled(train, labels)
        usable = [i for i, e in enumerate(examples) if len(set(e.own)) > 1]
        temperature = 1.0 if labels == "relevance" else 0.25
        for seed in range(arguments.seeds):
            trees = fit_trees(
                [examples[i] for i in usable],
                matrices=[learn[i] for i in usable],
                words=words,
                seeds=SEEDS,
                seed=seed,
                temperature=temperature,
            )
            scores = [trees.predict(own) for own in judge]
            lost = [own[int(np.argmax(s))] - own.min() for own, s in zip(losses, scores, strict=True)]
            found.setdefault(labels, []).append(np.array(lost))
            print(f"{labels}, seed {seed}: regret {float(np.array(lost) @ weights):.4f}", flush=True)
            if arguments.scores:
                arguments.scores.mkdir(parents=True, exist_ok=True)
                lines = [
                    json.dumps({"id": r.id, "scores": s.round(5).tolist()}) for r, s in zip(test, scores, strict=True)
                ]
                (arguments.scores / f"{labels}_{seed}.jsonl").write_text("\n".join(lines) + "\n")
    first = np.mean(found[arguments.labels[0]], axis=0)
    rows: list[dict[str, Any]] = []
    for labels, seeds in found.items():
        own = np.mean(seeds, axis=0)
        row: dict[str, Any] = {
            "labels": labels,
            "regret": round(float(own @ weights), 4),
            "standard error": round(standard_error(own, weights), 4),
            "sd over seeds": round(float(np.std([s @ weights for s in seeds], ddof=1)), 4) if len(seeds) > 1 else None,
        }
        apart = own - first
        if apart.any():
            row["more than the first"] = round(float(apart @ weights), 4)
            row["its standard error"] = round(standard_error(apart, weights), 4)
            p = permutation_p((apart * weights)[:, None], 10_000, np.random.default_rng(0))[0]
            row["p"] = round(float(p), 4)
        rows.append(row)
    title = f"Trees on different labels: regret at alpha 0 on {len(test)} test questions, data sets alike"
    write_results(arguments.name, title, asked(arguments), {"By labels": rows}, arguments.out)


if __name__ == "__main__":
    main()
