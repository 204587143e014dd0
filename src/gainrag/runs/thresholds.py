"""Of data sets with two fixed choices, such as Yes and No: by system, the threshold that its margins are compared with.

A threshold is set on labelled training questions with the passage that the system would give to the language model
first. The losses of the choices with every candidate are in the labels, so that the language model is not asked again;
the cross-encoders rank the candidates of these questions (scores/train/). A system that reads several passages has the
threshold of its first one. Nothing of the test questions is used.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from gainrag import answering, selection, synthesis
from gainrag.answering import Threshold
from gainrag.files.progress import say
from gainrag.files.streams import write_json
from gainrag.metrics import holds_answer
from gainrag.records import Gained, GainRecord, Retrieved
from gainrag.runs import systems
from gainrag.runs.folder import Run
from gainrag.runs.names import FIRST_WITH, GAINRAG, NO_PSEUDO, NO_RETRIEVAL, ORACLE, PSEUDO, seeded, unseeded
from gainrag.runs.questions import by_dataset
from gainrag.runs.recorded import taught

# By data set and system.
Thresholds = dict[str, dict[str, Threshold]]

# Labelled questions of a data set that set its thresholds: so many give a median to a few hundredths of the margins'
# spread, and ranking their candidates costs little beside the training.
ENOUGH = 400


def calibrate_all(
    run: Run,
    candidates: Sequence[Retrieved],
    labelled: Sequence[GainRecord],
    names: Iterable[str],
    rankers: Mapping[str, Mapping[str, str | Path]],
) -> Thresholds:
    """The thresholds of every system in every data set whose training questions have the same two choices.

    Args:
        candidates: of the run's labelled training questions.
        labelled: the same with their labels.
        names: the systems.
        rankers: by system and data set, the cross-encoder that ranks its candidates, where one does.
    """
    fixed = {
        name: records[:ENOUGH]
        for name, records in by_dataset(labelled).items()
        if answering.fixed_choices(records) and all(record.choice_losses_without for record in records)
    }
    if not fixed:
        return {}
    asked = [record for records in fixed.values() for record in records]
    by_id = {record.id: record for record in candidates}
    plain = [by_id[record.id] for record in asked]
    found: Thresholds = {name: {} for name in fixed}
    for system in names:
        chosen = dict(zip((r.id for r in asked), _read_first(run, system, asked, plain, rankers), strict=True))
        for name, records in fixed.items():
            losses = [_losses(record, chosen[record.id]) for record in records]
            known = [(r, own) for r, own in zip(records, losses, strict=True) if own is not None]
            if known and (threshold := answering.calibrate([r for r, _ in known], [own for _, own in known])):
                found[name][system] = threshold
    write_json(run.path("thresholds.json"), msgspec.to_builtins(found))
    for name, records in fixed.items():
        two = " and ".join(found[name][NO_RETRIEVAL].choices)
        say(f"{name}: thresholds for {two} set on {len(records)} training questions, in thresholds.json")
    return found


def _read_first(
    run: Run,
    system: str,
    records: Sequence[GainRecord],
    plain: Sequence[Retrieved],
    rankers: Mapping[str, Mapping[str, str | Path]],
) -> list[Gained | None]:
    """The passage that a system gives to the language model first, of each question; None of a system without."""
    if system == NO_RETRIEVAL:
        return [None] * len(records)
    if system == PSEUDO:
        return [next((c for c in r.ctxs if c.origin == "generated"), None) for r in records]
    name, seed = unseeded(system)
    ranker = seeded(GAINRAG, seed) if name == NO_PSEUDO else system
    if ranker in rankers:
        own = rankers[ranker]
        alone = systems.rank_without_pseudo(run, ranker, own, plain, training=True) if name == NO_PSEUDO else None
        ranked = alone or systems.rank(run, ranker, own, plain, training=True)
        scores = [{c.id: c.score or 0.0 for c in r.ctxs} for r in ranked]
        low = float("-inf")  # of a pseudo-passage that was not ranked
        return [_best(r, [got.get(c.id, low) for c in r.ctxs], system) for r, got in zip(records, scores, strict=True)]
    if system == FIRST_WITH:
        return [_best(r, [float(holds_answer(c, r.answers)) for c in r.ctxs], system) for r in records]
    if system == ORACLE:
        teaching = taught(run.path("selector"))
        return [_best(r, teaching.true_gains(r), system) for r in records]
    retriever = system.rpartition(" top-")[0]
    return [_best(r, _retrieved(r, retriever), system) for r in records]


def _retrieved(record: GainRecord, retriever: str) -> list[float]:
    """A score of each candidate by a retriever: a part of a hybrid one has its own, of the whole one the order says."""
    parts = [(c.scores or {}).get(retriever) for c in record.ctxs]
    if any(score is not None for score in parts):
        return [float("-inf") if score is None else score for score in parts]
    return [-float(rank) for rank in range(len(record.ctxs))]


def _best(record: GainRecord, scores: Sequence[float], system: str) -> Gained:
    """The candidate of the highest score, without the pseudo-passage where the system has none."""
    without = unseeded(system)[0] == NO_PSEUDO or " top-" in system
    eligible = [i for i, c in enumerate(record.ctxs) if not (without and c.origin == "generated")]
    return record.ctxs[eligible[selection.top([scores[i] for i in eligible], 1)[0]]]


def _losses(record: GainRecord, passage: Gained | None) -> Any:
    """The plain loss of each choice with a passage, or without one."""
    return record.choice_losses_without if passage is None else synthesis.choice_losses_of(record, passage, 0.0)
