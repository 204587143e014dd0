"""Answers -> Evaluation: scores of every system with intervals, and paired comparisons between the systems.

Every interval and test is over questions, which are the only thing sampled. All systems are resampled with the same
questions, so that what makes a question hard cancels in a difference.

A system that was trained several times, with other seeds, has several runs. Its score of a question is the mean over
them, and how far the runs differ is the standard deviation of their means, which stands beside the interval.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Annotated, Any, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from gainrag import metrics
from gainrag.answering import fixed_choices, margin
from gainrag.errors import ConfigError, DataError, unknown
from gainrag.records import Answer, gold_ranks
from gainrag.settings import Batch, Confidence, Name, Seed, checked
from gainrag.statistics import FloatArray, compare_systems, interval, resampled_weights, spread, tidy

_OF_TEXT: dict[str, Callable[[str, Sequence[str]], float]] = {
    "contains": metrics.contains,
    "exact_match": metrics.exact_match,
    "f1": metrics.f1,
    "paper_em": metrics.paper_em,
}

# What systems are compared by; `mean` is (contains + f1) / 2.
METRICS = (*_OF_TEXT, "mean")

# A question with choices has a right answer and wrong ones, and nothing between: each of METRICS is its accuracy there,
# so that such questions can be averaged with others. Where all questions have choices, it is called by its name.
ACCURACY = "accuracy"

# Where it is known which passages are gold: the share of them in the first k, by the metric's name.
GOLD_RECALL = {"gold@1": 1, "gold@5": 5}

# What is measured of the passages an answer was given from, beside the answer's own scores.
_OF_PASSAGES = ("generated", "recall")


# The columns of the scores. Systems are compared by the first.
_COMPARED = (*METRICS, *GOLD_RECALL)
_MEASURES = (*_COMPARED, *_OF_PASSAGES)


@checked
def evaluate(
    answers: Mapping[str, Sequence[Answer]],
    repeats: Mapping[str, Sequence[Sequence[Answer]]] | None = None,
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

    Of a question with choices every metric is the accuracy of its answer. A breakdown of such questions alone has
    `accuracy` among its metrics too, and `auc` where all have the same two choices. Where every answer of a system says
    where the gold passages stood, there is gold@1 and gold@5, the share of them in the first passages.

    >>> def said(*texts):
    ...     return [Answer(id=str(n), question="?", answers=["Paris"], prediction=t) for n, t in enumerate(texts)]
    >>> found = evaluate({"a": said("Paris", "Paris"), "b": said("Paris", "Rome")}, resamples=100)
    >>> found.overall.systems["b"].metrics["contains"].value, found.overall.difference("a", "b", "contains").value
    (0.5, 0.5)

    Args:
        answers: by system's name, its answers. Every system must have answered the same questions, in any order.
        repeats: by system's name, the answers of its further runs, such as those of other seeds; to the same questions.
        resamples: how many bootstrap resamples and how many sign flips are drawn.
        confidence: the level of the intervals, between 0 and 1.
        seed: where the random numbers start; the same seed gives the same intervals whatever the questions' order.
        group_by: a key of the records, such as "dataset", to score each group apart as well, and their macro average
            (groups weigh the same, resampled within groups); no groups when left out.

    Raises:
        ConfigError: `resamples` or `confidence` is out of range.
        ConfigError: a system has further runs and no answers.
        DataError: no systems or no answers; a question id is missing or twice; a question has no or empty gold
            answers; its words, answers or choices differ from system to system (white space and their order do not
            count); a record lacks the key that `group_by` names.
    """
    by_id = {name: _by_id(name, records) for name, records in answers.items()}
    further = _further(repeats or {}, by_id)
    ids = _common_ids({**by_id, **{f"{name}, run {n}": run for (name, n), run in further.items()}})
    runs = {
        name: [[run[key] for key in ids] for run in (records, *(r for (of, _), r in further.items() if of == name))]
        for name, records in by_id.items()
    }
    scores = {
        name: np.array([[_measures(record) for record in run] for run in own], dtype=np.float64)
        for name, own in runs.items()
    }

    def breakdown(strata: Sequence[npt.NDArray[np.intp]]) -> Breakdown:
        return _breakdown(runs, scores, strata, resamples, confidence, seed)

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
    pseudo-passage), `recall` (1.0 when one of its passages holds an answer) and each of GOLD_RECALL where it is known.
    Systems and answers stay in order.

    Raises:
        DataError: a system has no answers, or an id twice; a question has no or empty gold answers.
    """
    return [
        {"system": name, "id": record.id, "prediction": record.prediction, **_score(record)}
        for name, records in answers.items()
        for record in _by_id(name, records).values()
    ]


def _further(
    repeats: Mapping[str, Sequence[Sequence[Answer]]], known: Mapping[str, Any]
) -> dict[tuple[str, int], dict[str, Answer]]:
    """The further runs by system and number, counted from 2, each by question id."""
    for name in repeats:
        if name not in known:
            raise ConfigError(unknown("system", name, known), hint="give the answers of its first run, too")
    return {
        (name, n): _by_id(f"{name}, run {n}", records)
        for name, runs in repeats.items()
        for n, records in enumerate(runs, 2)
    }


def _score(record: Answer) -> dict[str, float]:
    """All scores of one answer: METRICS, _OF_PASSAGES, and of GOLD_RECALL those that are known."""
    if record.choices:
        scores = dict.fromkeys(_OF_TEXT, metrics.accuracy(record.prediction, record.answers))
    else:
        scores = {name: metric(record.prediction, record.answers) for name, metric in _OF_TEXT.items()}
    scores["mean"] = (scores["contains"] + scores["f1"]) / 2
    scores["generated"] = float(bool(record.ctxs) and record.ctxs[0].origin == "generated")
    # Not ctx.hasanswer: what came with foreign results may have been marked by another rule.
    scores["recall"] = float(any(metrics.holds_answer(ctx, record.answers) for ctx in record.ctxs))
    if (ranks := gold_ranks(record.ctxs) if record.gold_ranks is None else record.gold_ranks) is not None:
        scores |= {name: metrics.gold_recall(ranks, k) for name, k in GOLD_RECALL.items()}
    return scores


def _measures(record: Answer) -> list[float]:
    """The scores of one answer in the order of _MEASURES; NaN where it is not known which passages are gold."""
    scores = _score(record)
    return [scores.get(name, np.nan) for name in _MEASURES]


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
            known = reference[key]
            differing = [
                *(["question is not that"] if record.question.split() != known.question.split() else []),
                *(["gold answers are not those"] if set(record.answers) != set(known.answers) else []),
                *(["choices are not those"] if set(record.choices or ()) != set(known.choices or ()) else []),
            ]
            if differing:
                raise DataError(
                    f"the {differing[0]} of system {first!r}",
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
    runs: Mapping[str, Sequence[Sequence[Answer]]],
    scores: Mapping[str, FloatArray],
    strata: Sequence[npt.NDArray[np.intp]],
    resamples: int,
    confidence: float,
    seed: int,
) -> Breakdown:
    """The answers [run, question] of systems and their scores [run, question, measure] summed up as the mean over
    strata of the mean within each."""
    names, rows = list(runs), np.concatenate(strata)
    table = np.stack([own.mean(axis=0)[rows] for own in scores.values()], axis=1)  # [question, system, measure]
    sizes = [len(stratum) for stratum in strata]
    # What is not known of every question of a system is left out below; NaN would be warned of until then.
    known: npt.NDArray[np.bool_] = np.isfinite(table).min(axis=0)  # [system, measure]
    means, differences = compare_systems(np.nan_to_num(table), sizes, resamples, confidence, seed, len(_COMPARED))
    closed = all(own[0][row].choices for own in runs.values() for row in rows)
    systems = {}
    for s, (name, own) in enumerate(runs.items()):
        by_run = np.mean([scores[name][:, stratum].mean(axis=1) for stratum in strata], axis=0)  # [run, measure]
        found = {
            measure: Estimate(
                value=tidy(means.value[s, m]),
                low=tidy(means.low[s, m]),
                high=tidy(means.high[s, m]),
                sd=tidy(spread(by_run[:, m])) if len(own) > 1 else None,
            )
            for m, measure in enumerate(_MEASURES)
            if known[s, m]
        }
        # No passages at all is not a share of zero: the question does not arise.
        reads = any(record.ctxs for record in own[0])
        asked = [[run[row] for row in rows] for run in own]
        systems[name] = SystemScores(
            metrics=_named({metric: found[metric] for metric in _COMPARED if metric in found}, closed),
            generated=found["generated"] if reads else None,
            recall=found["recall"] if reads else None,
            auc=_auc(asked, resamples, confidence, seed) if len(strata) == 1 and closed else None,
            runs=len(own),
        )
    pairs = [
        Comparison(
            system=names[first],
            other=names[second],
            metrics=_named(
                {
                    metric: Difference(*(tidy(array[i, m]) for array in differences))
                    for m, metric in enumerate(_COMPARED)
                    if known[first, m] and known[second, m]
                },
                closed,
            ),
        )
        for i, (first, second) in enumerate(combinations(range(len(names)), 2))
    ]
    return Breakdown(n=len(table), systems=systems, pairs=pairs)


def _named(found: dict[str, _Found], closed: bool) -> dict[str, _Found]:
    """The figures by metric, where all questions have choices the accuracy by its name, too."""
    return {ACCURACY: found["mean"], **found} if closed else found


def _auc(runs: Sequence[Sequence[Answer]], resamples: int, confidence: float, seed: int) -> Estimate | None:
    """The AUC of the margin for the first of two choices that all questions have, the mean over the runs that answered
    them, with its bootstrap interval; None where they have others, their losses are not known, or all have the same
    right answer."""
    two = fixed_choices(runs[0])
    if two is None or any(answer.choice_losses is None for run in runs for answer in run):
        return None
    margins = [[margin(two, a.choices or (), a.choice_losses or ()) or 0.0 for a in run] for run in runs]
    first = [answer.answers[0] == two[0] for answer in runs[0]]
    if all(first) or not any(first):
        return None
    drawn = np.concatenate(
        [
            np.mean([metrics.auc(own, first, weights) for own in margins], axis=0)
            for weights in resampled_weights([len(first)], resamples, np.random.default_rng([seed, 0]))
        ]
    )
    low, high = interval(drawn[~np.isnan(drawn)], confidence)
    values = [float(metrics.auc(own, first)) for own in margins]
    return Estimate(
        value=tidy(float(np.mean(values))),
        low=tidy(float(low)),
        high=tidy(float(high)),
        sd=tidy(spread(values)) if len(values) > 1 else None,
    )


# A share or score, and a difference of two.
_Unit = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
_Signed = Annotated[float, msgspec.Meta(ge=-1.0, le=1.0)]


class Estimate(msgspec.Struct, frozen=True, omit_defaults=True):
    """A mean over questions (0 to 1) with its bootstrap interval.

    sd: the standard deviation of the means of several runs; None of one run.
    """

    value: _Unit
    low: _Unit
    high: _Unit
    sd: _Unit | None = None


class Difference(msgspec.Struct, frozen=True):
    """A difference of two systems' means (-1 to 1), its bootstrap interval, and the permutation test's p-value."""

    value: _Signed
    low: _Signed
    high: _Signed
    p: _Unit


_Found = TypeVar("_Found", Estimate, Difference)


class SystemScores(msgspec.Struct, frozen=True, omit_defaults=True):
    """One system: each of METRICS, of questions with choices `accuracy`, of GOLD_RECALL what is known, and what its
    passages were.

    `generated` is the share of answers whose first passage is the pseudo-passage, `recall` the share with an answer
    in the passages used; None where the system used no passages. `auc`, of one group of questions with the same two
    choices: how often the margin loss(second) - loss(first) is higher where the first is right than where it is not.
    `runs` is how many runs all of it is the mean over.
    """

    metrics: dict[str, Estimate]
    generated: Estimate | None
    recall: Estimate | None
    auc: Estimate | None = None
    runs: Annotated[int, msgspec.Meta(ge=1)] = 1


class Comparison(msgspec.Struct, frozen=True):
    """`system` minus `other`, in each of METRICS and what else is known of both."""

    system: str
    other: str
    metrics: dict[str, Difference]


class Breakdown(msgspec.Struct, frozen=True):
    """All systems and pairs on `n` questions."""

    n: Annotated[int, msgspec.Meta(ge=1)]
    systems: dict[str, SystemScores]
    pairs: list[Comparison]

    @property
    def score(self) -> str:
        """What the metric `mean` is, in words: accuracy where all questions have choices."""
        closed = all(ACCURACY in scores.metrics for scores in self.systems.values())
        return ACCURACY if closed else "mean(contains, F1)"

    def difference(self, system: str, other: str, metric: str = "mean") -> Difference:
        """`system` minus `other`, whichever way round the pair is kept.

        Raises:
            ConfigError: no such metric, no such system, or twice the same.
        """
        for name in (system, other):
            if name not in self.systems:
                raise ConfigError(unknown("system", name, self.systems), hint="name a system that was evaluated")
        for pair in self.pairs:
            if metric not in pair.metrics:
                if {pair.system, pair.other} == {system, other} or metric not in (ACCURACY, *_COMPARED):
                    raise ConfigError(unknown("metric", metric, pair.metrics), hint="name one of the metrics")
                continue
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

    resamples: Batch
    confidence: Confidence
    seed: Seed
    group_by: str | None
    overall: Breakdown
    groups: dict[str, Breakdown] = {}
    macro: Breakdown | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain JSON data; `from_json` reads it back."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain

    @classmethod
    def from_json(cls, value: Mapping[str, Any], where: str | None = None) -> Evaluation:
        """The evaluation that `to_json` wrote.

        Args:
            value: its plain JSON data.
            where: what it was read from, to be named where it is something else.

        Raises:
            DataError: it is something else, or lacks a system, a metric or a pair.
        """
        hint = "run `gainrag evaluate` again"
        try:
            found = msgspec.convert(value, cls)
        except msgspec.ValidationError as error:
            raise DataError(f"no evaluation: {error}", where=where, hint=hint) from None
        parts = {"overall": found.overall, **found.groups} | ({"macro": found.macro} if found.macro else {})
        for name, part in parts.items():
            if lacking := _lacking(part, list(found.overall.systems)):
                raise DataError(f"no evaluation: {lacking} is missing in {name!r}", where=where, hint=hint)
        return found


def _lacking(part: Breakdown, systems: Sequence[str]) -> str | None:
    """The first of the systems, their metrics and their pairs that is not there, in words."""

    def pair(one: str, other: str) -> str:
        return "the comparison of {!r} and {!r}".format(*sorted((one, other)))

    there: dict[str, Mapping[str, Any]] = {f"system {name!r}": found.metrics for name, found in part.systems.items()}
    there |= {pair(found.system, found.other): found.metrics for found in part.pairs}
    wanted = [f"system {name!r}" for name in systems] + [pair(*both) for both in combinations(systems, 2)]
    for what in wanted or ["every system"]:
        if what not in there:
            return what
        if missing := [metric for metric in METRICS if metric not in there[what]]:
            return f"{missing[0]} of {what}"
    return None
