"""What `gainrag probe` shows: the figures, whether selection is worth it, and what to do next, on one screen."""

from __future__ import annotations

from gainrag.evaluation.lost import PARTS
from gainrag.probing import BEST, FIRST, HOLDING, NOTHING, REACHED, RETRIEVED, SHIPPED, Probe, Span, duration
from gainrag.runs.printing import aligned, how_many, percent, signed
from gainrag.selectors import PRIOR
from gainrag.training.distillation import FEW, SERVED

_PARTS = {
    "right": "answered right",
    "right_without": "right, though the passage has no answer",
    "reader": "wrong, though the passage has an answer",
    "selection": "wrong, and another candidate has one",
    "retrieval": "wrong, and no candidate has one",
}
_LEVELS = {
    "exact": "the losses of the gold answers, exact",
    "gold": "the losses of the gold answers",
    "bounded": "the losses of the gold answers, bounded",
    "sampled": "one greedy answer from each candidate: the model tells no losses",
}


def screen(found: Probe) -> str:
    """All of it as text."""
    parts = [_head(found), aligned(_rows(found)), _lost(found), verdict(found), _next(found)]
    return "\n\n".join(part for part in parts if part)


def _head(found: Probe) -> str:
    lines = [
        f"{found.questions} of {found.of:,} questions, {found.candidates:.4g} candidates each; percent, with 95% "
        "bootstrap intervals"
    ]
    if found.recall:
        shown = [f"first {k}: {percent(recall)}" for k, recall in found.recall.items()]
        lines.append(f"an answer among the retriever's {', '.join(shown)} (of {found.known} questions)")
    if found.known < found.questions:
        why = "choices or long answers and no gold marks"
        lines.append(f"{found.questions - found.known} have {why}: which passages hold the answer is not known")
    return "\n".join(lines)


def _rows(found: Probe) -> list[list[str]]:
    rows = [["what the model reads", found.measure, "points above the first"]]
    for name in (NOTHING, FIRST, SHIPPED, HOLDING, BEST, RETRIEVED):
        if name in found.lines:
            line = found.lines[name]
            over = "" if line.over_first is None else span(line.over_first)
            own = line.score
            rows.append([name, f"{percent(own.value)} [{percent(own.low)}, {percent(own.high)}]", over])
    return rows


def span(difference: Span) -> str:
    """A difference in points with its interval."""
    return f"{signed(difference.value)} [{signed(difference.low)}, {signed(difference.high)}]"


def _lost(found: Probe) -> str:
    if not found.known:
        return ""
    counts = [f"{found.lost[name]} {_PARTS[name]}" for name in PARTS if name in found.lost]
    return f"from the retriever's first, of {found.known} questions: " + ";\n  ".join(counts)


def verdict(found: Probe) -> str:
    """Whether selection is worth it, as a paragraph."""
    best, shipped = found.lines.get(BEST), found.lines[SHIPPED].over_first
    if best is None or best.over_first is None:
        holding = found.lines[HOLDING].over_first
        said = f" Reading a passage that holds an answer brings {span(holding)}." if holding and found.known else ""
        return "Is selection worth it? Not known: nothing was labelled, so there is no perfect selection." + said
    own = best.over_first
    if own.unsettled:
        tells = "it is not shown that choosing better would help"
        lines = [f"Is selection worth it? Not by these questions: perfect selection brings {span(own)}, and {tells}."]
    else:
        lines = [f"Is selection worth it? It can be: perfect selection brings {span(own)}."]
    if shipped and not shipped.unsettled:
        helps = "brings" if shipped.value > 0 else "costs"
        lines.append(f"The shipped selector {helps} {span(shipped)}, untrained.")
    elif shipped:
        lines.append(f"The shipped selector brings {span(shipped)}, untrained: not shown by so few questions.")
    lines.append(f"Labels: {_LEVELS[found.level or 'exact']}. Perfect selection knows the answers; nobody reaches it.")
    if found.pseudo is not None:
        lines.append(f"The pseudo-passage is the best candidate of {found.pseudo} of {found.questions} questions.")
    return "\n".join(lines)


def _next(found: Probe) -> str:
    steps = steps_of(found)
    return "\n".join(["What to do next", *(f"{n}. {step}" for n, step in enumerate(steps, 1))])


def steps_of(found: Probe) -> list[str]:
    """What to do next, what brings most first."""
    lines, steps = found.lines, list[str]()
    best, shipped = lines.get(BEST), lines[SHIPPED].over_first
    own = best.over_first if best else None
    nothing = lines[NOTHING].over_first
    if nothing and nothing.low > 0:
        steps.append(f"Look at the passages first: without any the model scores {span(nothing)} more.")
    lacking, unread = found.lacking, found.lost.get("reader", 0)
    if found.known and lacking >= max(found.lost.get("selection", 0), 1):
        more = _above(found, RETRIEVED, BEST if best else HOLDING)
        steps.append(
            f"Retrieve better: {lacking} of {found.known} questions have no candidate with an answer{more}. "
            "More passages (-k), or --retriever hybrid."
        )
    if own and not own.unsettled:
        if shipped and shipped.low > 0:
            steps.append(f"Use the shipped selector now: gainrag select --selector {PRIOR}, or serve.")
        time = f", {duration(found.seconds * SERVED)} at this speed" if found.seconds else ""
        steps.append(
            f"Label {SERVED} training questions{time}, and train ({FEW} or fewer seldom helped): "
            "gainrag synthesize, gainrag train."
        )
        if found.expected and found.needed:
            steps.append(
                f"Keep {how_many(found.needed)} other questions to test on: so many show {signed(found.expected)} "
                f"points (power 80%),\n   {REACHED:.0%} of perfect selection's, as trained selectors brought elsewhere."
            )
    elif own:
        steps.append("Do not train a selector yet: ask more questions (-n), or change what is retrieved.")
    if found.known and unread > max(lacking, found.lost.get("selection", 0)):
        steps.append(
            f"Try another model or prompt: {unread} of {found.known} answers are wrong although the passage holds one."
        )
    if best is None:
        steps.append("Run it again with labels (leave out --labels none) to see what selection could bring.")
    return steps


def _above(found: Probe, one: str, other: str) -> str:
    """How many points a system scores above another, as a half-sentence; nothing where it is not there."""
    if one not in found.lines or other not in found.lines:
        return ""
    value = found.lines[one].score.value - found.lines[other].score.value
    return f", which costs {signed(value).lstrip('+')} points with perfect selection"
