"""What selectors are worth on a task whose candidates come with it: fever, entailmentbank, dstc11.

    python benchmarks/tasks.py TRAIN TEST --six SIX_GAINS [--labels benchmarks/results/labels_qwen.jsonl.gz]

TRAIN and TEST are gain records of the task (`gainrag synthesize`), whose passages carry `gold`; with LABELS they are
the task's own files, of which the questions that are labelled there are used. SIX_GAINS are gain records of the six
data sets, from which the zero-shot relevance selector learns. Everything is chosen on the training questions; with
choices an answer is the one of least loss, so nothing is generated here. All learned selectors are the
same boosted trees with the same features, folds and seeds, and differ in their labels alone:

| name | labels |
|---|---|
| gain | the gain, or with choices whichever of gain and normalised gain does better in cross-validation |
| gold | whether people marked the passage as evidence |
| zero-shot relevance | whether a passage holds an answer, on the six data sets |
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import with_error
from msgspec import structs

from gainrag.files.streams import read
from gainrag.gain import choice_gain, gain_from_loss
from gainrag.protocols import FloatArray
from gainrag.records import Gained, GainRecord, Passage, Retrieved, right_choice
from gainrag.retrievers.bm25 import BM25
from gainrag.selectors.trees import Trees
from gainrag.selectors.words import Words
from gainrag.statistics import difference_interval, permutation_p
from gainrag.synthesis import losses_at
from gainrag.training.boosting import features_of, fit_trees, words_in
from gainrag.training.labels import RELEVANT, Example, targets

FOLDS, BAG = 5, 5
TEMPERATURES = (0.25, 1.0)
Choice = list[int]  # of each question, which candidate


def labelled(path: Path, labels: Path) -> list[GainRecord]:
    """The questions of a task's file that are labelled in another one, as gain records.

    Args:
        labels: lines of id, without (the loss of each choice without a passage), losses [passage][choice], at alpha 0;
            of questions without choices one loss without a passage, and losses {alpha: [passage]}.
    """
    with gzip.open(labels, "rt") as stream:
        known = {row["id"]: row for row in map(json.loads, stream)}
    made = []
    for record in read(path, Retrieved):
        if record.id not in known:
            continue
        row = known[record.id]
        every: list[dict[str, list[float]] | None]
        if record.choices:
            right = right_choice(record, record.id)
            every = [{"0.0": losses} for losses in row["losses"]]
            own, without = [losses[right] for losses in row["losses"]], row["without"][right]
        else:
            every = [None] * len(record.ctxs)
            own, without = row["losses"]["0.0"], row["without"]
        gains = [float(gain_from_loss(loss)) for loss in own]
        ctxs = [
            Gained(**structs.asdict(c), loss={"0.0": loss}, choice_losses=x, gain=gain)
            for c, loss, x, gain in zip(record.ctxs, own, every, gains, strict=True)
        ]
        made.append(
            GainRecord(
                id=record.id,
                question=record.question,
                answers=record.answers,
                choices=record.choices,
                kept=True,
                prediction="",
                silver=int(np.argmax(gains)),
                loss_without=without,
                choice_losses_without=row["without"] if record.choices else None,
                ctxs=ctxs,
            )
        )
    return made


class Task:
    """The questions of a split, and what each candidate would bring."""

    def __init__(self, path: Path, labels: Path | None = None) -> None:
        self.records = list(read(path, GainRecord)) if labels is None else labelled(path, labels)
        self.losses = [np.array(losses_at(r, 0.0)) for r in self.records]
        self.has_choices = bool(self.records[0].choices)

    def regret(self, choice: Choice) -> FloatArray:
        """Of each question the loss of its choice above that of the best candidate, nats a token."""
        return np.array([losses[c] - losses.min() for losses, c in zip(self.losses, choice, strict=True)])

    def gold(self, choice: Choice) -> FloatArray:
        """Of each question whether its choice is gold."""
        return np.array([float(bool(r.ctxs[c].gold)) for r, c in zip(self.records, choice, strict=True)])

    def gained(self, choice: Choice) -> FloatArray:
        """The loss without a passage less that with the choice."""
        triples = zip(self.records, self.losses, choice, strict=True)
        return np.array([(r.loss_without or 0.0) - losses[c] for r, losses, c in triples])

    def choice_losses(self, choice: Choice | None) -> list[FloatArray]:
        """The losses of the question's own choices when the chosen passage is read; of none, without a passage."""
        found = []
        for n, record in enumerate(self.records):
            if choice is None:
                found.append(np.array(record.choice_losses_without))
            else:
                losses = record.ctxs[choice[n]].choice_losses
                assert losses is not None
                found.append(np.array(losses["0.0"]))
        return found

    def normalised(self, choice: Choice | None) -> FloatArray:
        """The loss of the right choice, normalised over the choices, nats."""
        pairs = zip(self.choice_losses(choice), self.records, strict=True)
        return np.array([-choice_gain(own, right_choice(r, r.id)) for own, r in pairs])

    def fixed(self) -> bool:
        """Whether all questions have the same two choices."""
        different = {tuple(sorted(record.choices or ())) for record in self.records}
        return len(different) == 1 and len(next(iter(different))) == 2

    def margins(self, choice: Choice | None) -> FloatArray:
        """loss(second) - loss(first), choices in alphabetical order."""
        found = []
        for own, record in zip(self.choice_losses(choice), self.records, strict=True):
            order = np.argsort(record.choices or [])
            found.append(own[order[1]] - own[order[0]])
        return np.array(found)

    def first_is_right(self) -> FloatArray:
        """Whether the alphabetically first choice is the right one."""
        return np.array([float(r.answers[0] == min(r.choices or ())) for r in self.records])

    def accuracy(self, choice: Choice | None, threshold: float) -> FloatArray:
        """Of each question whether it is answered right by the least loss; of two fixed choices with a threshold."""
        if self.fixed():
            return np.asarray((self.margins(choice) > threshold) == (self.first_is_right() > 0), dtype=np.float64)
        own = self.choice_losses(choice)
        pairs = zip(own, self.records, strict=True)
        return np.array([float(int(np.argmin(x)) == right_choice(r, r.id)) for x, r in pairs])


def examples_of(task: Task, labels: str) -> list[Example]:
    """The labels of each question: gain, gold, or choice@TEMPERATURE."""
    if labels == "gold":
        return [Example(r, [RELEVANT if c.gold else 0.0 for c in r.ctxs]) for r in task.records]
    if labels.startswith("choice@"):
        t = float(labels.removeprefix("choice@"))
        made = []
        for r in task.records:
            right, every = right_choice(r, r.id), [c.choice_losses or {} for c in r.ctxs]
            made.append(Example(r, [float(choice_gain(x["0.0"], right, t)) for x in every]))
        return made
    return [Example(r, targets(r, "gain", 0.0)) for r in task.records]


def first(scores: Sequence[FloatArray]) -> Choice:
    """The highest scored candidate of each question."""
    return [int(np.argmax(own)) for own in scores]


def learned(examples: Sequence[Example], matrices: Sequence[FloatArray], words: Words, seed: int) -> Trees:
    """Trees from a task's few questions."""
    few: dict[str, Any] = {"rounds": 150, "learning_rate": 0.1, "leaves": 15, "least": 20}
    return fit_trees(examples, matrices=matrices, words=words, seeds=BAG, seed=seed, **few)


def crossed(
    examples: Sequence[Example], matrices: Sequence[FloatArray], words: Words, seed: int
) -> list[FloatArray]:
    """Out-of-fold scores of the training questions."""
    found: list[FloatArray] = [np.zeros(0)] * len(examples)
    fold = np.random.default_rng(1000 + seed).permutation(len(examples)) % FOLDS
    for f in range(FOLDS):
        learn = np.flatnonzero(fold != f).tolist()
        trees = learned([examples[i] for i in learn], [matrices[i] for i in learn], words, seed)
        for i in np.flatnonzero(fold == f).tolist():
            found[i] = trees.predict(matrices[i])
    return found


def bm25_with_choices(task: Task, collection: Sequence[Passage]) -> Choice:
    """The best candidate of BM25 asked for the question and its choices."""
    bm25 = BM25.build(list(collection))
    found = []
    for record in task.records:
        query = " ".join([record.question, *(record.choices or ())])
        order = {p.id: rank for rank, p in enumerate(bm25.search([query], len(collection))[0])}
        found.append(min(range(len(record.ctxs)), key=lambda i: order.get(record.ctxs[i].id, len(order) + i)))
    return found


def compared(a: FloatArray, b: FloatArray) -> str:
    """mean(a - b) with its interval and the p-value of a paired permutation test."""
    low, high = difference_interval(list(a - b))
    p = permutation_p(((a - b) / len(a))[:, None], 10_000, np.random.default_rng(0))[0]
    return f"{(a - b).mean():+.3f} ({low:+.3f} to {high:+.3f}; p {p:.4f})"


def main() -> None:
    """Print the table, the differences, and the same as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("--six", type=Path, required=True)
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    train, test = (Task(path, arguments.labels) for path in (arguments.train, arguments.test))
    shared = words_in(examples_of(train, "gain"))
    matrices, asked = (features_of(examples_of(t, "gain"), shared) for t in (train, test))

    kinds = ["gain", *(f"choice@{t}" for t in TEMPERATURES if train.has_choices)]
    by_kind: dict[str, list[float]] = {}
    for kind in kinds:
        examples = examples_of(train, kind)
        scores = [crossed(examples, matrices, shared, s) for s in range(arguments.seeds)]
        judge = train.normalised if train.has_choices else train.regret
        by_kind[kind] = [float(judge(first(own)).mean()) for own in scores]
        print(f"training questions out of fold, {kind}: {np.round(by_kind[kind], 3)}")
    best = min(by_kind, key=lambda k: np.mean(by_kind[k]))
    print(f"chosen on {len(train.records)} training questions: {best}\n")

    six = [r for r in read(arguments.six, GainRecord) if len({bool(c.hasanswer) for c in r.ctxs}) == 2]
    relevance = [Example(r, targets(r, "relevance")) for r in six]
    others = words_in(relevance)
    six_matrices, six_asked = features_of(relevance, others), features_of(examples_of(test, "gain"), others)
    six_train = features_of(examples_of(train, "gain"), others)

    picks: dict[str, list[Choice]] = {}
    on_train: dict[str, list[Choice]] = {}
    collection = {c.id: c for r in (*train.records, *test.records) for c in r.ctxs}
    choosers: dict[str, Callable[[Task], Choice]] = {
        "BM25's first": lambda t: [0] * len(t.records),
        "BM25 of question and choices": lambda t: bm25_with_choices(t, list(collection.values())),
        "oracle": lambda t: [int(np.argmin(x)) for x in t.losses],
    }
    for name, choose in choosers.items():
        picks[name], on_train[name] = [choose(test)], [choose(train)]
    rng = np.random.default_rng(0)
    picks["at random"] = [[int(rng.integers(len(r.ctxs))) for r in test.records]]
    on_train["at random"] = [[int(rng.integers(len(r.ctxs))) for r in train.records]]
    picks["first gold"] = [[next((i for i, c in enumerate(r.ctxs) if c.gold), 0) for r in test.records]]
    on_train["first gold"] = [[next((i for i, c in enumerate(r.ctxs) if c.gold), 0) for r in train.records]]
    for name, labels in (("GainRAG", best), ("selector trained on gold", "gold")):
        examples = examples_of(train, labels)
        picks[name], on_train[name] = [], []
        for s in range(arguments.seeds):
            trees = learned(examples, matrices, shared, s)
            picks[name].append(first([trees.predict(x) for x in asked]))
            on_train[name].append(first(crossed(examples, matrices, shared, s)))
    name = "zero-shot relevance selector"
    picks[name], on_train[name] = [], []
    for s in range(arguments.seeds):
        trees = fit_trees(relevance, matrices=six_matrices, words=others, seeds=BAG, seed=s)
        picks[name].append(first([trees.predict(x) for x in six_asked]))
        on_train[name].append(first([trees.predict(x) for x in six_train]))

    measures: dict[str, dict[str, FloatArray]] = {}
    spread: dict[str, dict[str, float]] = {}
    for name, seeds in picks.items():
        own: dict[str, list[FloatArray]] = {"regret": [], "gold@1": [], "gain over nothing": []}
        for choice, before in zip(seeds, on_train[name], strict=True):
            own["regret"].append(test.regret(choice))
            own["gold@1"].append(test.gold(choice))
            own["gain over nothing"].append(test.gained(choice))
            if test.has_choices:
                threshold = float(np.median(train.margins(before))) if test.fixed() else 0.0
                own.setdefault("accuracy", []).append(test.accuracy(choice, threshold))
                own.setdefault("loss over choices", []).append(test.normalised(choice))
        measures[name] = {m: np.mean(v, axis=0) for m, v in own.items()}
        spread[name] = {m: float(np.std([x.mean() for x in v], ddof=1)) if len(v) > 1 else 0.0 for m, v in own.items()}
    columns = list(measures["GainRAG"])
    print(f"| chooses by ({len(test.records)} test questions) | " + " | ".join(columns) + " |")
    print("|---|" + "---|" * len(columns))
    if test.has_choices:
        threshold = float(np.median(train.margins(None))) if test.fixed() else 0.0
        row = {"accuracy": test.accuracy(None, threshold), "loss over choices": test.normalised(None)}
        print("| no passage | " + " | ".join(with_error(row[c]) if c in row else "" for c in columns) + " |")
    for name, values in measures.items():
        cells = [f"{with_error(values[c])}" + (f" ± {spread[name][c]:.3f}" if spread[name][c] else "") for c in columns]
        print(f"| {name} | " + " | ".join(cells) + " |")
    print("\nGainRAG minus (mean over seeds; 95% interval; paired permutation test):")
    differences: dict[str, Mapping[str, str]] = {}
    for name in measures:
        if name != "GainRAG":
            differences[name] = {c: compared(measures["GainRAG"][c], measures[name][c]) for c in columns}
            print(f"- {name}: " + "; ".join(f"{c} {d}" for c, d in differences[name].items()))
    if arguments.out:
        table = {n: {c: [float(v[c].mean()), spread[n][c]] for c in columns} for n, v in measures.items()}
        found = {"chosen": best, "training": by_kind, "table": table, "GainRAG minus": differences}
        arguments.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
