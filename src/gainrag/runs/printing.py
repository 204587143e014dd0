"""Evaluations and gain records as text to read: pure functions from records to strings, nothing is printed here.
What a whole run shows, figures and all, is in gainrag.report.

Scores are percentages with one decimal. An interval stands in brackets behind its score.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from gainrag.errors import ConfigError, unknown
from gainrag.evaluation import ACCURACY, GOLD_RECALL, Breakdown, Difference, Estimate, Evaluation
from gainrag.metrics import holds_answer
from gainrag.records import Gained, GainRecord
from gainrag.statistics import deviation, holm, questions_needed

# The columns of the main table: metric and heading. Those that count have intervals.
_WITH_INTERVAL = {"contains": "contains", "exact_match": "exact match", "f1": "F1", "mean": "mean(contains, F1)"}
NOT_AVAILABLE = "-"
# The heading of p-values that are corrected for the number of comparisons in their table.
HOLM = "p (Holm)"
_LEVELS = ((0.01, "**"), (0.05, "*"))


def text_table(evaluation: Evaluation, *, baseline: str | None = None) -> str:
    """The evaluation as aligned text: all questions, then each group, then differences from the baseline.

    Columns: the metrics in percent with intervals; `paper EM`; `answer in`, the share of questions with an answer in
    the passages used; `pseudo`, the share answered from the pseudo-passage. Where all questions have choices: accuracy,
    the AUC of the margin, and `pseudo`. Where it is known which passages are gold: the share of them in the first one
    and the first five. At the end: which differences are not shown, and how many questions that would take.

    Args:
        baseline: a system's name; the others are marked where they differ from it significantly, and by how much.

    Raises:
        ConfigError: no such system.
    """
    _check_baseline(evaluation, baseline)
    overall = evaluation.overall
    parts = [caption(evaluation), aligned(main_rows(overall, baseline))]
    if evaluation.groups:
        parts += [f"{overall.score} by {evaluation.group_by}", aligned(group_rows(evaluation, baseline))]
    if baseline is not None:
        scope = evaluation.macro or overall
        over = "groups" if evaluation.macro else "questions"
        parts += [
            f"difference from {baseline} in {overall.score}, averaged over {over}",
            aligned(difference_rows(scope, baseline)),
            legend(baseline),
        ]
    if (line := too_few(evaluation, baseline)) is not None:
        parts.append(line)
    return "\n\n".join(parts)


def candidates_view(record: GainRecord, width: int = 100) -> str:
    """One question with every candidate, highest gain first, each on one line of at most `width` characters.

    Marks: `*` the silver passage. Columns: gain; `yes` where the passage holds an answer; the rank it was retrieved
    at, which the pseudo-passage has not; origin; title and the beginning of its text.

    Raises:
        ConfigError: `width` leaves no room for the text.
    """
    rows = [["", "gain", "answer", "rank", "origin", "passage"]]
    order = sorted(range(len(record.ctxs)), key=lambda i: (-record.ctxs[i].gain, i != record.silver, i))
    for i in order:
        ctx = record.ctxs[i]
        holds = holds_answer(ctx, record.answers) if ctx.hasanswer is None else ctx.hasanswer
        mark = "*" if i == record.silver else ""
        rank = NOT_AVAILABLE if ctx.origin == "generated" else str(i + 1)
        rows.append([mark, f"{ctx.gain:.3f}", "yes" if holds else "no", rank, ctx.origin, _one_line(ctx)])
    lines = aligned(rows, right=(1, 3), rule=False).split("\n")
    # Where the passage's text starts: all before it is never cut.
    if width < lines[0].index("passage") + 10:
        raise ConfigError(
            f"a width of {width} leaves no room for text", where="candidates_view", hint="give a width of 60 or more"
        )
    verdict = "kept for training" if record.kept else "left out of training"
    head = [
        f"question    {' '.join(record.question.split())}",
        f"answers     {' | '.join(' '.join(gold.split()) for gold in record.answers)}",
        f"prediction  {' '.join(record.prediction.split())} (from the silver passage *, {verdict})",
    ]
    return "\n".join([*(_cut(line, width) for line in head), "", *(_cut(line, width) for line in lines)])


def main_rows(breakdown: Breakdown, baseline: str | None) -> list[list[str]]:
    """The table of all systems, its heading first; where there is a baseline, marked by how they differ from it."""
    closed = breakdown.score == ACCURACY
    marked = {ACCURACY: ACCURACY} if closed else _WITH_INTERVAL
    every = list(breakdown.systems.values())
    gold = [name for name in GOLD_RECALL if any(name in scores.metrics for scores in every)]
    auc = any(scores.auc for scores in every)
    rows = [["system", *marked.values()]]
    rows[0] += [*(["AUC"] if auc else []), *gold, *([] if closed else ["paper EM", "answer in"]), "pseudo"]
    for name, scores in breakdown.systems.items():
        row = [
            name,
            *(
                _with_interval(scores.metrics[metric]) + _mark(breakdown, name, baseline, metric)
                for metric in marked
            ),
        ]
        row += [_share(scores.auc)] if auc else []
        row += [
            _share(scores.metrics[metric]) + _mark(breakdown, name, baseline, metric)
            if metric in scores.metrics
            else NOT_AVAILABLE
            for metric in gold
        ]
        row += [] if closed else [_share(scores.metrics["paper_em"]), _share(scores.recall)]
        rows.append([*row, _share(scores.generated)])
    return rows


def group_rows(evaluation: Evaluation, baseline: str | None) -> list[list[str]]:
    """The table of the score by group, its heading first; the last column is the average of groups."""
    columns = {f"{name} (n={group.n})": group for name, group in evaluation.groups.items()}
    if evaluation.macro is not None:
        columns["average of groups"] = evaluation.macro
    rows = [["system", *columns]]
    for system in evaluation.overall.systems:
        cells = [
            _with_interval(group.systems[system].metrics["mean"]) + _mark(group, system, baseline, "mean")
            for group in columns.values()
        ]
        rows.append([system, *cells])
    return rows


def difference_rows(breakdown: Breakdown, baseline: str) -> list[list[str]]:
    """The table of differences from a baseline, its heading first. p (Holm) is corrected for all rows of the table."""
    found = {name: breakdown.difference(name, baseline) for name in breakdown.systems if name != baseline}
    corrected = holm([difference.p for difference in found.values()])
    rows = [["system", "difference", "p", HOLM]]
    for (name, own), p in zip(found.items(), corrected, strict=True):
        value = f"{signed(own.value)} [{signed(own.low)}, {signed(own.high)}]"
        rows.append([name, value + stars(own), p_value(own.p), p_value(p)])
    return rows


# More questions than anyone asks: a difference that takes as many is none.
_BEYOND = 1_000_000


def too_few(evaluation: Evaluation, baseline: str | None = None) -> str | None:
    """Which differences in score have an interval that includes 0, and how many questions it would take to show them;
    None where each is shown.

    Args:
        baseline: what the others are compared with; the first system when it is left out.
    """
    scope = evaluation.macro or evaluation.overall
    first = baseline or next(iter(scope.systems))
    unsettled = []
    for name in scope.systems:
        found = scope.difference(name, first) if name != first else None
        if found and found.low <= 0 <= found.high:
            own = deviation(found.low, found.high, evaluation.overall.n, evaluation.confidence)
            needed = questions_needed(found.value, own, confidence=evaluation.confidence)
            unsettled.append(f"{name} {'(none was seen)' if needed is None else how_many(needed)}")
    if not unsettled:
        return None
    return (
        f"too few questions to show a difference from {first}; one as large as seen here would take (power 80%): "
        + ", ".join(unsettled)
    )


def how_many(questions: int) -> str:
    """A number of questions that something takes, in two digits.

    >>> how_many(1227), how_many(7_000_000)
    ('about 1,200', 'over 1,000,000')
    """
    return f"over {_BEYOND:,}" if questions > _BEYOND else f"about {int(float(f'{questions:.2g}')):,}"


def _check_baseline(evaluation: Evaluation, baseline: str | None) -> None:
    if baseline is not None and baseline not in evaluation.overall.systems:
        raise ConfigError(unknown("baseline", baseline, evaluation.overall.systems), where="text_table")


def caption(evaluation: Evaluation) -> str:
    """What the figures of an evaluation are."""
    n = evaluation.overall.n
    return (
        f"{n} question{'s' if n > 1 else ''}; percent, with {evaluation.confidence * 100:g}% bootstrap intervals "
        f"({evaluation.resamples} resamples, seed {evaluation.seed})" + _runs(evaluation)
    )


def _runs(evaluation: Evaluation) -> str:
    """What stands behind ±, where a system has several runs."""
    counts = sorted({scores.runs for scores in evaluation.overall.systems.values()} - {1})
    over = " or ".join(map(str, counts))
    return f"; ±: mean and standard deviation over {over} seeds" if counts else ""


def legend(baseline: str) -> str:
    """What the marks of significance mean."""
    marks = ", ".join(f"{mark} p < {level}" for level, mark in reversed(_LEVELS))
    return (
        f"differs from {baseline}: {marks} (paired permutation test; the marks are not corrected for the number of "
        f"systems, {HOLM} is)"
    )


def _mark(breakdown: Breakdown, system: str, baseline: str | None, metric: str) -> str:
    if baseline is None or system == baseline or metric not in breakdown.systems[baseline].metrics:
        return ""
    return stars(breakdown.difference(system, baseline, metric))


def stars(difference: Difference) -> str:
    """The mark of a difference's significance."""
    return next((mark for level, mark in _LEVELS if difference.p < level), "")


def _with_interval(estimate: Estimate) -> str:
    return f"{with_spread(estimate)} [{percent(estimate.low)}, {percent(estimate.high)}]"


def with_spread(estimate: Estimate) -> str:
    """A mean in percent, with its standard deviation over seeds where it is of several."""
    return percent(estimate.value) + ("" if estimate.sd is None else f" ± {percent(estimate.sd)}")


def _share(estimate: Estimate | None) -> str:
    return NOT_AVAILABLE if estimate is None else with_spread(estimate)


def percent(value: float) -> str:
    """A share in percent, one decimal."""
    return f"{100 * value:.1f}"


def signed(value: float) -> str:
    """A difference of shares in percent, one decimal, with its sign."""
    text = f"{100 * value:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text


def p_value(p: float) -> str:
    """A p-value to three decimals."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def aligned(rows: Sequence[Sequence[str]], right: Sequence[int] = (), *, rule: bool = True) -> str:
    """Columns of equal width, two spaces apart, with a rule below the heading."""
    widths = [max(map(len, column)) for column in zip_longest(*rows, fillvalue="")]
    lines = [
        "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    if rule:
        lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def piped(rows: Sequence[Sequence[str]]) -> str:
    """Rows as a Markdown table; the first is the heading."""
    escaped = [[cell.replace("|", r"\|") for cell in row] for row in rows]
    lines = [f"| {' | '.join(row)} |" for row in escaped]
    lines.insert(1, "|" + "---|" * len(rows[0]))
    return "\n".join(lines)


def _one_line(ctx: Gained) -> str:
    text = " ".join(ctx.text.split())
    return f"{' '.join(ctx.title.split())}: {text}" if ctx.title else text


def _cut(line: str, width: int) -> str:
    return line if len(line) <= width else line[: width - 1].rstrip() + "…"
