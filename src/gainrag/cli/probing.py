"""What `gainrag probe` shows: the figures, whether selection is worth it, and what to do next, on one screen."""

from __future__ import annotations

import textwrap

from gainrag.evaluation.lost import PARTS
from gainrag.probing import BEST, FIRST, HOLDING, NOTHING, REACHED, RETRIEVED, SHIPPED, Probe, Span, duration
from gainrag.runs.printing import aligned, how_many, percent, signed
from gainrag.selectors import PRIOR
from gainrag.statistics import deviation, questions_needed
from gainrag.training.distillation import FEW, SERVED

# Columns of a line of text, and more questions than anyone asks in a probe.
_WIDTH, _MANY = 100, 2000
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


def _filled(text: str, indent: str = "") -> str:
    return textwrap.fill(text, _WIDTH, subsequent_indent=indent, break_on_hyphens=False)


def _head(found: Probe) -> str:
    lines = [
        f"{found.questions} of {found.of:,} questions, {found.candidates:.4g} candidates each; percent, with 95% "
        "bootstrap intervals"
    ]
    if found.recall:
        shown = [f"{percent(recall)} in the first{'' if k == '1' else f' {k}'}" for k, recall in found.recall.items()]
        lines.append(f"questions with an answer among the retriever's passages: {', '.join(shown)}")
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
    return _filled(f"From the retriever's first, of {found.known} questions: {'; '.join(counts)}.")


def verdict(found: Probe) -> str:
    """Whether selection is worth it, a line a sentence."""
    best, shipped = found.lines.get(BEST), found.lines[SHIPPED].over_first
    own = best.over_first if best else None
    lines = []
    if own is None:
        lines.append("Is selection worth it? Not known: nothing was labelled, so there is no perfect selection.")
    elif own.unsettled:
        needed = _to_show(own, found.questions)
        more = f"; {how_many(needed)} questions would show as much" if needed else ""
        brings = f"perfect selection brings {span(own)} points, which includes 0{more}"
        lines.append(f"Is selection worth it? Not shown: {brings}.")
    else:
        lines.append(f"Is selection worth it? It can be: perfect selection brings {span(own)} points.")
    if found.expected is not None and found.expected > 0 and found.needed:
        lines.append(
            f"A trained selector brought {REACHED:.0%} of that elsewhere, which is {signed(found.expected)} here: "
            f"{how_many(found.needed)} labelled test questions would show it (power 80%)."
        )
    if shipped:
        end = ", which includes 0" if shipped.unsettled else ""
        lines.append(f"The shipped selector, which is not trained on this, brings {span(shipped)}{end}.")
    if found.level:
        lines.append(f"Labels: {_LEVELS[found.level]}. Perfect selection knows the answers: no selector reaches it.")
    if found.pseudo is not None:
        lines.append(f"The pseudo-passage is the best candidate of {found.pseudo} of {found.questions} questions.")
    return "\n".join(_filled(line, "  ") for line in lines)


def _to_show(difference: Span, questions: int) -> int | None:
    """How many questions it takes to show a difference as large as it seems; None of none above 0."""
    own = deviation(difference.low, difference.high, questions)
    return questions_needed(difference.value, own) if difference.value > 0 else None


def _next(found: Probe) -> str:
    steps = [_filled(f"{n}. {step}", "   ") for n, step in enumerate(steps_of(found), 1)]
    return "\n".join(["What to do next", *steps])


def steps_of(found: Probe) -> list[str]:
    """What to do next."""
    lines, steps = found.lines, list[str]()
    best, shipped, nothing = lines.get(BEST), lines[SHIPPED].over_first, lines[NOTHING].over_first
    own = best.over_first if best else None
    lacking, unread, missed = found.lacking, found.lost.get("reader", 0), found.lost.get("selection", 0)
    if nothing and nothing.low > 0:
        steps.append(f"Look at the passages first: without any, the model scores {span(nothing)} points more.")
    if lacking > missed:
        more = _above(found, RETRIEVED, BEST if best else HOLDING)
        steps.append(
            f"Retrieve better: {lacking} of {found.known} questions have no candidate with an answer{more}. Take more "
            "passages (-k), or --retriever hybrid."
        )
    if unread > max(lacking, missed):
        steps.append(
            f"Try another model or prompt: {unread} of {found.known} answers are wrong although the passage holds one."
        )
    if own is None:
        steps.append("Probe with labels (without --labels none): they show what selection could bring.")
    elif own.unsettled:
        needed = _to_show(own, found.questions)
        ask = f"ask {how_many(needed)} questions (-n {needed})" if needed and needed <= _MANY else "ask more questions"
        steps.append(f"Do not train a selector yet: {ask}, or change what is retrieved, and probe again.")
    else:
        if shipped and shipped.low > 0:
            steps.append(f"Use the shipped selector now: gainrag select --selector {PRIOR}, or gainrag serve.")
        time = f" ({duration(found.seconds * SERVED)} at this speed)" if found.seconds else ""
        steps.append(
            f"Label {SERVED} training questions{time} and train: gainrag synthesize, gainrag train. "
            f"{FEW} or fewer seldom helped."
        )
    return steps


def _above(found: Probe, one: str, other: str) -> str:
    """How many points a system scores above another, as a half-sentence; nothing where it is not there."""
    if one not in found.lines or other not in found.lines:
        return ""
    value = found.lines[one].score.value - found.lines[other].score.value
    return f", which costs {percent(value)} points"
