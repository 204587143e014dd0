"""Answers -> Evaluation: scores of every system with intervals, and paired comparisons between the systems.

Every interval and test is over questions, which are the only thing sampled. All systems are resampled with the same
questions, so that what makes a question hard cancels in a difference.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from gainrag import metrics
from gainrag.errors import ConfigError, DataError, unknown
from gainrag.records import Answer
from gainrag.settings import Batch, Confidence, Name, Seed, checked

FloatArray = npt.NDArray[np.float64]

_OF_TEXT: dict[str, Callable[[str, Sequence[str]], float]] = {
    "contains": metrics.contains,
    "exact_match": metrics.exact_match,
    "f1": metrics.f1,
    "paper_em": metrics.paper_em,
}

# What systems are compared by; `mean` is (contains + f1) / 2.
METRICS = (*_OF_TEXT, "mean")

# What is measured of the passages an answer was given from, beside the answer's own scores.
_OF_PASSAGES = ("generated", "recall")

# How many random numbers are held at a time: 16 MB of them, however many questions and resamples there are.
_BLOCK = 2_000_000


@checked
def evaluate(
    answers: Mapping[str, Sequence[Answer]],
    *,
    resamples: Batch = 10_000,
    confidence: Confidence = 0.95,
    seed: Seed = 0,
    group_by: Name | None = None,
) -> Evaluation:
    """Score every system's answers and compare each pair of systems on the same questions.

    Intervals are percentile bootstrap intervals. The p-value of a difference is that of a two-sided paired
    permutation test: under the hypothesis that the two systems are alike, the sign of each question's difference is
    as good as random; p = (sign flips at least as extreme + 1) / (resamples + 1). p-values are not corrected for
    the number of pairs.

    >>> def said(*texts):
    ...     return [Answer(id=str(n), question="?", answers=["Paris"], prediction=t) for n, t in enumerate(texts)]
    >>> found = evaluate({"a": said("Paris", "Paris"), "b": said("Paris", "Rome")}, resamples=100)
    >>> found.overall.systems["b"].metrics["contains"].value, found.overall.difference("a", "b", "contains").value
    (0.5, 0.5)

    Args:
        answers: by system's name, its answers. Every system must have answered the same questions, in any order.
        resamples: how many bootstrap resamples and how many sign flips are drawn.
        confidence: the level of the intervals, between 0 and 1.
        seed: where the random numbers start; the same seed gives the same intervals whatever the questions' order.
        group_by: a key of the records, such as "dataset", to score each group apart as well, and their macro average
            (groups weigh the same, resampled within groups); no groups when left out.

    Raises:
        ConfigError: `resamples` or `confidence` is out of range.
        DataError: no systems or no answers; a question id is missing or twice; a question has no or empty gold
            answers, or other ones from system to system; a record lacks the key that `group_by` names.
    """
    by_id = {name: _by_id(name, records) for name, records in answers.items()}
    ids = _common_ids(by_id)
    scores = np.array(
        [[list(_score(records[key]).values()) for key in ids] for records in by_id.values()], dtype=np.float64
    )
    reads = [any(record.ctxs for record in records.values()) for records in by_id.values()]

    def breakdown(strata: Sequence[npt.NDArray[np.intp]]) -> Breakdown:
        return _breakdown(scores, list(by_id), reads, strata, resamples, confidence, seed)

    groups = {} if group_by is None else _groups(by_id, ids, group_by)
    return Evaluation(
        resamples=resamples,
        confidence=confidence,
        seed=seed,
        group_by=group_by,
        overall=breakdown([np.arange(len(ids))]),
        groups={name: breakdown([rows]) for name, rows in groups.items()},
        macro=breakdown(list(groups.values())) if len(groups) > 1 else None,
    )


def score_questions(answers: Mapping[str, Sequence[Answer]]) -> list[dict[str, Any]]:
    """Every score of every answer, one plain dictionary each, ready to be written as JSON lines.

    Keys: system, id, prediction, each of METRICS (0 to 1), `generated` (1.0 when its first passage is the
    pseudo-passage) and `recall` (1.0 when one of its passages holds an answer). Systems and answers stay in order.

    Raises:
        DataError: a system has no answers, or an id twice; a question has no or empty gold answers.
    """
    return [
        {"system": name, "id": record.id, "prediction": record.prediction, **_score(record)}
        for name, records in answers.items()
        for record in _by_id(name, records).values()
    ]


def _score(record: Answer) -> dict[str, float]:
    """All scores of one answer, METRICS first, then _OF_PASSAGES."""
    scores = {name: metric(record.prediction, record.answers) for name, metric in _OF_TEXT.items()}
    scores["mean"] = (scores["contains"] + scores["f1"]) / 2
    scores["generated"] = float(bool(record.ctxs) and record.ctxs[0].origin == "generated")
    # Not ctx.hasanswer: what came with foreign results may have been marked by another rule.
    scores["recall"] = float(any(metrics.holds_answer(ctx, record.answers) for ctx in record.ctxs))
    return scores


def _by_id(system: str, records: Sequence[Answer]) -> dict[str, Answer]:
    """The answers of a system by question id, checked one by one."""
    if not records:
        raise DataError("the system has no answers", where=f"system {system!r}", hint="answer the questions first")
    found: dict[str, Answer] = {}
    for record in records:
        where = f"system {system!r}, question {record.id!r}"
        if record.id in found:
            raise DataError("the question is answered twice", where=where, hint="give each question its own id")
        if not record.answers:
            raise DataError("the question has no gold answers", where=where, hint="evaluation needs field answers")
        if not all(gold.strip() for gold in record.answers):
            raise DataError("a gold answer is empty", where=where, hint="remove it from field answers")
        found[record.id] = record
    return found


def _common_ids(by_id: Mapping[str, Mapping[str, Answer]]) -> list[str]:
    """The question ids all systems share, sorted, so that results do not depend on the order of the questions."""
    if not by_id:
        raise DataError("there are no systems to evaluate", hint="give at least one file of answers")
    first, reference = next(iter(by_id.items()))
    for system, records in by_id.items():
        for lacking, having, other in (
            (system, first, reference.keys() - records.keys()),
            (first, system, records.keys() - reference.keys()),
        ):
            if other:
                more = f" (and {len(other) - 1} more)" if len(other) > 1 else ""
                raise DataError(
                    f"question {min(other)!r}{more} is missing, which system {having!r} has",
                    where=f"system {lacking!r}",
                    hint="evaluate all systems on the same questions",
                )
        for key, record in records.items():
            if set(record.answers) != set(reference[key].answers):
                raise DataError(
                    f"the gold answers are not those of system {first!r}",
                    where=f"system {system!r}, question {key!r}",
                    hint="ids must name the same question in every file",
                )
    return sorted(reference)


def _groups(by_id: Mapping[str, Mapping[str, Answer]], ids: Sequence[str], key: str) -> dict[str, npt.NDArray[np.intp]]:
    """The rows of each group, by its name, sorted."""
    names: dict[str, str] = {}
    for system, records in by_id.items():
        for question in ids:
            extra = records[question].extra
            where = f"system {system!r}, question {question!r}"
            if not isinstance(extra.get(key), (str, int)):
                what = "is no name" if key in extra else unknown("key", key, extra) if extra else "is not there"
                raise DataError(f"to group by {key!r}: {what}", where=where, hint="give every record that key")
            if names.setdefault(question, str(extra[key])) != str(extra[key]):
                raise DataError(
                    f"{key} is {extra[key]!r} here and {names[question]!r} in another system",
                    where=where,
                    hint="ids must name the same question in every file",
                )
    return {
        name: np.array([row for row, question in enumerate(ids) if names[question] == name], dtype=np.intp)
        for name in sorted(Counter(names.values()))
    }


def _breakdown(
    scores: FloatArray,
    names: Sequence[str],
    reads: Sequence[bool],
    strata: Sequence[npt.NDArray[np.intp]],
    resamples: int,
    confidence: float,
    seed: int,
) -> Breakdown:
    """Scores [system, question, measure] summed up as the mean over strata of the mean within each."""
    rows = np.concatenate(strata)
    sizes = [len(stratum) for stratum in strata]
    # What a question counts in the mean over strata; 1/n where there is one stratum.
    weights = np.concatenate([np.full(size, 1.0 / (size * len(sizes))) for size in sizes])
    n_systems, _, n_measures = scores.shape
    table = scores[:, rows].transpose(1, 0, 2)  # [question, system, measure]
    flat = table.reshape(len(rows), -1)

    means = (weights @ flat).reshape(n_systems, n_measures)
    drawn = np.concatenate(
        [weight @ flat for weight in _resampled_weights(sizes, resamples, np.random.default_rng([seed, 0]))]
    ).reshape(resamples, n_systems, n_measures)
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]

    lows, highs = np.quantile(drawn, tails, axis=0)
    measures = (*METRICS, *_OF_PASSAGES)
    systems = {}
    for s, name in enumerate(names):
        found = {
            measure: Estimate(_tidy(means[s, m]), _tidy(lows[s, m]), _tidy(highs[s, m]))
            for m, measure in enumerate(measures)
        }
        systems[name] = SystemScores(
            metrics={metric: found[metric] for metric in METRICS},
            # No passages at all is not a share of zero: the question does not arise.
            generated=found["generated"] if reads[s] else None,
            recall=found["recall"] if reads[s] else None,
        )

    pairs = list(combinations(range(n_systems), 2))
    return Breakdown(
        n=len(rows),
        systems=systems,
        pairs=_compare(table, means, drawn, weights, names, pairs, tails, resamples, seed) if pairs else [],
    )


def _compare(
    table: FloatArray,
    means: FloatArray,
    drawn: FloatArray,
    weights: FloatArray,
    names: Sequence[str],
    pairs: Sequence[tuple[int, int]],
    tails: Sequence[float],
    resamples: int,
    seed: int,
) -> list[Comparison]:
    """Difference, interval and p-value of each pair in each of METRICS."""
    firsts, seconds = [first for first, _ in pairs], [second for _, second in pairs]
    n_metrics = len(METRICS)
    observed = (means[firsts] - means[seconds])[:, :n_metrics]
    weighted = (table[:, firsts, :n_metrics] - table[:, seconds, :n_metrics]) * weights[:, None, None]
    weighted = weighted.reshape(len(table), -1)
    # A flip as extreme as what was observed counts; the margin is for sums of the same numbers in another order.
    bar = np.abs(observed).ravel() - 1e-12
    hits = np.zeros(bar.shape, dtype=np.int64)
    for signs in _random_signs(len(table), resamples, np.random.default_rng([seed, 1])):
        hits += (np.abs(signs @ weighted) >= bar).sum(axis=0)
    p_values = ((hits + 1) / (resamples + 1)).reshape(observed.shape)

    found = []
    for i, (first, second) in enumerate(pairs):
        # One pair at a time: all of them at once would be large, and the quantile sorts a copy.
        lows, highs = np.quantile(drawn[:, first, :n_metrics] - drawn[:, second, :n_metrics], tails, axis=0)
        found.append(
            Comparison(
                system=names[first],
                other=names[second],
                metrics={
                    metric: Difference(_tidy(observed[i, m]), _tidy(lows[m]), _tidy(highs[m]), _tidy(p_values[i, m]))
                    for m, metric in enumerate(METRICS)
                },
            )
        )
    return found


def _resampled_weights(sizes: Sequence[int], resamples: int, rng: np.random.Generator) -> Iterator[FloatArray]:
    """Blocks [resample, question] of how much each question counts when each stratum is drawn anew with replacement."""
    for block in _blocks(sum(sizes), resamples):
        parts: list[FloatArray] = []
        for size in sizes:
            picks = rng.integers(size, size=(block, size)) + np.arange(block)[:, None] * size
            counts = np.bincount(picks.ravel(), minlength=block * size).reshape(block, size)
            parts.append(counts / float(size * len(sizes)))
        yield np.concatenate(parts, axis=1)


def _random_signs(n: int, resamples: int, rng: np.random.Generator) -> Iterator[FloatArray]:
    """Blocks [resample, question] of +1 and -1."""
    for block in _blocks(n, resamples):
        yield 2.0 * rng.integers(2, size=(block, n), dtype=np.int8).astype(np.float64) - 1.0


def _blocks(n: int, resamples: int) -> Iterator[int]:
    size = max(1, _BLOCK // n)
    for start in range(0, resamples, size):
        yield min(size, resamples - start)


def _tidy(value: float) -> float:
    """Without the last digits, which are noise of the order of summation and differ from machine to machine."""
    return round(float(value), 12) + 0.0  # -0.0 + 0.0 is 0.0


class Estimate(msgspec.Struct, frozen=True):
    """A mean over questions (0 to 1) with its bootstrap interval."""

    value: float
    low: float
    high: float


class Difference(msgspec.Struct, frozen=True):
    """A difference of two systems' means (-1 to 1), its bootstrap interval, and the permutation test's p-value."""

    value: float
    low: float
    high: float
    p: float


class SystemScores(msgspec.Struct, frozen=True):
    """One system: each of METRICS, and what its passages were.

    `generated` is the share of answers whose first passage is the pseudo-passage, `recall` the share with an answer
    in the passages used; None where the system used no passages.
    """

    metrics: dict[str, Estimate]
    generated: Estimate | None
    recall: Estimate | None


class Comparison(msgspec.Struct, frozen=True):
    """`system` minus `other`, in each of METRICS."""

    system: str
    other: str
    metrics: dict[str, Difference]


class Breakdown(msgspec.Struct, frozen=True):
    """All systems and pairs on `n` questions."""

    n: int
    systems: dict[str, SystemScores]
    pairs: list[Comparison]

    def difference(self, system: str, other: str, metric: str = "mean") -> Difference:
        """`system` minus `other`, whichever way round the pair is kept.

        Raises:
            ConfigError: no such metric, no such system, or twice the same.
        """
        for name in (system, other):
            if name not in self.systems:
                raise ConfigError(unknown("system", name, self.systems), hint="name a system that was evaluated")
        if metric not in METRICS:
            raise ConfigError(unknown("metric", metric, METRICS), hint="name one of the metrics")
        for pair in self.pairs:
            found = pair.metrics[metric]
            if (pair.system, pair.other) == (system, other):
                return found
            if (pair.system, pair.other) == (other, system):
                return Difference(0.0 - found.value, 0.0 - found.high, 0.0 - found.low, found.p)
        raise ConfigError(f"system {system!r} cannot be compared with itself", hint="name two systems")


class Evaluation(msgspec.Struct, frozen=True):
    """What `evaluate` found: over all questions, for each group, and as the mean over groups (`macro`).

    Without `group_by` there are no groups; `macro` is None unless there are two or more.
    """

    resamples: int
    confidence: float
    seed: int
    group_by: str | None
    overall: Breakdown
    groups: dict[str, Breakdown] = {}
    macro: Breakdown | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain JSON data; `from_json` reads it back."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Evaluation:
        """The evaluation that `to_json` wrote.

        Raises:
            DataError: it is something else.
        """
        try:
            return msgspec.convert(value, cls)
        except msgspec.ValidationError as error:
            raise DataError(f"no evaluation: {error}", hint="run `gainrag evaluate` again") from None
