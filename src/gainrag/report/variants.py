"""The selectors trained another way, `[[variant]]` in the run's config: from fewer labels, from other data, on other
labels; beside GainRAG's own. Data for report.json, and the section that shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gainrag.evaluation import Breakdown, Evaluation
from gainrag.report import cells, figures
from gainrag.report.cases import ALL, Plain
from gainrag.report.parts import Section, Table, first
from gainrag.runs.printing import HOLM, NOT_AVAILABLE, p_value
from gainrag.statistics import holm

# Variants with one of these learn from other data sets: how far a selector carries.
_TRANSFER = ("leave_out", "train_on")
# How the keys of `absent` begin that this section tells of.
_ABSENT = "variant"


def absences(evaluation: Evaluation, settings: Mapping[str, Plain], labelled: int | None) -> dict[str, str]:
    """What `compare` cannot tell of the variants of a config, with the reason."""
    found = {
        f"{_ABSENT} {name}": "it was not run" for name in settings if name not in evaluation.overall.systems
    }
    if settings and labelled is None:
        found[f"{_ABSENT}s: the number of labels of the run's own selector"] = "gains/train.jsonl is not there"
    return found


def compare(
    evaluation: Evaluation,
    settings: Mapping[str, Plain],
    gainrag: str,
    labelled: int | None,
    regrets: Mapping[str, Plain],
) -> list[Plain]:
    """GainRAG and each variant that was run: what it learned from, how it scores, and how it chooses.

    Args:
        settings: of the variants, by system.
        labelled: how many labelled questions GainRAG learned from, where that is known.
        regrets: `agreement.top1_regret` of each system that has a selector, by data set.

    Returns:
        Of each: `system`; `settings`; `questions`, the labelled ones it learned from, None where it is not a number of
        its own; `score` and `difference` (from GainRAG; None of GainRAG itself) of mean(contains, F1), over groups
        where there are several; `groups`, that difference in each; `regret` on the test questions, None where its
        scores are not there. Nothing where no variant was run.
    """
    scope = evaluation.macro or evaluation.overall
    run = [name for name in settings if name in scope.systems]
    found = []
    for name in [gainrag, *run] if run else []:
        mean = scope.systems[name].metrics["mean"]
        regret = regrets[name][ALL] if name in regrets else None
        own = name == gainrag
        found.append(
            {
                "system": name,
                "settings": settings.get(name, {}),
                "questions": labelled if own else settings[name].get("questions"),
                "score": {"mean": mean.value, "low": mean.low, "high": mean.high, "sd": mean.sd},
                "difference": None if own else _difference(scope, name, gainrag),
                "groups": {} if own else {g: _difference(b, name, gainrag) for g, b in evaluation.groups.items()},
                "regret": {key: regret.get(key) for key in ("mean", "low", "high", "sd")} if regret else None,
            }
        )
    return found


def _difference(breakdown: Breakdown, system: str, other: str) -> Plain:
    found = breakdown.difference(system, other)
    return {"n": breakdown.n, "difference": found.value, "low": found.low, "high": found.high, "p": found.p}


def section(data: Plain) -> Section | None:
    """What the variants show; None where the run has none."""
    found, gainrag = data["analyses"]["variants"], data["roles"]["gainrag"]
    if not found:
        return None
    rows = [["selector", "trained with", "labels", "score", f"against {gainrag}", "p", HOLM, "regret, nats"]]
    others = [row["system"] for row in found if row["difference"]]
    corrected = dict(zip(others, holm([row["difference"]["p"] for row in found if row["difference"]]), strict=True))
    for row in found:
        d = row["difference"]
        rows.append(
            [
                row["system"],
                cells.settings(row["settings"]) or "the run's settings",
                NOT_AVAILABLE if row["questions"] is None else str(row["questions"]),
                cells.percents(row["score"]),
                cells.difference(d) if d else NOT_AVAILABLE,
                p_value(d["p"]) if d else NOT_AVAILABLE,
                p_value(corrected[row["system"]]) if d else NOT_AVAILABLE,
                cells.interval(row["regret"]) if row["regret"] else NOT_AVAILABLE,
            ]
        )
    text = [
        "The same selector trained another way, on the same candidates and test questions. labels: the labelled "
        "questions it learned from, where it has a number of its own; score: mean(contains, F1) in percent"
        + (", averaged over groups" if data["evaluation"]["macro"] else "")
        + "; regret: by how much gain its first choice falls short of the best candidate, averaged over questions.",
        *(f"Not here: {what}, {why}." for what, why in data["absent"].items() if what.startswith(_ABSENT)),
    ]
    return Section(
        "variants",
        "Trained another way",
        text,
        [Table(f"Each selector beside {gainrag}, all {data['evaluation']['overall']['n']} questions", rows)],
        [*_efficiency(found, gainrag), *_transfer(found, gainrag)],
    )


def _efficiency(found: Sequence[Plain], gainrag: str) -> list[tuple[str, str]]:
    """Score and regret by the number of labelled questions, a line for all selectors that differ in nothing else."""
    lines: dict[str, list[Plain]] = {}
    for row in found:
        if row["questions"] is not None:
            others = {key: value for key, value in row["settings"].items() if key != "questions"}
            lines.setdefault(cells.settings(others) or gainrag, []).append(row)
    # GainRAG alone is no line.
    if sum(map(len, lines.values())) < 2:
        return []
    drawn = []
    for key, title, unit, scale in (
        ("score", "mean(contains, F1)", "percent", 100),
        ("regret", "Regret of the first choice", "nats", 1),
    ):
        series: dict[str, list[tuple[float, figures.Interval]]] = {}
        for label in first(gainrag, lines):
            for row in sorted(lines[label], key=lambda row: int(row["questions"])):
                if row[key] is not None:
                    series.setdefault(label, []).append((row["questions"], cells.scaled(row[key], "mean", scale)))
        if series:
            title = f"Label efficiency: {title} by the number of labelled questions"
            svg = figures.lines(f"efficiency-{key}", title, series, "labelled questions", unit, log=True)
            drawn.append((svg, title))
    return drawn


def _transfer(found: Sequence[Plain], gainrag: str) -> list[tuple[str, str]]:
    """How a selector that learned from other data sets differs from GainRAG on each."""
    drawn = []
    for number, row in enumerate(found):
        if any(row["settings"].get(key) for key in _TRANSFER):
            title = f"Transfer: {row['system']} minus {gainrag} in mean(contains, F1)"
            parts = {"average" if row["groups"] else ALL: row["difference"], **row["groups"]}
            bars = [(f"{name} (n={d['n']})", cells.scaled(d, "difference", 100)) for name, d in parts.items()]
            svg = figures.intervals(f"transfer-{number}", title, bars, "difference, points", [bars[0][0]])
            drawn.append((svg, title))
    return drawn
