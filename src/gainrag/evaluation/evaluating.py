"""Answers -> Evaluation: scores of every system with intervals, and paired comparisons between the systems.

Every interval and test is over questions, which are the only thing sampled. All systems are resampled with the same
questions, so that what makes a question hard cancels in a difference.

A system that was trained several times, with other seeds, has several runs. Its score of a question is the mean over
them, and how far the runs differ is the standard deviation of their means, which stands beside the interval.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from gainrag import metrics
from gainrag.answering import fixed_choices, margin
from gainrag.errors import ConfigError, DataError, unknown
from gainrag.evaluation.results import Breakdown, Comparison, Difference, Estimate, Evaluation, SystemScores
from gainrag.evaluation.scoring import ACCURACY, COMPARED, MEASURES, answers_by_id, measures
from gainrag.records import Answer
from gainrag.settings import Batch, Confidence, Name, Seed, checked
from gainrag.statistics import FloatArray, compare_systems, interval, resampled_weights, spread, tidy

_Found = TypeVar("_Found", Estimate, Difference)


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
    by_id = {name: answers_by_id(name, records) for name, records in answers.items()}
    further = _further(repeats or {}, by_id)
    ids = _common_ids({**by_id, **{f"{name}, run {n}": run for (name, n), run in further.items()}})
    runs = {
        name: [[run[key] for key in ids] for run in (records, *(r for (of, _), r in further.items() if of == name))]
        for name, records in by_id.items()
    }
    scores = {
        name: np.array([[measures(record) for record in run] for run in own], dtype=np.float64)
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


def _further(
    repeats: Mapping[str, Sequence[Sequence[Answer]]], known: Mapping[str, Any]
) -> dict[tuple[str, int], dict[str, Answer]]:
    """The further runs by system and number, counted from 2, each by question id."""
    for name in repeats:
        if name not in known:
            raise ConfigError(unknown("system", name, known), hint="give the answers of its first run, too")
    return {
        (name, n): answers_by_id(f"{name}, run {n}", records)
        for name, runs in repeats.items()
        for n, records in enumerate(runs, 2)
    }


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
    means, differences = compare_systems(np.nan_to_num(table), sizes, resamples, confidence, seed, len(COMPARED))
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
            for m, measure in enumerate(MEASURES)
            if known[s, m]
        }
        # No passages at all is not a share of zero: the question does not arise.
        reads = any(record.ctxs for record in own[0])
        asked = [[run[row] for row in rows] for run in own]
        systems[name] = SystemScores(
            metrics=_named({metric: found[metric] for metric in COMPARED if metric in found}, closed),
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
                    for m, metric in enumerate(COMPARED)
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
