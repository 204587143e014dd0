"""What each system of METHOD section 6 gives to the language model, and its answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from gainrag import answering, selection, synthesis
from gainrag.runs import tuning
from gainrag.files.meta import hashes
from gainrag.runs.config import Config
from gainrag.settings import settings_of
from gainrag.models.folder import resolve
from gainrag.metrics import holds_answer
from gainrag.files.streams import read, write
from gainrag.records import Answer, GainRecord, Retrieved
from gainrag.runs.folder import Run
from gainrag.selectors import CrossEncoderSelector

NO_RETRIEVAL, PSEUDO, RELEVANCE = "no retrieval", "pseudo-passage alone", "relevance selector"
GAINRAG, NO_PSEUDO = "GainRAG", "GainRAG without pseudo-passage"
# Two that know the gold answers. What lies between the retrievers and the first is to be had by telling which passages
# hold an answer; what lies between the two, by knowing what the language model makes of them.
FIRST_WITH, ORACLE = "first with an answer", "oracle"
# Beside them the retrievers', which end in top-K.
BUILT_IN = (NO_RETRIEVAL, PSEUDO, RELEVANCE, GAINRAG, NO_PSEUDO, FIRST_WITH, ORACLE)


# What the language model reads, and its question.
Reading = tuple[str, ...]


def choose(
    state: Run,
    lists: Mapping[str, list[Retrieved]],
    candidates: Sequence[Retrieved],
    gains: Sequence[GainRecord],
    selectors: Mapping[str, Mapping[str, Path]],
    top: Sequence[int] = (),
) -> dict[str, list[Retrieved]]:
    """What each system gives to the language model, by the system's name; those that know the answers only with the
    test's gains.

    Args:
        lists: by retriever, what it found; "test" are the candidates before the pseudo-passage.
        selectors: by system and data set, the folder of the selector that ranks its questions.
        top: how many of a retriever's first passages make systems of their own, beside k of [select]: with as many as
            a selector's system reads there is always one to compare it with.
    """
    k = settings_of(selection.select, state.config.table("select"))["k"]
    alpha = tuning.taught(state.config.table("train"), state.path("selector"))["alpha"]
    systems: dict[str, list[Retrieved]] = {NO_RETRIEVAL: [_with(r, []) for r in candidates]}
    for name, records in lists.items():
        if name != "test":
            systems |= {f"{name} top-{depth}": selection.cut(records, depth) for depth in sorted({k, *top})}
    systems[PSEUDO] = [_with(r, [c for c in r.ctxs if c.origin == "generated"]) for r in candidates]
    ready: dict[str, Mapping[str, str | Path]] = {
        reranker.name: {dataset.name: reranker.model for dataset in state.config.datasets}
        for reranker in state.config.rerankers
    }
    chosen: dict[str, list[Retrieved]] = {}
    for system, own in {**ready, **selectors}.items():
        ranked = _rank(state, system, own, candidates)
        if system == GAINRAG:
            # A score is of a pair and its retrieval rank alone: leaving the pseudo-passage out changes no other score.
            chosen[NO_PSEUDO] = selection.cut(ranked, k, pseudo=False)
        chosen[system] = selection.cut(ranked, k)
    for system, records in chosen.items():
        write(state.path("selected", f"{file_name(system)}.jsonl"), records)
    systems |= chosen
    if gains:
        systems[FIRST_WITH] = [
            _with(r, selection.rescored(r.ctxs, [holds_answer(c, r.answers) for c in r.ctxs], k)) for r in candidates
        ]
        systems[ORACLE] = [
            _with(r, selection.rescored(r.ctxs, synthesis.gains_at(g, alpha), k))
            for r, g in zip(candidates, gains, strict=True)
        ]
    return systems


def _rank(
    state: Run, system: str, selectors: Mapping[str, str | Path], candidates: Sequence[Retrieved]
) -> list[Retrieved]:
    """Every candidate scored by a selector: how good it is shows in what it did not choose, too.

    Args:
        selectors: by data set, the one that ranks its questions.
    """
    table = state.config.table("selector")
    artefact = state.path("scores", f"{file_name(system)}.jsonl")
    used = {name: str(selectors[name]) for name in dict.fromkeys(str(r.extra["dataset"]) for r in candidates)}
    settings, inputs = settings_of(CrossEncoderSelector, table), {"candidates": state.path("candidates", "test.jsonl")}
    for name, model in used.items():
        role = "selector" if len(set(used.values())) == 1 else f"selector for {name}"
        if (folder := Path(resolve(model))).exists():
            inputs[role] = folder
        else:
            settings[role] = model

    def make(_: dict[str, Any]) -> None:
        ranked: dict[str, Retrieved] = {}
        for model in dict.fromkeys(used.values()):
            own = [r for r in candidates if used[str(r.extra["dataset"])] == model]
            ranked |= {r.id: r for r in selection.rank(own, CrossEncoderSelector(model, **table))}
        write(artefact, [ranked[r.id] for r in candidates])

    state.stage(artefact, settings, inputs, make)
    return list(read(artefact, Retrieved))


def group_by(config: Config) -> str:
    """The key of the questions that a run's evaluation groups them by."""
    return str(config.table("evaluate").get("group_by", "dataset"))


def file_name(system: str) -> str:
    """A system's name as a file name."""
    return "_".join(system.lower().replace("-", " ").split())


def _with(record: Retrieved, passages: Sequence[Any]) -> Retrieved:
    return replace(record, ctxs=list(passages))


def answer_all(
    state: Run, systems: Mapping[str, Sequence[Retrieved]], answered: dict[Reading, str], pool: str = "pool"
) -> dict[str, list[Answer]]:
    """The answers of every system. Systems that chose the same passages share one answer: the model reads it once.

    Args:
        systems: by name, what they read; a name K/SYSTEM goes to answers/K/SYSTEM.jsonl.
        answered: what was answered before, by what was read; what is answered now is added to it.
        pool: the file of what is answered now. What is asked for in a later call, or added to a finished run, has a
            file of its own (POOL.1, POOL.2 ..), so that the earlier is not asked again.
    """
    keys = dict.fromkeys(("dataset", group_by(state.config)))
    unique: dict[Reading, Retrieved] = {}
    for records in systems.values():
        for r in records:
            if (key := _reading(r)) not in answered:
                unique.setdefault(key, replace(r, id=f"{r.id}#{len(unique)}"))
    answered |= _answer_new(state, unique, pool)
    answers: dict[str, list[Answer]] = {}
    for system, records in systems.items():
        answers[system] = [
            Answer(
                id=r.id,
                question=r.question,
                answers=r.answers,
                choices=r.choices,
                prediction=answered[_reading(r)],
                ctxs=r.ctxs,
                extra={key: r.extra[key] for key in keys},
            )
            for r in records
        ]
        write(state.path("answers", f"{file_name(system)}.jsonl"), answers[system])
    return answers


def _answer_new(state: Run, unique: Mapping[Reading, Retrieved], name: str) -> dict[Reading, str]:
    """The answers in the pools that are current, and of what is in none of them, in a further pool."""
    table = state.config.table("answer")
    settings = state.prompted(answering.answer, table)
    found: dict[Reading, str] = {}
    for n in count():
        pool = state.path("answers", f"{name}.{n}.jsonl" if n else f"{name}.jsonl")
        asked = pool.with_suffix(".asked.jsonl")
        if not (asked.exists() and state.reuses(pool, settings, hashes({"asked": asked}))):
            break
        found |= _read_pool(asked, pool)
    missing = [record for key, record in unique.items() if key not in found]

    def make(memory: dict[str, Any]) -> None:
        answering.answer(missing, state.lm(), pool, memory, **table)

    if missing:
        write(asked, missing)
        state.stage(pool, settings, {"asked": asked}, make)
        found |= _read_pool(asked, pool)
    return found


def _read_pool(asked: Path, pool: Path) -> dict[Reading, str]:
    """What a pool answers, by what was read."""
    records = zip(read(asked, Retrieved), read(pool, Answer), strict=True)
    # There an id has a number behind it, as a question is asked several times.
    return {_reading(replace(r, id=r.id.rpartition("#")[0])): answer.prediction for r, answer in records}


def _reading(record: Retrieved) -> Reading:
    """What the language model reads of a record, with its question."""
    return (record.id, record.question, *(part for ctx in record.ctxs for part in (ctx.id, ctx.text)))
