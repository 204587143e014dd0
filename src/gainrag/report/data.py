"""A finished run -> report.json: all numbers of the report, as plain data. Page and text only render what is here.

| key         | what                                                                                               |
|-------------|----------------------------------------------------------------------------------------------------|
| `run`       | the run folder's name                                                                              |
| `roles`     | which systems are `gainrag`, `baseline`, `without_pseudo`, `first_with`, `oracle`                  |
| `evaluation`| evaluation.json as it is                                                                           |
| `analyses`  | what report.analysis, agreement and variants found, by data set where there are several            |
| `absent`    | parts that cannot be made, with the reason                                                         |
| `questions` | every test question: candidates with gains and selector scores, each system's answer, what it read |
| `levels`    | of the labels, and of the test questions' gains; `agreement` of a proxy's labels with the reader's |
| `settings`  | of each artefact; `versions`, `config`, `commands`, `selector_card`, `diagnosis`                   |
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from gainrag import __version__
from gainrag.errors import ConfigError, unknown
from gainrag.files.meta import as_json
from gainrag.metrics import holds_answer
from gainrag.records import Passage
from gainrag.report import agreement, analysis, lost, variants
from gainrag.report.cases import Case, Plain, by_dataset, same
from gainrag.report.finished import Finished
from gainrag.runs.config import Options
from gainrag.runs.names import FIRST_WITH, GAINRAG, NO_PSEUDO, ORACLE
from gainrag.runs.recorded import Meta
from gainrag.settings import settings_of

# How much of a passage is shown.
EXCERPT = 300
# How many of the largest wins and losses are shown.
EXTREMES = 20


def build(run: Finished, baseline: str | None, passages: bool, group_by: Sequence[str]) -> Plain:
    """All of report.json.

    Args:
        baseline: what GainRAG is compared with; the retriever whose candidates it chooses from where None.
        passages: whether the texts of passages are in it.
        group_by: keys of the questions to compare groups by.

    Raises:
        ConfigError: no such baseline, or it is GainRAG itself.
    """
    found = run.evaluation
    names = list(found.overall.systems)
    gainrag, base = GAINRAG, _baseline(names, baseline, run.k)
    without = NO_PSEUDO if NO_PSEUDO in names else None
    interval = {"resamples": found.resamples, "confidence": found.confidence, "seed": found.seed}
    absent = dict(run.absent)
    for key in group_by:
        if not any(key in case.extra for case in run.cases):
            absent[f"groups by {key}"] = "no question has this key"
    keys = [key for key in group_by if f"groups by {key}" not in absent]
    reading = [name for name in names if any(case.answered[name].ctxs for case in run.cases)]
    scoring = [name for name in names if name in run.cases[0].scored]
    flags = [f"--baseline {shlex.quote(base)}"] if baseline else []
    flags += [] if passages else ["--no-passages"]
    flags += [f"--group-by {shlex.quote(key)}" for key in group_by]
    wins, losses = analysis.extremes(run.cases, gainrag, base, EXTREMES)
    analyses: Plain = {
        "preference_gap": {
            name: by_dataset(run.cases, lambda cases, name=name: analysis.preference_gap(cases, name))  # type: ignore[misc]
            for name in reading
        },
        "recall_and_score": by_dataset(run.cases, lambda cases: analysis.recall_and_score(cases, names)),
        "recall_by_k": {
            "retriever": analysis.recall_by_k(run.cases),
            **{name: analysis.recall_by_k(run.cases, name) for name in scoring},
        },
        "k_sweep": analysis.k_sweep(run.sweep, **interval) or None,
        "pseudo_choice": by_dataset(run.cases, lambda cases: analysis.pseudo_choice(cases, gainrag, without)),
        "comparison": {
            "overall": analysis.compare(run.cases, gainrag, base, **interval),
            "groups": analysis.compare_groups(run.cases, gainrag, base, keys, **interval),
            "wins": [_extreme(case, gainrag, base, passages) for case in wins],
            "losses": [_extreme(case, gainrag, base, passages) for case in losses],
        },
        "selector": _selector(run, scoring, interval) if scoring and "gains" not in absent else None,
    }
    oracle = ORACLE if ORACLE in names else None
    analyses[lost.KEY], without_parts = lost.find(run.cases, names, oracle)
    absent |= {f"{lost.KEY} {dataset}": why for dataset, why in without_parts.items()}
    regrets = analyses["selector"]["top1_regret"] if analyses["selector"] else {}
    trained = {variant.name: variant.table for variant in run.config.variants}
    analyses["variants"] = variants.compare(found, trained, gainrag, run.labelled, regrets)
    absent |= variants.absences(found, trained, run.labelled)
    return {
        "gainrag": __version__,
        "run": run.name,
        "roles": {
            "gainrag": gainrag,
            "baseline": base,
            "without_pseudo": without,
            "first_with": FIRST_WITH if FIRST_WITH in names else None,
            "oracle": oracle,
        },
        "passages": passages,
        "evaluation": found.to_json(),
        "analyses": analyses,
        "absent": absent,
        "questions": [_question(case, passages, keys) for case in run.cases],
        "settings": {name: meta.settings for name, meta in run.metas.items()},
        "inputs": {name: meta.inputs for name, meta in run.metas.items()},
        "summaries": {name: meta.summary for name, meta in run.metas.items() if meta.summary is not None},
        "versions": _versions(run.metas),
        "selector_card": run.card,
        "diagnosis": run.diagnosis,
        "levels": {"labels": run.labels, "gains": run.level},
        "agreement": run.agreement,
        "config": run.config.text,
        "commands": [
            " ".join([f"gainrag run config.toml --data FOLDER -o runs/{run.name}", *_run_flags(run)]),
            " ".join([f"gainrag report runs/{run.name}", *flags]),
        ],
    }


def _run_flags(run: Finished) -> list[str]:
    """The flags with which the run was made: in what its settings were not those of its config."""
    configured = as_json(settings_of(Options, run.config.table("run")))
    flags = []
    for name, value in run.options.items():
        flag = name.replace("_", "-")
        if name not in configured or value == configured[name]:
            continue
        if isinstance(value, bool):
            flags.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            flags += [f"--{flag} {one}" for one in (value if isinstance(value, list) else [value])]
    return flags


def _baseline(names: Sequence[str], wanted: str | None, k: int) -> str:
    """The system GainRAG is compared with: the wanted one, else as many passages of the retriever that finds the
    candidates as GainRAG reads."""
    if GAINRAG not in names:
        raise ConfigError(unknown("system", GAINRAG, names), where="report", hint="a report is of a whole run")
    others = [name for name in names if name != GAINRAG]
    if wanted is not None and wanted not in others:
        raise ConfigError(unknown("baseline", wanted, others), where="report")
    # Of the retrievers' systems the last: a hybrid comes behind its parts.
    retrievers = [name for name in others if name.endswith(f" top-{k}")]
    return wanted or (retrievers or others)[-1]


def _selector(run: Finished, scoring: Sequence[str], interval: Mapping[str, Any]) -> Plain:
    """How well each selector's scores agree with the true gains, beside the retriever's order."""

    def regret(system: str | None) -> Plain:
        return by_dataset(run.cases, lambda cases: agreement.top1_regret(cases, system, **interval))

    return {
        "alpha": run.alpha,
        "temperature": run.temperature,
        "rank_correlation": {
            name: by_dataset(
                run.cases,
                lambda cases, name=name: agreement.rank_correlation(cases, name, **interval),  # type: ignore[misc]
            )
            for name in scoring
        },
        "top1_regret": {"retriever": regret(None), **{name: regret(name) for name in scoring}},
        # Only the gain selector was taught the teacher's shares.
        "calibration": agreement.calibration(run.cases, GAINRAG, run.temperature)
        if GAINRAG in scoring
        else None,
    }


def _question(case: Case, passages: bool, keys: Sequence[str]) -> Plain:
    """A question for the page; `read` numbers its passages, those behind the candidates being no candidates."""
    shown: list[Passage] = list(case.candidates)
    answered = {}
    for system, answer in case.answered.items():
        read = []
        for ctx in answer.ctxs:
            at = next((i for i, p in enumerate(shown) if same(p, ctx)), len(shown))
            if at == len(shown):
                shown.append(ctx)
            read.append(at)
        answered[system] = {
            "prediction": answer.prediction,
            "read": read,
            **{key: case.scores[system][key] for key in ("contains", "f1", "mean")},
        }
    return {
        "id": case.id,
        "question": case.question,
        "answers": case.answers,
        "dataset": case.dataset,
        **{key: str(case.extra[key]) for key in keys if key in case.extra},
        "passages": [
            {
                **_passage(case, passage, passages),
                "scores": {s: round(values[i], 6) for s, values in case.scored.items() if i < len(values)},
            }
            for i, passage in enumerate(shown)
        ],
        "systems": answered,
    }


def _passage(case: Case, passage: Passage, with_text: bool) -> Plain:
    gain = case.gain(passage)
    return {
        "candidate": any(same(c, passage) for c in case.candidates),
        "title": passage.title,
        **({"text": excerpt(passage.text)} if with_text else {}),
        "generated": passage.origin == "generated",
        "holds": holds_answer(passage, case.answers),
        "gain": None if gain is None else round(gain, 6),
    }


def _extreme(case: Case, system: str, baseline: str, passages: bool) -> Plain:
    """A win or loss with what either system read and said."""
    return {
        "id": case.id,
        "dataset": case.dataset,
        "question": case.question,
        "answers": case.answers,
        "difference": analysis.difference(case, system, baseline),
        "systems": {
            name: {
                "prediction": case.answered[name].prediction,
                "mean": case.mean(name),
                "passages": [_passage(case, ctx, passages) for ctx in case.answered[name].ctxs],
            }
            for name in (system, baseline)
        },
    }


def excerpt(text: str) -> str:
    """The beginning of a passage, on one line, with a mark where it was cut.

    >>> excerpt("a  short\\none")
    'a short one'
    >>> len(excerpt("word " * 100)) <= EXCERPT + 1, excerpt("word " * 100)[-5:]
    (True, 'word…')
    """
    line = " ".join(text.split())
    return line if len(line) <= EXCERPT else line[:EXCERPT].rstrip() + "…"


def _versions(metas: Mapping[str, Meta]) -> dict[str, list[str]]:
    """By library, the versions the artefacts were made with; several where stages were made at different times."""
    found: dict[str, set[str]] = {}
    for meta in metas.values():
        for library, version in meta.versions.items():
            found.setdefault(library, set()).add(version)
    return {library: sorted(versions) for library, versions in found.items()}
