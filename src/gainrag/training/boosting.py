"""Labels -> boosted trees over cheap features, in seconds.

The trees' scores are learned list-wise: softmax(score) over a question's candidates is what the selector believes.

| objective | minimises, for each question |
|---|---|
| `expected` | sum over p of softmax(score)(p) * (best label - label(p)): the regret of one who draws by the scores |
| `softmax` | cross-entropy of softmax(label / temperature) and softmax(score), as the cross-encoder's training |
| `lambdarank` | LightGBM's LambdaMART on labels in whole steps |
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gainrag.prompts import question_with_choices
from gainrag.protocols import FloatArray
from gainrag.selectors.features import CATEGORIES, FEATURES, matrix
from gainrag.selectors.trees import Trees, joined
from gainrag.selectors.words import Words, learn_words
from gainrag.training.labels import Example

Objective = Literal["expected", "softmax", "lambdarank"]
Gradient = Callable[[npt.NDArray[Any], Any], tuple[FloatArray, FloatArray]]


def features_of(examples: Sequence[Example], words: Words, names: Sequence[str] = tuple(FEATURES)) -> list[FloatArray]:
    """The features of each question's passages, [passage, feature]."""
    asked = [question_with_choices(e.record.question, e.record.choices) for e in examples]
    return [matrix(q, e.record.ctxs, words, names) for q, e in zip(asked, examples, strict=True)]


def words_in(examples: Sequence[Example]) -> Words:
    """What questions and passages of the examples teach about words."""
    return learn_words((e.record.question for e in examples), (p for e in examples for p in e.record.ctxs))


def fit_trees(
    examples: Sequence[Example],
    *,
    extra: Sequence[FloatArray] | None = None,
    extra_names: Sequence[str] = (),
    seeds: int = 5,
    rounds: int = 100,
    objective: Objective = "softmax",
    temperature: float = 0.25,
    learning_rate: float = 0.15,
    leaves: int = 31,
    least: int = 40,
    words: Words | None = None,
    matrices: Sequence[FloatArray] | None = None,
    names: Sequence[str] = tuple(FEATURES),
    start: Trees | None = None,
    alone: bool = False,
    seed: int = 0,
    threads: int = 1,
) -> Trees:
    """Trees whose score is the mean over several seeds.

    Args:
        examples: questions with a label for each passage.
        extra: of each question more columns, [passage, column], behind the features; `extra_names` names them.
        seeds: how many models are averaged; each draws other rows and columns.
        rounds: trees of each.
        temperature: of the teacher for `softmax`, nats; of the scores for `expected`.
        leaves, least: the most leaves of a tree, the fewest passages in one; from nothing, fewer than a tenth of all.
        words: what is known about words; learned from the examples when left out.
        matrices: the features, where they were computed before: of `names`, without `extra`.
        start: trees that the boosting goes on from; their columns come first.
        alone: leave the trees of `start` out of those that are returned.
        seed: the first of the seeds.
        threads: of LightGBM; its threads wait busily for one another, which is slow where others work, too.
    """
    import lightgbm

    if start is not None:
        words, names = start.words, start.names
    words = words or words_in(examples)
    parts = list(matrices) if matrices is not None else features_of(examples, words, names)
    if extra is not None:
        parts = [np.hstack([own, more]) for own, more in zip(parts, extra, strict=True)]
    columns = (*names, *extra_names)
    rows = np.concatenate(parts)
    if start is None:  # a tree that splits nothing orders nothing
        least = min(least, max(1, len(rows) // 10))
    sizes = np.array([len(part) for part in parts])
    labels = np.concatenate([np.asarray(e.own, dtype=np.float64) for e in examples])
    before = None if start is None else start.predict(rows[:, : len(start.names)])
    texts = []
    for n in range(seeds):
        parameters: dict[str, Any] = {
            "learning_rate": learning_rate,
            "num_leaves": leaves,
            "min_data_in_leaf": least,
            "min_sum_hessian_in_leaf": 1e-3,
            "feature_fraction": 0.5,
            "bagging_fraction": 0.7 if len(parts) > 1 else 1.0,  # of a single question none would be drawn
            "bagging_freq": 1,
            "bagging_by_query": True,
            "lambda_l2": 1.0,
            "cat_smooth": 20,
            "max_bin": 63,
            "seed": 1000 * seed + n,
            "deterministic": True,
            "force_row_wise": True,
            "num_threads": threads,
            "verbosity": -1,
            "objective": "lambdarank"
            if objective == "lambdarank"
            else gradient_of(objective, labels, sizes, temperature),
        }
        target = labels
        if objective == "lambdarank":
            target = np.concatenate([_steps(np.asarray(e.own), temperature) for e in examples])
            parameters["label_gain"] = list(range(STEPS + 1))
            parameters["lambdarank_truncation_level"] = 10
        data = lightgbm.Dataset(
            rows,
            target,
            group=sizes,
            init_score=before,
            feature_name=[f"f{i}" for i in range(len(columns))],
            categorical_feature=[i for i, name in enumerate(columns) if name in CATEGORIES],
            # Of a few passages LightGBM would drop every column before it begins, and stop.
            params={"verbosity": -1, "max_bin": 63, "feature_pre_filter": len(rows) >= FEW_ROWS},
        )
        texts.append(lightgbm.train(parameters, data, rounds).model_to_string())
    whole = [(text, 1 / seeds) for text in texts]
    if start is not None and not alone:
        whole.insert(0, (start.text, 1.0))
    return Trees(columns, words, joined(whole))


# With fewer rows columns are not looked through beforehand for whether they can be split at all.
FEW_ROWS = 1000

# Steps that lambdarank's labels have.
STEPS = 20


def _steps(own: FloatArray, temperature: float) -> npt.NDArray[np.int64]:
    """Labels in whole steps: exp(-(best - label) / temperature), from 0 to STEPS."""
    return np.asarray(np.round(STEPS * np.exp((own - own.max()) / temperature)), dtype=np.int64)


def gradient_of(objective: str, labels: FloatArray, sizes: npt.NDArray[np.int64], temperature: float) -> Gradient:
    """The gradient of an objective by the scores, for rows of questions one behind the other."""
    starts = np.cumsum(sizes) - sizes

    def softmax(values: FloatArray) -> FloatArray:
        shifted = np.exp(values - np.repeat(np.maximum.reduceat(values, starts), sizes))
        return np.asarray(shifted / np.repeat(np.add.reduceat(shifted, starts), sizes))

    if objective == "softmax":
        teacher = softmax(labels / temperature)

        def cross_entropy(scores: npt.NDArray[Any], data: Any) -> tuple[FloatArray, FloatArray]:
            p = softmax(scores)
            return p - teacher, np.maximum(p * (1 - p), 1e-3)

        return cross_entropy

    loss = np.repeat(np.maximum.reduceat(labels, starts), sizes) - labels

    def expected(scores: npt.NDArray[Any], data: Any) -> tuple[FloatArray, FloatArray]:
        p = softmax(scores)
        mean = np.repeat(np.add.reduceat(p * loss, starts), sizes)
        return p * (loss - mean), np.maximum(p * (1 - p), 1e-2) * temperature

    return expected
