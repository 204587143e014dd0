"""How well a selector's scores agree with the true gains of a question's candidates, in runs that measured them: pure
functions, plain data, and the report's section on it.

| function           | of a question's candidates                                                                      |
|--------------------|-------------------------------------------------------------------------------------------------|
| `rank_correlation` | Spearman's rho of score and gain: 1 is the true order, 0 is chance                              |
| `top1_regret`      | highest gain minus the gain of the candidate with the highest score, nats: 0 is the best choice |
| `calibration`      | selector's share softmax(score) beside the teacher's share softmax(gain / temperature), in bins |
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gainrag import statistics
from gainrag.errors import ConfigError
from gainrag.gain import teacher
from gainrag.report import cells, figures
from gainrag.report.cases import ALL, Case, Plain, share
from gainrag.report.parts import Section, Table
from gainrag.runs.printing import NOT_AVAILABLE
from gainrag.selection import top
from gainrag.statistics import mean_interval, spread

# Edges of the histogram of rank correlations.
_EDGES = [round(-1.0 + 0.2 * i, 1) for i in range(11)]


def rank_correlation(cases: Sequence[Case], system: str, **interval: int | float) -> Plain:
    """Spearman's rank correlation of score and true gain within each question, averaged over questions.

    Args:
        interval: of the mean, see `gainrag.statistics.mean_interval`.

    Returns:
        n; `undefined`, the questions with fewer than two candidates or with all scores or gains equal, which count
        nowhere else; mean with low and high; median; `histogram` with `edges` and `counts`.
    """
    every = [statistics.rank_correlation(case.scored[system], case.gains()) for case in cases]
    found = [rho for rho in every if rho is not None]
    low, high = mean_interval(found, **interval)  # type: ignore[arg-type]
    counts, _ = np.histogram(found, bins=_EDGES)
    return {
        "n": len(found),
        "undefined": len(cases) - len(found),
        "mean": float(np.mean(found)) if found else None,
        "low": low,
        "high": high,
        "median": float(np.median(found)) if found else None,
        "histogram": {"edges": _EDGES, "counts": [int(count) for count in counts]},
    }


def top1_regret(cases: Sequence[Case], system: str | None, **interval: int | float) -> Plain:
    """How much gain (nats) the candidate with the highest score falls short of the best one.

    Args:
        system: whose selector chooses; None is the retriever, which chooses the first retrieved passage.
        interval: of the mean, see `gainrag.statistics.mean_interval`.

    Returns:
        mean with low and high; `chance`, that of a candidate drawn at random; `best`, the share of questions where
        the choice is as good as any. Of a system of several seeds mean and best are over them, and `sd` is the
        standard deviation of their means.
    """
    by_seed: list[list[float]] = []
    for n in range(cases[0].seeds(system) if system else 1):
        seed = [case.with_seed(system, n) if system else case for case in cases]
        by_seed.append([max(gains := case.gains()) - gains[_first(case, system)] for case in seed])
    chance = [max(case.gains()) - float(np.mean(case.gains())) for case in cases]
    regrets = np.mean(by_seed, axis=0).tolist()
    low, high = mean_interval(regrets, **interval)  # type: ignore[arg-type]
    return {
        "mean": float(np.mean(regrets)),
        "low": low,
        "high": high,
        "chance": float(np.mean(chance)),
        "best": share(round(sum(regret == 0 for own in by_seed for regret in own) / len(by_seed)), len(cases)),
        **({"sd": spread([float(np.mean(own)) for own in by_seed])} if len(by_seed) > 1 else {}),
    }


def _first(case: Case, system: str | None) -> int:
    """Which candidate a system's selector puts first; without a system the retriever's first."""
    if system is None:
        return next((i for i, c in enumerate(case.candidates) if c.origin != "generated"), 0)
    return top(case.scored[system], 1)[0]


def calibration(cases: Sequence[Case], system: str, temperature: float, bins: int = 10) -> list[Plain]:
    """Candidates of all questions in bins of equal width by the selector's share; empty bins are left out.

    Args:
        temperature: of the teacher, as the selector was trained with.
        bins: how many of them between 0 and 1.

    Returns:
        Of each bin: low, high (edges), n, and the mean share by `selector` and `teacher`.

    Raises:
        ConfigError: the temperature is not above 0, or there are no bins.
    """
    if not temperature > 0 or bins < 1:
        raise ConfigError(f"temperature {temperature}, {bins} bins", where="calibration", hint="both are above 0")
    mine = np.concatenate([teacher(case.scored[system]) for case in cases])
    target = np.concatenate([teacher(case.gains(), temperature) for case in cases])
    at = np.minimum((mine * bins).astype(int), bins - 1)
    return [
        {
            "low": b / bins,
            "high": (b + 1) / bins,
            "n": int((at == b).sum()),
            "selector": float(mine[at == b].mean()),
            "teacher": float(target[at == b].mean()),
        }
        for b in range(bins)
        if (at == b).any()
    ]


def section(data: Plain) -> Section:
    """The report's section on it."""
    found, gainrag = data["analyses"]["selector"], data["roles"]["gainrag"]
    title = "Does the selector's score predict the true gain?"
    if not found:
        return Section("selector", title, [f"Not known: {data['absent']['selector']}."])
    heading = ["order by", "questions", "Spearman", "regret, nats", "random choice", "best choice"]
    overall, by_dataset = [heading], [heading]
    for order, groups in found["top1_regret"].items():
        for name, regret in groups.items():
            rho = found["rank_correlation"].get(order, {}).get(name)
            (overall if name == ALL else by_dataset).append(
                [
                    order,
                    name,
                    cells.interval(rho) if rho else NOT_AVAILABLE,
                    cells.interval(regret),
                    f"{regret['chance']:.2f}",
                    cells.share(regret["best"]),
                ]
            )
    text = [
        f"On each test question's candidates, by their true gain{_measured(data)}: "
        "Spearman's rank correlation of the selector's score and the true gain; "
        "the regret, by how many nats of gain the first choice falls short of the best candidate (random choice: a "
        "candidate drawn at random); and the share of questions where the first choice is the best.",
    ]
    drawn = []
    if mine := found["rank_correlation"].get(gainrag):
        rho = mine[ALL]
        if rho["undefined"]:
            text.append(f"The correlation is not defined on {rho['undefined']} questions and is not counted there.")
        bins = rho["histogram"]
        caption = f"Rank correlation of {gainrag}'s score and the true gain, by question"
        svg = figures.histogram("spearman", caption, bins["edges"], bins["counts"], "Spearman's rho", rho["mean"])
        drawn.append((svg, caption))
    if found["calibration"]:
        points = [(b["selector"], b["teacher"], b["n"]) for b in found["calibration"]]
        caption = "The selector's share of a candidate against the teacher's; numbers are candidates in the bin"
        svg = figures.calibration("calibration", caption, points, "softmax(score)", "softmax(gain / temperature)")
        drawn.append((svg, caption))
        text.append(
            f"Calibration: of the candidates to which the selector gives a share, softmax(score), the mean share that "
            f"the teacher gives, softmax(gain / {found['temperature']:g})."
        )
    tables = [Table("Agreement of the order with the true gains, all questions", overall)]
    if len(by_dataset) > 1:
        tables.append(Table("Agreement of the order with the true gains, by data set", by_dataset, folded=True))
    return Section("selector", title, text, tables, drawn)


def _measured(data: Plain) -> str:
    """How the true gains were measured, and how the labels, where that is another way."""
    levels = data["levels"]
    if levels["gains"] == "sampled":
        text = ", which is sampled: the logarithm of the share of right answers"
    else:
        text = f" at alpha {data['analyses']['selector']['alpha']:g}, that of the labels ({levels['gains']} losses)"
    if (certain := data["summaries"].get("gains/train", {}).get("certain")) is not None:
        text += f"; of {certain:.1%} of the training questions it is certain which passage is the silver one"
    return text if levels["gains"] == levels["labels"] else f"{text} (the labels are {levels['labels']})"
