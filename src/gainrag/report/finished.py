"""A finished run folder, read: its evaluation, and every test question with all the run knows of it.

What may be lacking (a run of an earlier version, a sweep that was not made) is named in `absent` with the reason; what
must be there and is not, or does not fit the rest, is an error.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from gainrag import selection, synthesis
from gainrag.errors import DataError
from gainrag.evaluation import Evaluation, score_questions
from gainrag.files.streams import file_hash, read, read_json, read_lines
from gainrag.records import Answer, Gained, GainRecord, Retrieved
from gainrag.report.cases import Case, Seed, same
from gainrag.runs.config import Config, Options, read_config
from gainrag.runs.names import GAINRAG, NO_PSEUDO, ORACLE, by_seed, file_name, seeded, unseeded
from gainrag.runs.recorded import Meta, Taught, as_type, read_meta, taught
from gainrag.settings import check_settings, parameters, settings_of

_HINT = "finish it with `gainrag run CONFIG.toml -o FOLDER`"
_AGAIN = "run it again; what is not current is made again"
R = TypeVar("R", GainRecord, Retrieved, Answer)


class _Alpha(msgspec.Struct):
    auc: float
    pick: float


class _Diagnosis(msgspec.Struct):
    """What the report shows of diagnosis.json."""

    sample: int
    by_alpha: dict[str, _Alpha]


@dataclass(frozen=True)
class Finished:
    """What a run folder holds.

    labels, level: what the labels and the test questions' gains are: exact, bounded, gold or sampled; the latter None
        where the run measured none.
    agreement: how far a proxy's labels agree with the answering model's own, where there is a proxy.
    labelled: how many labelled questions the selector was trained on; None where the run's labels are not there.
    k: how many passages GainRAG reads.
    alpha: of the true gains, and of those the selector was trained on.
    temperature: of the teacher it was trained on.
    sweep: by K, by system, its answers from K passages to the same questions, all or some of the run's; from
        answers/K/SYSTEM.jsonl.
    metas: by artefact, its meta file.
    options: the settings of the run itself, flags and all.
    card: facts of the selector's model card.
    absent: by name, why a part of the report cannot be made.
    """

    name: str
    config: Config
    evaluation: Evaluation
    cases: list[Case]
    k: int
    alpha: float
    temperature: float
    sweep: dict[int, dict[str, list[Answer]]] = field(default_factory=dict)
    metas: dict[str, Meta] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    card: dict[str, str] = field(default_factory=dict)
    labelled: int | None = None
    diagnosis: dict[str, Any] | None = None
    agreement: dict[str, Any] | None = None
    labels: str = "exact"
    level: str | None = None
    absent: dict[str, str] = field(default_factory=dict)


def read_run(folder: str | Path) -> Finished:
    """Read a run folder.

    Raises:
        DataError: it is no finished run, or its files are damaged or not of one run.
        ConfigError: its config has values that no stage could have been run with.
    """
    folder = Path(folder)
    _check_there(folder, "config.toml", "evaluation.json", "selector.meta.json", "answers/")
    config = read_config(folder / "config.toml", None)
    train = taught(folder / "selector")
    evaluation = Evaluation.from_json(read_json(folder / "evaluation.json"), str(folder / "evaluation.json"))
    # Further seeds of a system are systems of their own until the cases are made.
    every = [seeded(name, n) for name, own in evaluation.overall.systems.items() for n in range(own.runs)]
    names = {file_name(name): name for name in every}
    answers = {name: _by_id(folder / "answers" / f"{file}.jsonl", Answer) for file, name in names.items()}
    metas = _metas(folder)
    for name, recorded in metas.get("evaluation", Meta()).inputs.items():
        path = folder / "answers" / f"{file_name(name)}.jsonl"
        if path.exists() and file_hash(path) != recorded:
            raise DataError("is not what was evaluated", where=str(path), hint=_AGAIN)
    absent: dict[str, str] = {}
    alphas = synthesis.as_alphas(_settings(config, "synthesize", synthesis.synthesize)["alpha"])
    # The oracle is a system of every run that measured them.
    measured = ORACLE in names.values()
    _check_there(folder, source := f"{'gains' if measured else 'candidates'}/test.jsonl")
    records: list[GainRecord] | list[Retrieved]
    if measured:
        records = list(_by_id(folder / source, GainRecord).values())
    else:
        records = list(_by_id(folder / source, Retrieved).values())
        absent["gains"] = "the run did not measure the test candidates' gains (oracle = false)"
    scored = {
        name: _by_id(path, Retrieved)
        for file, name in names.items()
        # Where there is a file of this one, its candidates lack the pseudo-passage.
        if unseeded(name)[0] != NO_PSEUDO and (path := folder / "scores" / f"{file}.jsonl").exists()
    }
    if "gains" in absent:
        absent["selector"] = absent["gains"]
    elif GAINRAG not in scored:
        absent["selector"] = "the run has no scores/ of all candidates; run it again with this version"
    level = synthesis.level_of((r for r in records if isinstance(r, GainRecord)), str(folder / source))
    agreement = folder / "gains" / "agreement.json"
    cases = _cases(records, source, answers, scored, train, str(folder))
    _check_evaluation(evaluation, cases, str(folder))
    sweep = _read_sweep(folder / "answers", names, answers, scored)
    if not sweep:
        absent["k_sweep"] = "the run has no answers from other numbers of passages (answers/K/SYSTEM.jsonl)"
    labels = folder / "gains" / "train.jsonl"
    diagnosis = _diagnosis(folder / "diagnosis.json")
    if diagnosis is None:
        none = _settings(config, "run", Options)["diagnose"] == 0
        if _settings(config, "synthesize", synthesis.synthesize)["labels"] == "sampled":
            absent["diagnosis"] = "the labels are sampled, and have no alphas to compare"
        else:
            absent["diagnosis"] = "the run compared no alphas (diagnose = 0)" if none else "diagnosis.json is not there"
    card = folder / "selector" / "README.md"
    if not card.exists():
        absent["selector_card"] = "selector/README.md is not there"
    made = metas.get("evaluation", Meta()).settings
    return Finished(
        name=folder.resolve().name,
        config=config,
        evaluation=evaluation,
        cases=cases,
        k=_settings(config, "select", selection.select)["k"],
        alpha=float(alphas[0] if train.alpha is None else train.alpha),
        temperature=train.temperature,
        sweep=sweep,
        metas=metas,
        options=as_type(made.get("run", {}), dict[str, Any], folder / "evaluation.meta.json"),
        card=_card(card),
        labelled=sum(1 for _ in read_lines(labels)) if labels.exists() else None,
        diagnosis=diagnosis,
        agreement=as_type(read_json(agreement), dict[str, Any], agreement) if agreement.exists() else None,
        labels=str((metas.get("gains/train", Meta()).summary or {}).get("level", "exact")),
        level=level,
        absent=absent,
    )


def _settings(config: Config, table: str, stage: Callable[..., Any]) -> dict[str, Any]:
    """The settings of a stage as its table has them, checked."""
    check_settings(config.table(table), parameters(stage), where=f"config.toml [{table}]")
    return settings_of(stage, config.table(table))


def _by_id(path: Path, kind: type[R]) -> dict[str, R]:
    """The records of a file by their ids, which the reader has seen to be different."""
    return {record.id: record for record in read(path, kind)}


def _diagnosis(path: Path) -> dict[str, Any] | None:
    """The comparison of alphas; None where there is none."""
    if not path.exists():
        return None
    found = as_type(read_json(path).get("diagnosis"), dict[str, Any], path)
    as_type(found, _Diagnosis, path)
    return found


def _check_there(folder: Path, *names: str) -> None:
    for name in names:
        there = (folder / name).is_dir() if name.endswith("/") else (folder / name).exists()
        if not there:
            raise DataError(f"is no finished run: {name} is not there", where=str(folder), hint=_HINT)


def _cases(
    asked: Sequence[GainRecord | Retrieved],
    source: str,
    answers: Mapping[str, Mapping[str, Answer]],
    scored: Mapping[str, Mapping[str, Retrieved]],
    train: Taught,
    where: str,
) -> list[Case]:
    ids = {record.id for record in asked}
    for kind, by_system in (("answers", answers), ("scores", scored)):
        for system, records in by_system.items():
            if other := ids ^ records.keys():
                raise DataError(
                    f"{kind} of {system!r} and {source} are not of the same questions ({min(other)!r})",
                    where=where,
                    hint=_AGAIN,
                )
    for record in asked:
        if not record.ctxs:
            raise DataError(f"question {record.id} has no candidates", where=f"{where}/{source}", hint=_AGAIN)
        for system, by_id in answers.items():
            if by_id[record.id].question != record.question:
                raise DataError(
                    f"question {record.id} of {system!r} is not that of {source}", where=where, hint=_AGAIN
                )
    scores: dict[str, dict[str, dict[str, Any]]] = {}
    for row in score_questions({system: list(records.values()) for system, records in answers.items()}):
        scores.setdefault(row["id"], {})[row["system"]] = row
    firsts = by_seed(answers)[0]
    cases = []
    for record in asked:
        ranked = {system: _scores(record, records[record.id], where) for system, records in scored.items()}
        said = {system: records[record.id] for system, records in answers.items()}
        seeds = {name: Seed(said[name], scores[record.id][name], ranked.get(name, [])) for name in answers}
        cases.append(
            Case(
                id=record.id,
                question=record.question,
                answers=record.answers,
                dataset=str(record.extra.get("dataset", "questions")),
                candidates=_at(record, train) if isinstance(record, GainRecord) else record.ctxs,
                answered={name: said[name] for name in firsts},
                scores={name: scores[record.id][name] for name in firsts},
                scored={name: own for name, own in ranked.items() if name in firsts},
                extra=record.extra,
                further=by_seed(seeds)[1],
            )
        )
    return cases


def _at(record: GainRecord, train: Taught) -> list[Gained]:
    """The candidates of a record with their gains as the selector was taught them."""
    gains = train.true_gains(record)
    return [msgspec.structs.replace(ctx, gain=gain) for ctx, gain in zip(record.ctxs, gains, strict=True)]


def _scores(record: GainRecord | Retrieved, ranked: Retrieved, where: str) -> list[float]:
    """A selector's scores in the order of a record's candidates."""
    found = []
    for ctx in record.ctxs:
        score = next((c.score for c in ranked.ctxs if same(c, ctx)), None)
        if score is None:
            raise DataError(
                f"question {record.id}: candidate {ctx.id!r} has no selector score",
                where=where,
                hint=_AGAIN,
            )
        found.append(score)
    return found


def _check_evaluation(evaluation: Evaluation, cases: Sequence[Case], where: str) -> None:
    """Whether evaluation.json is of these answers: two sources for one number must not disagree."""
    for system, scores in evaluation.overall.systems.items():
        mean = sum(case.mean(system) for case in cases) / len(cases)
        if evaluation.overall.n != len(cases) or abs(mean - scores.metrics["mean"].value) > 1e-6:
            raise DataError(
                f"evaluation.json is not of the answers of {system!r}", where=where, hint="run it again to renew it"
            )


def _read_sweep(
    folder: Path,
    names: Mapping[str, str],
    own: Mapping[str, Mapping[str, Answer]],
    scored: Mapping[str, Mapping[str, Retrieved]],
) -> dict[int, dict[str, list[Answer]]]:
    """Answers by K and system, all to the same questions; the run's own K is added from its own answers, for the
    systems that are swept."""
    found: dict[int, dict[str, list[Answer]]] = {}
    ids: set[str] = set()
    for part in sorted(folder.iterdir()):
        if not (part.is_dir() and re.fullmatch(r"[1-9]\d*", part.name)):
            continue
        for path in sorted(part.glob("*.jsonl")):
            system = names.get(path.stem, path.stem)
            answers = list(read(path, Answer))
            ids = ids or {a.id for a in answers}
            if other := (ids ^ {a.id for a in answers}) | (ids - next(iter(own.values())).keys()):
                raise DataError(
                    f"not the questions of the run, or of the other K ({min(other)!r})",
                    where=str(path),
                    hint="answer the same questions for every K",
                )
            if wrong := [a for a in answers if len(a.ctxs) != int(part.name)]:
                raise DataError(
                    f"question {wrong[0].id}: answered from {len(wrong[0].ctxs)} passages, not {part.name}",
                    where=str(path),
                    hint="a folder answers/K holds answers from K passages",
                )
            if wrong := [a for a in answers if system in scored and not _are_first(a, scored[system][a.id])]:
                raise DataError(
                    f"question {wrong[0].id}: not answered from the first passages of scores/{path.name}",
                    where=str(path),
                    hint="remove it, or answer again; a selector trained anew chooses anew",
                )
            found.setdefault(int(part.name), {})[system] = answers
    swept = {system for by_system in found.values() for system in by_system}
    for system in (name for name in own if name in swept):
        answers = [answer for answer in own[system].values() if answer.id in ids]
        found.setdefault(len(answers[0].ctxs), {}).setdefault(system, answers)
    return found


def _are_first(answer: Answer, ranked: Retrieved) -> bool:
    """Whether an answer's passages are the first of a ranking."""
    return all(map(same, answer.ctxs, ranked.ctxs))


def _metas(folder: Path) -> dict[str, Meta]:
    """Every meta file of the run by its artefact, in the order of the stages."""
    order = ["questions", "index", "retrieved", "candidates", "gains", "warm_start", "warm_starts"]
    order += ["relevance", "selector", "variants", "scores"]
    paths = [path for depth in ("*", "*/*", "variants/*/*") for path in folder.glob(f"{depth}.meta.json")]
    names = {str(path.relative_to(folder)).removesuffix(".meta.json"): path for path in paths}

    def place(name: str) -> tuple[int, str]:
        stage = unseeded(name.split("/")[0])[0]
        return (order.index(stage) if stage in order else len(order), name)

    return {name: read_meta(names[name]) for name in sorted(names, key=place) if not name.startswith("selected/")}


def _card(path: Path) -> dict[str, str]:
    """The facts of a model card: the rows of its only table."""
    if not path.exists():
        return {}
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise DataError(f"cannot be read ({reason})", where=str(path), hint="remove it, or train again") from None
    rows = re.findall(r"^\| (.+?) \| (.*?) \|$", text, flags=re.MULTILINE)
    # A base inside the run folder is known by its name there: where the folder lay says nothing.
    return {fact: re.sub(r".*/(?=warm_start$)", "", value) for fact, value in rows if fact != "fact"}
