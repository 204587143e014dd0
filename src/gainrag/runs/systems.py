"""What each system of a run gives to the language model, and its answers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from gainrag import answering, selection
from gainrag.answering import Threshold
from gainrag.files.meta import digest, hashes, meta_path
from gainrag.files.streams import read, write
from gainrag.metrics import holds_answer
from gainrag.models.folder import resolve
from gainrag.models.identity import identity
from gainrag.records import Answer, GainRecord, Retrieved
from gainrag.runs.folder import Run
from gainrag.runs.names import (
    FIRST_WITH,
    GAINRAG,
    NO_PSEUDO,
    NO_RETRIEVAL,
    ORACLE,
    PSEUDO,
    file_name,
    seeded,
    unseeded,
)
from gainrag.runs.recorded import taught
from gainrag.selectors import CrossEncoderSelector, open_selector
from gainrag.selectors.boosted import is_feature_selector
from gainrag.selectors.fetching import selector_folder
from gainrag.settings import settings_of


def choose(
    run: Run,
    lists: Mapping[str, list[Retrieved]],
    candidates: Sequence[Retrieved],
    gains: Sequence[GainRecord],
    selectors: Mapping[str, Mapping[str, Path]],
    top: Sequence[int] = (),
) -> dict[str, list[Retrieved]]:
    """What each system gives to the language model, by the system's name; those that know the answers only with the
    test's gains.

    Args:
        lists: by retriever, what it found.
        selectors: by system and data set, the folder of the selector that ranks its questions; further seeds of a
            system are systems here.
        top: how many of a retriever's first passages make systems of their own, beside k of [select]: with as many as
            a selector's system reads there is always one to compare it with.
    """
    k = settings_of(selection.select, run.config.table("select"))["k"]
    teaching = taught(run.path("selector"))
    systems: dict[str, list[Retrieved]] = {NO_RETRIEVAL: [_with(r, []) for r in candidates]}
    for name, records in lists.items():
        systems |= {f"{name} top-{depth}": selection.cut(records, depth) for depth in sorted({k, *top})}
    pseudo = [_with(r, [c for c in r.ctxs if c.origin == "generated"]) for r in candidates]
    if any(record.ctxs for record in pseudo):
        systems[PSEUDO] = pseudo
    chosen: dict[str, list[Retrieved]] = {}
    for system, own in rankers(run, selectors).items():
        ranked = rank(run, system, own, candidates)
        name, seed = unseeded(system)
        if name == GAINRAG and PSEUDO in systems:
            alone = rank_without_pseudo(run, system, own, candidates)
            chosen[seeded(NO_PSEUDO, seed)] = selection.cut(alone or ranked, k, pseudo=False)
        chosen[system] = selection.cut(ranked, k)
    for system, records in chosen.items():
        write(run.path("selected", f"{file_name(system)}.jsonl"), records)
    systems |= chosen
    if gains:
        if answering.fixed_choices(candidates) is None:  # Yes and No stand in a passage by chance
            systems[FIRST_WITH] = [_first(r, [holds_answer(c, r.answers) for c in r.ctxs], k) for r in candidates]
        systems[ORACLE] = [
            _first(r, teaching.true_gains(g), k) for r, g in zip(candidates, gains, strict=True)
        ]
    return systems


def rankers(run: Run, selectors: Mapping[str, Mapping[str, Path]]) -> dict[str, Mapping[str, str | Path]]:
    """By system and data set, the selector that ranks its candidates: those of the config, and those trained."""
    ready: dict[str, Mapping[str, str | Path]] = {
        reranker.name: {dataset.name: reranker.model for dataset in run.config.datasets}
        for reranker in run.config.rerankers
    }
    return {**ready, **selectors}


def _first(record: Retrieved, scores: Sequence[float], k: int) -> Retrieved:
    """The k candidates of the highest scores."""
    return selection.cut([_with(record, selection.rescored(record.ctxs, scores, len(record.ctxs)))], k)[0]


def rank_without_pseudo(
    run: Run,
    system: str,
    selectors: Mapping[str, str | Path],
    candidates: Sequence[Retrieved],
    training: bool = False,
) -> list[Retrieved] | None:
    """The candidates as a GainRAG selector ranks them where there is no pseudo-passage; None where leaving it out
    changes no other score.

    Args:
        system: GainRAG, or a further seed of it.
        selectors, training: as of `rank`.
    """
    if not any(is_feature_selector(selector_folder(str(model))) for model in selectors.values()):
        return None
    left = [_with(r, [c for c in r.ctxs if c.origin != "generated"]) for r in candidates]
    return rank(run, seeded(NO_PSEUDO, unseeded(system)[1]), selectors, left, training)


def rank(
    run: Run,
    system: str,
    selectors: Mapping[str, str | Path],
    candidates: Sequence[Retrieved],
    training: bool = False,
) -> list[Retrieved]:
    """Every candidate scored by a selector: how good it is shows in what it did not choose, too.

    Args:
        selectors: by data set, the one that ranks its questions.
        training: whether these are some of the labelled questions, and not the test questions; see
            `gainrag.runs.thresholds`.
    """
    table = run.config.table("selector")
    artefact = run.path("scores", *(["train"] if training else []), f"{file_name(system)}.jsonl")
    used = {name: str(selectors[name]) for name in dict.fromkeys(str(r.extra["dataset"]) for r in candidates)}
    settings, source = settings_of(CrossEncoderSelector, table), "train.jsonl" if training else "test.jsonl"
    inputs = {"candidates": run.path("candidates", source)}
    if training:
        settings["ids"] = digest("\n".join(record.id for record in candidates))
    for name, model in used.items():
        role = "selector" if len(set(used.values())) == 1 else f"selector for {name}"
        if (folder := Path(resolve(model))).exists():
            inputs[role] = folder
        else:
            settings[role] = model
            settings["identity"] = {**settings.get("identity", {}), role: identity(model)}

    def make(_: dict[str, Any]) -> None:
        ranked: dict[str, Retrieved] = {}
        for model in dict.fromkeys(used.values()):
            own = [r for r in candidates if used[str(r.extra["dataset"])] == model]
            ranked |= {r.id: r for r in selection.rank(own, open_selector(model, **table))}
        write(artefact, [ranked[r.id] for r in candidates])

    run.stage(artefact, settings, inputs, make)
    return list(read(artefact, Retrieved))


def _with(record: Retrieved, passages: Sequence[Any]) -> Retrieved:
    return replace(record, ctxs=list(passages))


def answer_all(
    run: Run, systems: Mapping[str, Sequence[Retrieved]], thresholds: Mapping[str, Mapping[str, Threshold]]
) -> dict[str, list[Answer]]:
    """The answers of every system. Systems that chose the same passages share one answer: the model reads it once.

    What was asked and what was answered is kept in pools, answers/POOL.asked.jsonl and POOL.jsonl. What is asked for in
    a later run has a pool of its own (pool, pool.1, pool.2 ..), so that nothing is asked again.

    Args:
        systems: by name, what they read; a name K/SYSTEM goes to answers/K/SYSTEM.jsonl.
        thresholds: by data set and system, what a question with two choices is answered by: of one reading, systems
            may give several answers.
    """
    keys = dict.fromkeys(("dataset", run.config.group_by))
    unique: dict[str, Retrieved] = {}
    for records in systems.values():
        for r in records:
            # Several systems read another thing of one question: a number behind its id tells them apart.
            unique.setdefault(what_is_read(r), replace(r, id=f"{r.id}#{len(unique)}"))
    answered = _answer(run, unique)
    answers: dict[str, list[Answer]] = {}
    for system, records in systems.items():
        answers[system] = []
        for r in records:
            read_as = answered[what_is_read(r)]
            answer = Answer(
                id=r.id,
                question=r.question,
                answers=r.answers,
                choices=r.choices,
                prediction=read_as.prediction,
                ctxs=r.ctxs,
                gold_ranks=r.gold_ranks,
                extra={key: r.extra[key] for key in keys},
            )
            if read_as.choice_losses is not None:
                own = thresholds.get(str(r.extra["dataset"]), {}).get(system.rpartition("/")[2])
                answering.by_losses(answer, read_as.choice_losses, own)
            answers[system].append(answer)
        write(run.path("answers", f"{file_name(system)}.jsonl"), answers[system])
    return answers


def what_is_read(record: Retrieved) -> str:
    """A digest of all that a prompt is rendered from: the question's wording, its choices, and the passages' titles
    and texts in their order. How they are rendered, and by whom they are read, is in the settings of a pool."""
    parts: tuple[Any, ...] = (record.question, [(ctx.title, ctx.text) for ctx in record.ctxs])
    if record.choices is not None:  # not a part where there are none, so that earlier runs know their answers again
        parts = (*parts, record.choices)
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()


def _answer(run: Run, unique: Mapping[str, Retrieved]) -> dict[str, Answer]:
    """The answers by what is read: those in the pools that are current, and of what is in none of them a new pool's."""
    table = run.config.table("answer")
    settings = run.prompted(answering.answer, table)
    found: dict[str, Answer] = {}
    for asked in sorted(run.path("answers").glob("*.asked.jsonl")):
        answered = asked.with_name(asked.name.replace(".asked", ""))
        if run.reuses(answered, settings, hashes({"asked": asked})):
            found = _read_pool(asked, answered) | found
    missing = [record for key, record in unique.items() if key not in found]
    if missing:
        pool = _next_pool(run.path("answers"))
        asked = pool.with_suffix(".asked.jsonl")
        write(asked, missing)

        def make(memory: dict[str, Any]) -> None:
            run.ask(answering.answer, missing, pool, memory, table, answering.CHUNK)

        run.stage(pool, settings, {"asked": asked}, make)
        found |= _read_pool(asked, pool)
    return found


def _next_pool(folder: Path) -> Path:
    """The first pool that is not finished: one that was stopped, or a new one. Those of other settings stay: a config
    that is changed back finds its answers again."""
    pools = (folder / (f"pool.{n}.jsonl" if n else "pool.jsonl") for n in count())
    return next(pool for pool in pools if not (pool.exists() and meta_path(pool).exists()))


def _read_pool(asked: Path, answered: Path) -> dict[str, Answer]:
    """What a pool answers, by what is read."""
    records = zip(read(asked, Retrieved), read(answered, Answer), strict=True)
    return {what_is_read(record): answer for record, answer in records}
