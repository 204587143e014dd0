"""Where a run loses its questions: in retrieval, in selection, or in reading. Pure functions, then the section.

A question has one part for each system that reads passages, see `gainrag.evaluation.lost`. A passage holds the answer
by `gainrag.metrics.holds_answer`. Where the answer is a choice among options, or is long, a text that contains it means
nothing: there a passage holds it where people marked it as `gold`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np

from gainrag.errors import DataError
from gainrag.evaluation.lost import PARTS, Part, part, place
from gainrag.metrics import holds_answer, normalise
from gainrag.records import Gained
from gainrag.report import figures
from gainrag.report.cases import ALL, Case, Plain, by_dataset, same
from gainrag.report.parts import Section, Table
from gainrag.runs.printing import percent, signed
from gainrag.statistics import spread

# A gold answer of more normalised words is long: hardly any passage contains it word for word.
LONG = 12

_NAMES: dict[Part, str] = {
    "right": "right, answer in what was read",
    "right_without": "right, answer not in what was read",
    "reader": "lost in reading",
    "selection": "lost in selection",
    "retrieval": "lost in retrieval",
}


# --- one question --------------------------------------------------------------------------------------------------


def plain_losses(candidates: Sequence[Gained]) -> dict[str, float]:
    """The loss of each candidate by its id, nats per token at alpha 0 (at the first alpha where that is not stored)."""
    alpha = _alpha_of(candidates)
    return {ctx.id: ctx.loss[alpha] for ctx in candidates}


def _alpha_of(candidates: Sequence[Gained]) -> str:
    return "0.0" if "0.0" in candidates[0].loss else next(iter(candidates[0].loss))


def regret(losses: Mapping[str, float], first: str, among: set[str] | None = None) -> float:
    """By how much the loss of the passage that was chosen is above that of the best candidate, in nats per token.

    >>> regret({"p1": 1.0, "p2": 0.5, "p3": 2.0}, "p3"), regret({"p1": 1.0, "p2": 0.5}, "p1", among={"p1"})
    (1.5, 0.0)

    Args:
        losses: of each candidate, by its id.
        first: the id of the candidate that was chosen.
        among: the ids of the candidates that the best one is taken from; all where it is left out.
    """
    return losses[first] - min(loss for name, loss in losses.items() if among is None or name in among)


def divided(of: Sequence[str], values: Sequence[float]) -> dict[str, float]:
    """The mean of the values, as a sum: what the questions of each part add to it.

    >>> divided(["reader", "right", "reader", "right"], [1.0, 0.0, 2.0, 0.5])
    {'reader': 0.75, 'right': 0.125}
    """
    return {
        name: float(sum(value for own, value in zip(of, values, strict=True) if own == name)) / len(of)
        for name in dict.fromkeys(of)
    }


# --- a run's questions ---------------------------------------------------------------------------------------------


def judged(cases: Sequence[Case]) -> tuple[dict[str, bool], dict[str, str]]:
    """By what a passage of each data set is judged to hold the answer.

    Returns:
        By data set whether it is by gold marks; and by data set, why it cannot be judged.
    """
    gold: dict[str, bool] = {}
    absent: dict[str, str] = {}
    for name in sorted({case.dataset for case in cases}):
        own = [case for case in cases if case.dataset == name]
        words = median(min(len(normalise(answer).split()) for answer in case.answers) for case in own)
        chosen = any(answer.choices for case in own for answer in case.answered.values())
        if not chosen and words <= LONG:
            gold[name] = False
        elif any(ctx.gold is not None for case in own for ctx in case.candidates):
            gold[name] = True
        else:
            what = "its answers are choices" if chosen else f"its answers are long (half of them over {LONG} words)"
            absent[name] = f"{what}, which no passage can be searched for, and no passage is marked as gold"
    return gold, absent


def find(
    cases: Sequence[Case], systems: Sequence[str], oracle: str | None = None
) -> tuple[Plain | None, dict[str, str]]:
    """Where each system that reads passages loses its questions, over all questions and by data set.

    Args:
        oracle: the system that the distance in points is to, where it was run.

    Returns:
        `gold` (data sets judged by gold marks), `n`, `alpha` (of the regrets; None where no losses were measured), and
        `systems`: by data set and system what `lost` says; None where no data set can be judged. Beside it by data set
        why it is left out.
    """
    gold, absent = judged(cases)
    own = [case for case in cases if case.dataset in gold]
    reading = [name for name in systems if any(case.answered[name].ctxs for case in own)]
    if not own:
        return None, absent

    # Once for all systems: this is where the time goes.
    held = {case.id: candidates_hold(case, gold[case.dataset]) for case in own}

    def every(some: Sequence[Case]) -> Plain:
        return {name: lost(some, name, gold, held, oracle) for name in reading}

    measured = [ctx for ctx in own[0].candidates if isinstance(ctx, Gained) and ctx.loss]
    return {
        "gold": [name for name in gold if gold[name]],
        "n": len(own),
        "alpha": float(_alpha_of(measured)) if measured else None,
        "systems": by_dataset(own, every),
    }, absent


def lost(
    cases: Sequence[Case], system: str, gold: Mapping[str, bool], held: Mapping[str, bool], oracle: str | None = None
) -> Plain:
    """The parts of a system's questions, and what goes to each; of several seeds the mean over them.

    Args:
        gold: by data set, whether gold marks say which passages hold the answer.
        held: by question, `candidates_hold`.

    Returns:
        `n` questions; `parts`, by part the share of questions; `score`, the mean score, and `points`, what the
        questions of each part lack to a score of 1: with the score they sum to 1. `to_oracle`: how far the oracle
        scores above the system on the questions of each part (None without an oracle). `regret`: of the first passage
        read, in nats per token: `n` questions where it is a candidate, their `mean`, and by part what it is the sum
        of (None where the run measured no losses). `sd`: the standard deviation over seeds of `parts` and of
        the mean `regret` (None of one seed).
    """
    if not cases:
        raise DataError("there are no questions to analyse", hint="give at least one")
    seeds = [
        _of_one_seed([case.with_seed(system, n) for case in cases], system, gold, held, oracle)
        for n in range(cases[0].seeds(system))
    ]
    if len(seeds) == 1:
        return {**seeds[0], "sd": None}
    regrets = [seed["regret"]["mean"] for seed in seeds if seed["regret"]]
    spreads = {name: spread([seed["parts"][name] for seed in seeds]) for name in PARTS}
    sd = {"parts": spreads, "regret": spread(regrets) if len(regrets) == len(seeds) else None}
    return {**_averaged(seeds), "n": len(cases), "sd": sd}


def _of_one_seed(
    cases: Sequence[Case], system: str, gold: Mapping[str, bool], held: Mapping[str, bool], oracle: str | None
) -> Plain:
    of = [part_of(case, system, gold[case.dataset], held[case.id]) for case in cases]
    scores = [case.mean(system) for case in cases]
    known = [(p, value) for p, case in zip(of, cases, strict=True) if (value := regret_of(case, system)) is not None]
    return {
        "n": len(cases),
        "parts": _by_part(of, [1.0] * len(of)),
        "score": float(np.mean(scores)),
        "points": _by_part(of, [1 - score for score in scores]),
        "to_oracle": _by_part(of, [c.mean(oracle) - s for c, s in zip(cases, scores, strict=True)]) if oracle else None,
        "regret": {
            "n": len(known),
            "mean": float(np.mean([value for _, value in known])),
            "parts": _by_part([p for p, _ in known], [value for _, value in known]),
        }
        if known
        else None,
    }


def _averaged(found: Sequence[Any]) -> Any:
    """Plain values of one shape as their mean, number by number; None where one is None."""
    if any(one is None for one in found):
        return None
    if isinstance(found[0], dict):
        return {key: _averaged([one[key] for one in found]) for key in found[0]}
    return float(np.mean(found))


def _by_part(of: Sequence[Part], values: Sequence[float]) -> Plain:
    """`divided`, all parts in their order."""
    found = divided(of, values)
    return {name: found.get(name, 0.0) for name in PARTS}


def candidates_hold(case: Case, gold: bool = False) -> bool:
    """Whether a candidate holds the answer: by its text, or where it is marked as gold."""
    return any(bool(ctx.gold) if gold else holds_answer(ctx, case.answers) for ctx in case.candidates)


def part_of(case: Case, system: str, gold: bool, held: bool) -> Part:
    """The part of a question for a system.

    Args:
        gold: whether a passage holds the answer where it is marked as gold, and not where its text contains it.
        held: `candidates_hold`.
    """
    answer, scores = case.answered[system], case.scores[system]
    right = scores["exact_match" if answer.choices else "contains"]
    read = any(ctx.gold for ctx in answer.ctxs) if gold else bool(scores["recall"])
    return part(place([held], [read]), bool(right))


def regret_of(case: Case, system: str) -> float | None:
    """The regret of the first passage that a system read, in `plain_losses`; None where it is no candidate, or the run
    measured no losses."""
    read = case.answered[system].ctxs[:1]
    candidates = [ctx for ctx in case.candidates if isinstance(ctx, Gained) and ctx.loss]
    if not candidates or not any(same(ctx, first) for first in read for ctx in candidates):
        return None
    return regret(plain_losses(candidates), read[0].id)


# --- the section ---------------------------------------------------------------------------------------------------

# What was won first, then what was lost, from the last step to the first.
_SHOWN: tuple[Part, ...] = ("right", "right_without", "reader", "selection", "retrieval")
_LOST = _SHOWN[2:]
KEY = "lost"


def section(data: Plain) -> Section:
    """Where the run loses its questions, or why that is not known."""
    found, absent = data["analyses"][KEY], data["absent"]
    title = "Where it is lost"
    out = [f"Not here: {what.removeprefix(f'{KEY} ')}: {why}." for what, why in absent.items() if what.startswith(KEY)]
    if not found:
        return Section(KEY, title, out)
    systems, oracle = found["systems"][ALL], data["roles"]["oracle"]
    text = [
        "A system answers a question right, from a passage with the answer or from others; or wrong, and it is lost in "
        "retrieval (none of the candidates has the answer), in selection (a candidate has it, and others were read) or "
        "in reading (a passage with the answer was read). Candidates include the pseudo-passage.",
        "A question lost in selection is no promise: the language model may have answered it wrong from that passage, "
        "too, as it does those lost in reading.",
        *_by_what(found["gold"]),
        *out,
    ]
    caption = f"Where {found['n']} questions go"
    bars = {name: [row["parts"][p] for p in _SHOWN] for name, row in systems.items()}
    svg = figures.stacked(KEY, caption, bars, [_NAMES[p] for p in _SHOWN], "percent of questions")
    heading = ["system", *(_NAMES[p] for p in _SHOWN)]
    shares = [[name, *_shares(row)] for name, row in systems.items()]
    tables = [Table(f"{caption}, percent", [heading, *shares]), _points(systems)]
    if oracle:
        tables.append(_to_oracle(systems, oracle))
    if any(row["regret"] for row in systems.values()):
        tables.append(_regrets(systems, found["n"], found["alpha"]))
    if len(found["systems"]) > 1:
        tables.append(_datasets(found["systems"]))
    return Section(KEY, title, text, tables, [(svg, caption)])


def _by_what(gold: Sequence[str]) -> list[str]:
    """By what passages are judged, where that is not the text."""
    if not gold:
        return []
    return [
        f"In {', '.join(gold)} the answer is a choice or long, and no text is searched for it: a passage has the "
        "answer where it is marked as gold. "
        "A long answer is seldom right as a whole; the points count what of it is there."
    ]


def _points(systems: Plain) -> Table:
    rows = [["system", "score", "right, not word for word", *(_NAMES[p] for p in _LOST)]]
    for name, row in systems.items():
        points = row["points"]
        wording = points["right"] + points["right_without"]
        rows.append([name, percent(row["score"]), percent(wording), *(percent(points[p]) for p in _LOST)])
    return Table("The same in points: the score, mean(contains, F1), and what is missing to 100", rows)


def _to_oracle(systems: Plain, oracle: str) -> Table:
    rows = [["system", f"below the {oracle}", "right", *(_NAMES[p] for p in _LOST)]]
    for name, row in systems.items():
        if name != oracle:
            gap = row["to_oracle"]
            kinds = [gap["right"] + gap["right_without"], *(gap[p] for p in _LOST)]
            rows.append([name, signed(sum(gap.values())), *map(signed, kinds)])
    return Table(f"By how many points the {oracle} scores above, on the questions of each kind", rows, folded=True)


def _regrets(systems: Plain, n: int, alpha: float) -> Table:
    rows = [["system", "regret", *(_NAMES[p] for p in _SHOWN), "questions"]]
    for name, row in systems.items():
        if row["regret"]:
            own = [f"{row['regret']['parts'][p]:.3f}" for p in _SHOWN]
            sd = row["sd"] and row["sd"]["regret"]
            mean = f"{row['regret']['mean']:.3f}" + ("" if sd is None else f" ± {sd:.3f}")
            rows.append([name, mean, *own, str(round(row["regret"]["n"]))])
    caption = (
        "In nats: by how much the loss of the first passage read is above that of the best candidate "
        f"(alpha {alpha:g}), over those of {n} questions where it is a candidate"
    )
    return Table(caption, rows)


def _datasets(by_name: Plain) -> Table:
    rows = [["data set", "system", "questions", "score", *(_NAMES[p] for p in _SHOWN)]]
    for dataset, systems in by_name.items():
        for name, row in systems.items() if dataset != ALL else ():
            rows.append([dataset, name, str(row["n"]), percent(row["score"]), *_shares(row)])
    return Table("By data set, percent of its questions", rows, folded=True)


def _shares(row: Plain) -> list[str]:
    """The shares of all parts in percent, in the order of the page."""
    sd = row["sd"]
    return [percent(row["parts"][p]) + (f" ± {percent(sd['parts'][p])}" if sd else "") for p in _SHOWN]
