"""report.json -> the report's sections: headings, sentences, tables and figures, the same for the page and the text.

Every number here is taken from the data, none is computed but for rounding.
"""

from __future__ import annotations

from collections.abc import Sequence

from gainrag.evaluation import ACCURACY, GOLD_RECALL, Estimate, Evaluation
from gainrag.report import agreement, cells, figures, lost, proxy, variants
from gainrag.report.cases import ALL, Plain
from gainrag.report.parts import Section, Table, Tile, first
from gainrag.runs import printing
from gainrag.runs.printing import NOT_AVAILABLE, p_value, percent, signed


def sections(data: Plain) -> list[Section]:
    """All sections in order."""
    made = [
        _result(data),
        lost.section(data),
        _gap(data),
        _recall(data),
        _passages(data),
        _pseudo(data),
        _comparison(data),
        agreement.section(data),
        proxy.section(data),
        variants.section(data),
        _run(data),
    ]
    return [section for section in made if section is not None]


def headline(data: Plain) -> list[Tile]:
    """The report in a few numbers: GainRAG, the baseline, their difference, and what those reach who know more."""
    evaluation = Evaluation.from_json(data["evaluation"])
    scope = evaluation.macro or evaluation.overall
    roles = data["roles"]
    gainrag, base = roles["gainrag"], roles["baseline"]
    mine, other = (scope.systems[name].metrics["mean"] for name in (gainrag, base))
    found = scope.difference(gainrag, base, "mean")
    tiles = [
        Tile(percent(mine.value), gainrag, _range(mine)),
        Tile(percent(other.value), base, _range(other)),
        Tile(
            signed(found.value),
            f"{gainrag} against {base}",
            f"{signed(found.low)} to {signed(found.high)}, p {cells.p_text(found.p)}"
            + ("" if printing.stars(found) else ": not significant"),
        ),
    ]
    knowing = {
        "first_with": "reads the first candidate that contains an answer: a perfect choice by relevance",
        "oracle": "reads the candidate with the highest true gain: a perfect choice by gain",
    }
    for role, what in knowing.items():
        if roles[role]:
            tiles.append(Tile(percent(scope.systems[roles[role]].metrics["mean"].value), roles[role], what))
    return tiles


def _range(mean: Estimate) -> str:
    """A score's interval, and its spread over seeds where it has one."""
    between = f"{percent(mean.low)} to {percent(mean.high)}"
    return between if mean.sd is None else f"{between}; ± {percent(mean.sd)} over seeds"


def lead(data: Plain) -> str:
    """What the headline's numbers are."""
    evaluation = Evaluation.from_json(data["evaluation"])
    n, groups = evaluation.overall.n, evaluation.groups
    kind = "data sets" if evaluation.group_by == "dataset" else f"groups by {evaluation.group_by}"
    over = f", averaged over {len(groups)} {kind}" if evaluation.macro else ""
    return (
        f"{evaluation.overall.score} in percent on {n} test questions{over}, with {evaluation.confidence * 100:g}% "
        f"bootstrap intervals ({evaluation.resamples} resamples, seed {evaluation.seed})."
    )


def _score(data: Plain) -> str:
    """What the score is called: accuracy where all questions have choices."""
    return Evaluation.from_json(data["evaluation"]).overall.score


def _result(data: Plain) -> Section:
    evaluation = Evaluation.from_json(data["evaluation"])
    gainrag = data["roles"]["gainrag"]
    tables = [Table(f"All {evaluation.overall.n} questions, percent", printing.main_rows(evaluation.overall, gainrag))]
    if evaluation.groups:
        caption = f"{evaluation.overall.score} by {evaluation.group_by}, percent"
        tables.append(Table(caption, printing.group_rows(evaluation, gainrag)))
    scope, over = (evaluation.macro, "groups") if evaluation.macro else (evaluation.overall, "questions")
    caption = f"Difference from {gainrag} in {scope.score}, averaged over {over}, points"
    tables.append(Table(caption, printing.difference_rows(scope, gainrag)))
    means = {name: scores.metrics["mean"] for name, scores in scope.systems.items()}
    rows = [(name, (100 * mean.value, 100 * mean.low, 100 * mean.high)) for name, mean in means.items()]
    title = f"{scope.score} of every system with its interval"
    return Section(
        "result",
        "Result",
        [
            f"{_columns(evaluation)}pseudo: the share answered from the pseudo-passage. "
            f"A score is marked where it {printing.legend(gainrag)}.",
            *_averages(evaluation),
            *_seeds(evaluation),
            *_too_few(evaluation, gainrag),
        ],
        tables,
        [(figures.intervals("result", title, rows, f"{scope.score}, percent", [gainrag]), title)],
    )


def _too_few(evaluation: Evaluation, gainrag: str) -> list[str]:
    """What these questions do not show, and how many would, as a sentence."""
    line = printing.too_few(evaluation, gainrag)
    return [f"{line[0].upper()}{line[1:]}."] if line else []


def _columns(evaluation: Evaluation) -> str:
    """What the columns of the main table mean, but for those that every reader knows."""
    found = evaluation.overall
    if found.score != ACCURACY:
        text = "answer in: the share of questions with a gold answer in the passages read; "
    else:
        text = "accuracy: the share of questions for which the right choice is said; "
    if any(scores.auc for scores in found.systems.values()):
        text += (
            "AUC: how often the margin of the two choices is higher for a question whose right choice is the first "
            "than for one whose right choice is the second, which no threshold changes; "
        )
    if any(name in scores.metrics for scores in found.systems.values() for name in GOLD_RECALL):
        text += "gold@k: the share of the passages marked gold among the first k; "
    return text


def _averages(evaluation: Evaluation) -> list[str]:
    """What is averaged over what, where that makes a difference."""
    if not evaluation.macro:
        return []
    return [
        "The numbers at the top, the differences and the figure average over groups, each weighing the same. Tables of "
        "all questions, here and below, average over questions, so that large groups weigh more, unless they say else."
    ]


def _seeds(evaluation: Evaluation) -> list[str]:
    """What is of several seeds, where there are."""
    counts = sorted({scores.runs for scores in evaluation.overall.systems.values()} - {1})
    if not counts:
        return []
    return [
        f"Selectors were trained with {' or '.join(map(str, counts))} seeds. Scores are means over them, ± is their "
        "standard deviation, and differences and p-values are of each question's mean. So are regret, recall of what "
        "was read, and the parts of what is lost. All else, such as passages and answers of single questions, is of "
        "the first seed."
    ]


def _gap(data: Plain) -> Section:
    found, base = data["analyses"]["preference_gap"], data["roles"]["baseline"]
    heading = ["system", "questions", "answer in, n", "of these right", "right, n", "of these answer in"]
    rows = [heading]
    for system, groups in found.items():
        for name, gap in groups.items():
            holding, right = gap["right_of_holding"], gap["holding_of_right"]
            rows.append([system, name, str(holding["n"]), cells.share(holding), str(right["n"]), cells.share(right)])
    drawn = []
    if base in found:
        for key, title, parts in (
            ("right_of_holding", f"{base}: questions with a gold answer in the passage", ("answered right", "wrong")),
            ("holding_of_right", f"{base}: questions answered right", ("answer in the passage", "not in it")),
        ):
            bars = {name: (gap[key]["value"], gap[key]["n"]) for name, gap in found[base].items()}
            drawn.append((figures.shares(f"gap-{key}", title, bars, parts), title))
    return Section(
        "preference-gap",
        "The preference gap",
        [
            "A passage that holds a gold answer does not make the answer right, and right answers come from passages "
            "that hold none. Right is containment of a gold answer; intervals are Wilson's at 95%."
        ],
        [Table("Both halves of the gap, by system", rows, folded=True)],
        drawn,
    )


def _recall(data: Plain) -> Section:
    found, gainrag = data["analyses"]["recall_and_score"], data["roles"]["gainrag"]
    rows = [["system", *(f"{name}: {what}" for name in found for what in ("answer in", "score"))]]
    for system in found[ALL]:
        cells = [found[name].get(system, {}).get(what) for name in found for what in ("recall", "score")]
        rows.append([system, *(NOT_AVAILABLE if cell is None else percent(cell) for cell in cells)])
    title = "Recall of the gold answer against the score, before and after selection"
    points = {system: (100 * row["recall"], 100 * row["score"]) for system, row in found[ALL].items()}
    svg = figures.labelled_points(
        "recall", title, points, "answer in the passages read, percent", f"{_score(data)}, percent", [gainrag]
    )
    return Section(
        "recall",
        "Recall and score",
        ["Whether a system that reads more gold answers also gives more of them, before and after selection."],
        [Table(f"Recall of the gold answer in what was read, and {_score(data)}, percent", rows)],
        [(svg, title)],
    )


def _passages(data: Plain) -> Section:
    gainrag, sweep = data["roles"]["gainrag"], data["analyses"]["k_sweep"]
    found = data["analyses"]["recall_by_k"]
    tables, drawn, text = [], [], []
    if sweep:
        for what, title in (("recall", "Recall of the gold answer"), ("score", _score(data))):
            series = {s: [_point(row, what) for row in sweep[s]] for s in first(gainrag, sweep)}
            title = f"{title} as more passages are read"
            drawn.append((figures.lines(f"sweep-{what}", title, series, "passages read, K", "percent"), title))
        rows = [["system", "K", "answer in", "score", "against its fewest", "p"]]
        for system, swept in sweep.items():
            for row in swept:
                d = row["difference"]
                more = [cells.difference(d), p_value(d["p"])] if d else [NOT_AVAILABLE, NOT_AVAILABLE]
                rows.append([system, str(row["k"]), percent(row["recall"]), percent(row["score"]), *more])
        n, total = next(iter(sweep.values()))[0]["n"], data["evaluation"]["overall"]["n"]
        tables.append(Table(f"Answers from K passages, percent of {n} questions", rows))
        some = "all" if n == total else f"{n} of the"
        text.append(f"What more passages bring, to recall and to the answers: on {some} {total} test questions.")
    else:
        text.append(f"Recall alone: {data['absent']['k_sweep']}.")
    title = "Share of questions with a gold answer in the first K candidates"
    # Lines of variants lie upon each other: they are in the table.
    others = {row["system"] for row in data["analyses"]["variants"]} - {gainrag}
    series = {o: [_point(row, "recall") for row in found[o]] for o in first(gainrag, found) if o not in others}
    drawn.append((figures.lines("recall-by-k", title, series, "first K candidates", "percent"), title))
    ks = [row["k"] for row in max(found.values(), key=len)]
    rows = [["order by", *(f"K = {k}" for k in ks)]]
    for order, by_k in found.items():
        recalls = [percent(row["recall"]) for row in by_k]
        rows.append([order, *recalls, *[NOT_AVAILABLE] * (len(ks) - len(recalls))])
    tables.append(Table(f"{title}, percent", rows))
    return Section("passages", "More passages", text, tables, drawn)


def _point(row: Plain, what: str) -> tuple[float, figures.Interval]:
    return row["k"], (100 * row[what], None, None)


def _pseudo(data: Plain) -> Section:
    found, roles = data["analyses"]["pseudo_choice"], data["roles"]
    heading = [
        "questions",
        "chosen",
        "best by true gain",
        "best where chosen",
        "best where not chosen",
        "score where chosen",
        "best retrieved by score instead",
        "best retrieved by true gain instead",
    ]
    shares = ("chosen", "best", "best_of_chosen", "best_of_others")
    rows = [heading]
    for name, row in found.items():
        known = row["score_best_retrieved"]
        rows.append(
            [
                name,
                *(f"{cells.share(row[key])} of {row[key]['n']}" for key in shares),
                cells.mean(row["score"]),
                cells.mean(row["score_without"]),
                f"{cells.mean(known)} (chosen there: {cells.score(known['chosen'])})" if known["n"] else NOT_AVAILABLE,
            ]
        )
    bars = {name: (row["chosen"]["value"], row["chosen"]["n"]) for name, row in found.items()}
    right = {name: (row["best_of_chosen"]["value"], row["best_of_chosen"]["n"]) for name, row in found.items()}
    shown = [("pseudo-chosen", "Which passage is chosen", bars, ("pseudo-passage", "a retrieved one"))]
    why = data["absent"].get("gains")
    if not why:
        parts = ("gains most", "a retrieved one gains more")
        shown.append(("pseudo-right", "The pseudo-passage, where chosen", right, parts))
    return Section(
        "pseudo-passage",
        "The pseudo-passage",
        [
            f"When {roles['gainrag']} chooses the passage that the model wrote itself, and whether that was right. "
            "This is judged by true gain, and by the score of the answer compared with that from the best retrieved "
            "passage. The best is taken by the selector's score, and also by true gain if a system answered from that "
            "alone.",
            *([f"There is no true gain here: {why}."] if why else []),
        ],
        [Table(f"Shares in percent with Wilson's 95% intervals; scores are {_score(data)} in percent", rows)],
        [(figures.shares(key, title, part, parts), title) for key, title, part, parts in shown],
    )


def _comparison(data: Plain) -> Section:
    found, roles = data["analyses"]["comparison"], data["roles"]
    gainrag, base = roles["gainrag"], roles["baseline"]
    overall = found["overall"]
    rows = [["by", "questions", "n", "wins", "losses", "ties", "difference"]]
    for row in [{"by": "", "group": ALL, **overall}, *found["groups"]]:
        counts = [str(row[key]) for key in ("n", "wins", "losses", "ties")]
        rows.append([row["by"], row["group"], *counts, cells.difference(row)])
    everything = f"{ALL} (n={overall['n']})"
    bars = [(everything, cells.scaled(overall, "difference", 100))]
    bars += [(f"{r['group']} (n={r['n']})", cells.scaled(r, "difference", 100)) for r in found["groups"]]
    title = f"{gainrag} minus {base} in {_score(data)}, by group of questions"
    svg = figures.intervals("comparison", title, bars, "difference, points", [everything])
    prefix = "groups by "
    absent = {what.removeprefix(prefix): why for what, why in data["absent"].items() if what.startswith(prefix)}
    return Section(
        "helps-and-hurts",
        f"Where {gainrag} helps and hurts",
        [
            f"Against {base}: {gainrag} wins {overall['wins']} questions, loses {overall['losses']} and ties on "
            f"{overall['ties']}; on {overall['same_passages']} of {overall['n']} both read the same passages. "
            "Intervals are bootstrap intervals over questions, not corrected for the number of groups.",
            *(f"Not grouped by {what}: {why}." for what, why in absent.items()),
        ],
        [
            Table(f"Differences in {_score(data)}, percent", rows),
            *(
                Table(f"The {len(found[key])} largest {key}", *_extreme_rows(found[key], (gainrag, base)))
                for key in ("wins", "losses")
                if found[key]
            ),
        ],
        [(svg, title)],
    )


def _extreme_rows(entries: Sequence[Plain], names: Sequence[str]) -> tuple[list[list[str]], bool, list[str]]:
    heading = ["", "question", "gold"]
    for name in names:
        heading += [f"{name} read", f"{name} said"]
    rows = [heading]
    for entry in entries:
        row = [signed(entry["difference"]), entry["question"], " | ".join(entry["answers"])]
        for name in names:
            one = entry["systems"][name]
            row += [" / ".join(map(cells.passage, one["passages"])) or "nothing", one["prediction"]]
        rows.append(row)
    return rows, True, [entry["id"] for entry in entries]


def _run(data: Plain) -> Section:
    settings = [["artefact", "settings"]]
    settings += [[name, cells.settings(values)] for name, values in data["settings"].items() if values]
    tables = [Table("Settings of each stage, seeds among them", settings, folded=True)]
    versions = [["library", "version"], *([name, ", ".join(found)] for name, found in data["versions"].items())]
    tables.append(Table("Versions", versions, folded=True))
    if data["selector_card"]:
        card = [["fact", "value"], *([fact, value] for fact, value in data["selector_card"].items())]
        tables.append(Table("The selector", card, folded=True))
    if data["diagnosis"]:
        rows = [["alpha", "AUC", "F1 from the highest gain"]]
        rows += [[a, f"{v['auc']:.3f}", f"{v['pick']:.3f}"] for a, v in data["diagnosis"]["by_alpha"].items()]
        caption = f"Alphas compared on {data['diagnosis']['sample']} training questions"
        tables.append(Table(caption, rows, folded=True))
    text = [f"Made with gainrag {data['gainrag']} from the run folder {data['run']}."]
    for part in ("diagnosis", "selector_card"):
        if part in data["absent"]:
            text.append(f"Not here: {part.replace('_', ' ')}, {data['absent'][part]}.")
    if not data["passages"]:
        text.append("Texts of passages were left out of this report (--no-passages).")
    return Section("run", "Settings, versions, and how to repeat it", text, tables)
