"""What an evaluation found, as records that are written and read back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Annotated, Any

import msgspec

from gainrag.errors import ConfigError, DataError, unknown
from gainrag.evaluation.scoring import ACCURACY, COMPARED, METRICS
from gainrag.settings import Batch, Confidence, Seed

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
                if {pair.system, pair.other} == {system, other} or metric not in (ACCURACY, *COMPARED):
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
