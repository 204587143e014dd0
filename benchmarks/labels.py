"""The same boosted trees on different labels: what each loses, over several seeds, for one reader or more.

    python benchmarks/labels.py --reader NAME RUN/gains/train.jsonl RUN/gains/test.jsonl [--reader NAME ..]
        [--labels gain@0 relevance likelihood@0] [--models 10]

The files are gain records. Learner, features and seeds are alike for all labels; nothing is chosen on test questions.
With - in the place of the test, questions of the training file are judged, each by trees that did not learn from it
(--folds parts, by the question's id). With several readers a last row takes them together: a question's differences are
averaged over the readers that have it, and permuted together. With --scores the scores of every system are written as
JSON lines: id, scores.

| labels | what is learned, list-wise |
|---|---|
| gain@ALPHA | the gain |
| likelihood@ALPHA | the log-likelihood of the answer, as REPLUG; information gain is this less a constant |
| relevance | whether a passage holds an answer |
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import RESULTS, asked, weights_of, write_results

from gainrag.files.streams import read
from gainrag.protocols import FloatArray
from gainrag.records import GainRecord
from gainrag.selectors.words import Words
from gainrag.statistics import permutation_p
from gainrag.synthesis import losses_at
from gainrag.training.boosting import features_of, fit_trees, words_in
from gainrag.training.features import SEEDS
from gainrag.training.labels import Example, targets

LABELS = ("gain@0", "relevance", "gain@0.5", "likelihood@0")
SAME = "-"


@dataclass(frozen=True)
class Found:
    """Of a reader: the questions that were judged, their weights in its mean, by labels regrets [seed, question]."""

    ids: list[str]
    weights: FloatArray
    regrets: dict[str, FloatArray]


def labelled(records: Sequence[GainRecord], labels: str) -> list[Example]:
    """The questions with their labels."""
    kind, _, alpha = labels.partition("@")
    if kind == "relevance":
        return [Example(r, targets(r, "relevance")) for r in records]
    if kind == "likelihood":
        return [Example(r, [-loss for loss in losses_at(r, float(alpha))]) for r in records]
    return [Example(r, targets(r, "gain", float(alpha))) for r in records]


def learned(
    examples: Sequence[Example], matrices: Sequence[FloatArray], words: Words, labels: str, models: int, seed: int
) -> Any:
    """Trees from the questions whose passages are not all labelled alike."""
    usable = [i for i, e in enumerate(examples) if len(set(e.own)) > 1]
    return fit_trees(
        [examples[i] for i in usable],
        matrices=[matrices[i] for i in usable],
        words=words,
        seeds=models,
        seed=seed,
        temperature=1.0 if labels == "relevance" else 0.25,
    )


def parts_of(train: Sequence[GainRecord], folds: int) -> list[tuple[list[int], list[int]]]:
    """Of each fold, the questions to learn from and those to judge."""
    own = np.array([int(hashlib.sha256(f"labels {r.id}".encode()).hexdigest(), 16) % folds for r in train])
    return [(np.flatnonzero(own != fold).tolist(), np.flatnonzero(own == fold).tolist()) for fold in range(folds)]


def judge(name: str, train_file: str, test_file: str, arguments: argparse.Namespace) -> Found:
    """Train on all labels with all seeds, and say what each loses."""
    train = list(read(Path(train_file), GainRecord))
    test = train if test_file == SAME else list(read(Path(test_file), GainRecord))
    words = words_in(labelled(train, "gain@0"))
    learn = features_of(labelled(train, "gain@0"), words)
    matrices = learn if test is train else features_of(labelled(test, "gain@0"), words)
    parts = [(list(range(len(train))), list(range(len(test))))]
    if test is train:
        parts = parts_of(train, arguments.folds)
    losses = [np.array(losses_at(r, 0.0)) for r in test]
    weights = weights_of(test)
    regrets: dict[str, list[list[float]]] = {}
    for labels in arguments.labels:
        examples = labelled(train, labels)
        for seed in range(arguments.seeds):
            scores: dict[int, FloatArray] = {}
            for mine, theirs in parts:
                own = [examples[i] for i in mine], [learn[i] for i in mine]
                trees = learned(*own, words, labels, arguments.models, seed)
                scores |= {i: trees.predict(matrices[i]) for i in theirs}
            lost = [float(losses[i][int(np.argmax(scores[i]))] - losses[i].min()) for i in range(len(test))]
            regrets.setdefault(labels, []).append(lost)
            print(f"{name}, {labels}, seed {seed}: regret {float(np.array(lost) @ weights):.4f}", flush=True)
            if arguments.scores:
                lines = [json.dumps({"id": r.id, "scores": scores[i].round(5).tolist()}) for i, r in enumerate(test)]
                arguments.scores.mkdir(parents=True, exist_ok=True)
                (arguments.scores / f"{name}_{labels}_{seed}.jsonl").write_text("\n".join(lines) + "\n")
    return Found([r.id for r in test], weights, {labels: np.array(lost) for labels, lost in regrets.items()})


def standard_error(values: FloatArray, weights: FloatArray) -> float:
    """Of the weighted mean, the questions of each data set drawn by themselves."""
    total = 0.0
    for weight in np.unique(weights):
        own = values[weights == weight]
        total += float(own.var() * weight**2 * len(own))
    return float(total**0.5)


def apart(weighted: FloatArray, error: float) -> dict[str, Any]:
    """The sum of weighted differences, its standard error and p."""
    p = permutation_p(weighted[:, None], 10_000, np.random.default_rng(0))[0]
    return {
        "more than the first": round(float(weighted.sum()), 4),
        "its standard error": round(error, 4),
        "p": round(float(p), 4),
    }


def together(found: Mapping[str, Found], first: str, labels: str) -> dict[str, Any]:
    """The difference between two labels over all readers, a question's differences side by side."""
    weighted: dict[str, float] = {}
    for one in found.values():
        differences = (one.regrets[labels] - one.regrets[first]).mean(axis=0) * one.weights / len(found)
        for question, value in zip(one.ids, differences, strict=True):
            weighted[question] = weighted.get(question, 0.0) + float(value)
    values = np.array(list(weighted.values()))
    return {"reader": "together", "labels": labels, **apart(values, float((len(values) * values.var()) ** 0.5))}


def main() -> None:
    """Train, judge, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reader", nargs=3, action="append", required=True, metavar=("NAME", "TRAIN", "TEST"))
    parser.add_argument("--labels", nargs="+", default=LABELS, help="the first is what the others are compared with")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--models", type=int, default=SEEDS, help="trees of so many draws in one")
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--scores", type=Path, help="a folder")
    parser.add_argument("--name", default="labels")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    found = {name: judge(name, train, test, arguments) for name, train, test in arguments.reader}
    first, rows = arguments.labels[0], list[dict[str, Any]]()
    for name, one in found.items():
        for labels, seeds in one.regrets.items():
            own = seeds.mean(axis=0)
            row: dict[str, Any] = {
                "reader": name,
                "questions": len(one.ids),
                "labels": labels,
                "regret": round(float(own @ one.weights), 4),
                "standard error": round(standard_error(own, one.weights), 4),
                "sd over seeds": round(float((seeds @ one.weights).std(ddof=1)), 4) if len(seeds) > 1 else None,
            }
            more = own - one.regrets[first].mean(axis=0)
            error = standard_error(more, one.weights)
            rows.append(row | (apart(more * one.weights, error) if more.any() else {}))
    if len(found) > 1:
        rows += [together(found, first, other) for other in arguments.labels[1:]]
    title = "Trees on different labels: regret at alpha 0, nats a token, data sets alike"
    settings = {**asked(arguments), "reader": ", ".join(found)}
    write_results(arguments.name, title, settings, {"By labels": rows}, arguments.out)


if __name__ == "__main__":
    main()
