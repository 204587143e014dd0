"""`gainrag run`: every stage from the corpus to the table, each a file in the run folder, reused while it is current.

questions/   train.jsonl test.jsonl          what is learned from and what is tested on
index/       one folder a corpus, by the name of the first data set that has it
retrieved/   train.jsonl test.jsonl test.RETRIEVER.jsonl
candidates/  train.jsonl test.jsonl          with the pseudo-passage
gains/       train.jsonl test.jsonl          labels; the test split's serve the oracle alone
warm_start/ relevance/ selector/             cross-encoders; more of them in warm_starts/ and variants/, see there
scores/      SYSTEM.jsonl                    every test candidate rescored by a selector, best first
selected/    SYSTEM.jsonl                    what each system gives to the language model
answers/     SYSTEM.jsonl K/SYSTEM.jsonl      the latter from the first K passages, see [sweep]
evaluation.json table.txt
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gainrag import (
    answering,
    augmentation,
    evaluation,
    indexing,
    ingestion,
    lms,
    retrieval,
    selection,
    synthesis,
    training,
)
from gainrag.settings import Passages, Seed, Some, checked
from gainrag.runs import printing, retrieving, systems, tuning, variants
from gainrag.files.meta import hashes, write_meta
from gainrag.runs.config import Config
from gainrag.settings import parameters, settings_of
from gainrag.errors import ConfigError, DataError
from gainrag.models.folder import source_of
from gainrag.files.streams import open_output, read, read_json, write, write_json
from gainrag.records import Answer, GainRecord, Question, Retrieved
from gainrag.runs.folder import Run, claim, say
from gainrag.selectors import CrossEncoderSelector


@checked
def run(
    config: Config,
    out: str | Path,
    update: bool = False,
    *,
    train_questions: Some = 0,
    train_k: Passages | None = None,
    test_questions: Some = 0,
    diagnose: Some = 50,
    warm_start: bool = True,
    warm_start_questions: Some = 0,
    oracle: bool = True,
    top: Sequence[Passages] = (),
    seed: Seed = 0,
) -> evaluation.Evaluation:
    """Run every stage of a config in a run folder; what is current there is reused.

    Args:
        update: allow a folder that was made with another config; the stages that it changes are made again.
        train_questions: questions a data set that get gain labels, drawn by the seed; 0 is all.
        train_k: passages retrieved for a training question; as many as for a test question when it is left out.
        test_questions: questions a data set to test on, drawn by the seed; 0 is all.
        diagnose: training questions whose every candidate is answered, to compare alphas; 0 is none.
        warm_start: train on has-answer labels of training questions before the gains; off for a trained reranker.
        warm_start_questions: for that, training questions a data set, drawn by the seed; 0 is all.
        oracle: measure the test candidates' gains, too, to see what the best choice would reach; with many of them this
            costs more than the labels.
        top: how many of each retriever's first passages the language model is given, beside k of [select].
        seed: of the draws.

    Raises:
        StaleError: the folder was made with another config and `update` is off.
        ConfigError: `check` finds something, a variant wants more labelled questions than there are, or test questions
            lack the key to group by.
        ModelError: the folder of a further system is not there.
        GainragError: whatever a stage raises.
    """
    given = dict(locals())
    check(config)
    folder = Path(out)
    claim(folder, config, update)
    state = Run(folder, config, update)
    train, test = _questions(state, train_questions, test_questions, seed)
    labelled = {q.id: str(q.extra["dataset"]) for q in _draw(train, train_questions, seed)}
    variants.check_enough(config, Counter(labelled.values()))
    _check_groups(test, systems.group_by(config))
    # A warm start may want any of them, now or once more are labelled.
    wanted = train if warm_start else [q for q in train if q.id in labelled]
    retrieved_all, test_lists = retrieving.retrieve_all(state, wanted, test, train_k, some=len(wanted) < len(train))
    swept = config.table("sweep") if "sweep" in config.tables else None
    depths = {*top, *(() if swept is None else settings_of(sweep, swept)["k"])}
    for depth in {settings_of(selection.select, config.table("select"))["k"], *depths}:
        selection.cut(test_lists["test"], depth)  # too few passages are an error now, not after hours of labelling
    candidates = {
        "train": _augment(state, "train", [r for r in retrieved_all if r.id in labelled]),
        "test": _augment(state, "test", test_lists["test"]),
    }
    gains = _synthesize(state, "train", candidates["train"])
    best = _synthesize(state, "test", candidates["test"]) if oracle else []
    if diagnose:
        _diagnose(state, gains, diagnose)
    warm = {q.id for q in _draw(train, warm_start_questions, seed)} if warm_start else set()
    warm -= variants.not_for_warm_starts(config, labelled)
    selectors = variants.train_all(state, [r for r in retrieved_all if r.id in warm], gains)
    chosen = systems.choose(state, test_lists, candidates["test"], best, selectors, top)
    answered: dict[systems.Reading, str] = {}
    own = {name: given[name] for name in parameters(run)}
    found = _evaluate(state, own, systems.answer_all(state, chosen, answered))
    if swept is not None:
        sweep(state, test, answered, seed, **swept)
    return found


def check(config: Config) -> None:
    """Whether a config asks for what a run can do, before anything is made.

    Raises:
        ConfigError: a system's name is taken or no file's, the run's own selectors are to learn other labels, or the
            pseudo-passage is to be chosen in a way that runs do not have.
        ModelError: the folder of a further system is not there.
    """
    variants.check(config)
    for model in (*(v.settings.get("base") for v in config.variants), *(r.model for r in config.rerankers)):
        if model is not None:
            source_of(model)
    pseudo = selection.as_pseudo(config.table("select").get("pseudo", "eager"))
    if pseudo != "eager":
        raise ConfigError(
            f"in a run [select] has pseudo {pseudo!r}",
            where="pseudo",
            hint=f"leave it out: {systems.NO_PSEUDO!r} is a system of every run, and lazy is for answering",
        )


def _check_groups(test: Sequence[Question], group_by: str) -> None:
    """Whether every test question has the key to group by, before hours are spent on their answers."""
    if without := [question.id for question in test if group_by not in question.extra]:
        raise ConfigError(
            f"{len(without)} of {len(test)} test questions have no {group_by!r}, such as {without[0]}",
            where="[evaluate] group_by",
            hint="give them one, or leave it out to group by data set",
        )


def _draw(questions: Sequence[Question], n: int, seed: int) -> list[Question]:
    """n questions of each data set, by the seed, data sets taking turns; all where n is 0 or more than there are."""
    groups: dict[str, list[Question]] = {}
    for question in questions:
        groups.setdefault(str(question.extra["dataset"]), []).append(question)
    drawn = []
    for group in groups.values():
        order = np.random.default_rng(seed).permutation(len(group))
        drawn.append([group[i] for i in (order[:n] if n else order)])
    longest = max(map(len, drawn), default=0)
    return [group[i] for i in range(longest) for group in drawn if i < len(group)]


def read_all(config: Config) -> dict[str, list[Question]]:
    """Every question of a config's data sets by split, each marked with its data set; of several data sets its id
    begins with the name."""
    found: dict[str, list[Question]] = {"train": [], "test": []}
    for dataset in config.datasets:
        reader = ingestion.read_questions if dataset.corpus else ingestion.read_retrieved
        for split in found:
            path = dataset.questions(split)
            for question in reader(path, need_answers=True) if path else ():
                if len(config.datasets) > 1:
                    question.id = f"{dataset.name}/{question.id}"
                question.extra = {**question.extra, "dataset": dataset.name}
                found[split].append(question)
    return found


def _questions(state: Run, n_train: int, n_test: int, seed: int) -> tuple[list[Question], list[Question]]:
    """All training questions and the drawn test questions, each marked with its data set."""
    found, datasets = read_all(state.config), state.config.datasets
    train, test = _draw(found["train"], 0, seed), _draw(found["test"], n_test, seed)
    if shared := {q.question for q in train} & {q.question for q in test}:
        raise DataError(
            f"{len(shared)} questions are both in train and in test, such as {min(shared)!r}",
            where="[[dataset]]",
            hint="remove them from one of the two: a test on training questions shows nothing",
        )
    for split, questions in (("train", train), ("test", test)):
        sources = {dataset.name: path for dataset in datasets if (path := dataset.questions(split))}
        settings = {"seed": seed, "test_questions": n_test}
        state.stage(
            state.path("questions", f"{split}.jsonl"),
            settings,
            sources,
            lambda _, split=split, questions=questions: _write(state.path("questions", f"{split}.jsonl"), questions),  # type: ignore[misc]
        )
    return train, test


def _write(path: Path, records: Sequence[Any]) -> None:
    write(path, records)


def _augment(state: Run, split: str, records: Sequence[Retrieved]) -> list[Retrieved]:
    artefact = state.path("candidates", f"{split}.jsonl")
    table = state.config.table("augment")
    settings = state.prompted(augmentation.augment, table, background=True) | {"questions": len(records)}

    def make(memory: dict[str, Any]) -> None:
        augmentation.augment(records, state.lm(), artefact, memory, **table)

    state.stage(artefact, settings, {"retrieved": state.path("retrieved", f"{split}.jsonl")}, make)
    return list(read(artefact, Retrieved))


def _synthesize(state: Run, split: str, candidates: Sequence[Retrieved]) -> list[GainRecord]:
    artefact = state.path("gains", f"{split}.jsonl")
    table = state.config.table("synthesize")
    settings = state.prompted(synthesis.synthesize, table)

    def make(memory: dict[str, Any]) -> dict[str, Any]:
        return synthesis.summarize(synthesis.synthesize(candidates, state.lm(), artefact, memory, **table))

    state.stage(artefact, settings, {"candidates": state.path("candidates", f"{split}.jsonl")}, make)
    return list(read(artefact, GainRecord))


def _diagnose(state: Run, gains: Sequence[GainRecord], sample: int) -> None:
    artefact = state.path("diagnosis.json")
    table = {k: v for k, v in state.config.table("synthesize").items() if k in parameters(synthesis.diagnose)}
    settings = state.prompted(synthesis.diagnose, table) | {"sample": sample}

    def make(_: dict[str, Any]) -> None:
        found = synthesis.diagnose(gains, state.lm(), sample=sample, **table)
        write_json(artefact, {"summary": synthesis.summarize(gains), "diagnosis": found})

    state.stage(artefact, settings, {"gains": state.path("gains", "train.jsonl")}, make)
    found = read_json(artefact)
    say(synthesis.describe(found["summary"], found["diagnosis"]))


def _evaluate(state: Run, own: Mapping[str, Any], answers: Mapping[str, list[Answer]]) -> evaluation.Evaluation:
    """The table of the run.

    Args:
        own: the settings of `run` itself. Flags may have changed them, which the config's copy does not show.
    """
    table = {**state.config.table("evaluate"), "group_by": systems.group_by(state.config)}
    found = evaluation.evaluate(answers, **table)
    artefact = state.path("evaluation.json")
    write_json(artefact, found.to_json())
    files = {name: state.path("answers", f"{systems.file_name(name)}.jsonl") for name in answers}
    write_meta(artefact, {**settings_of(evaluation.evaluate, table), "run": own}, hashes(files))
    text = printing.text_table(found, baseline=systems.GAINRAG)
    with open_output(state.path("table.txt")) as stream:
        stream.write(text.encode() + b"\n")
    return found


def sweep(
    state: Run,
    test: Sequence[Question],
    answered: dict[systems.Reading, str],
    seed: int,
    *,
    k: Sequence[Passages] = (1, 2, 3, 5, 10),
    questions: Some = 50,
) -> None:
    """Answer from the first k passages of either selector: what more passages bring (METHOD section 6, Figure 5).

    Args:
        answered: what the run's systems answered, by what they read; it is not asked again.
        k: the numbers of passages.
        questions: test questions a data set, drawn by the seed; 0 is all.

    Raises:
        ConfigError: a k is below 1.
        DataError: a question has fewer candidates than k.
    """
    drawn = {question.id for question in _draw(test, questions, seed)}
    asked: dict[str, list[Retrieved]] = {}
    for system in (systems.RELEVANCE, systems.GAINRAG):
        file = f"{systems.file_name(system)}.jsonl"
        ranked = [r for r in read(state.path("scores", file), Retrieved) if r.id in drawn]
        asked |= {f"{depth}/{system}": selection.cut(ranked, depth) for depth in k}
        for old in state.path("answers").glob(f"*/{file}"):
            if old.parent.name not in map(str, k):  # of an earlier config: it would be drawn beside what is made now
                old.unlink()
                say(f"{old.relative_to(state.folder)}: removed")
    systems.answer_all(state, asked, answered, "sweep")


STAGES: dict[str, Callable[..., Any]] = {
    "run": run,
    "llm": lms.open_lm,
    "index": indexing.index,
    "retrieve": retrieval.retrieve,
    "augment": augmentation.augment,
    "synthesize": synthesis.synthesize,
    "warm_start": training.train,
    "train": training.train,
    "tune": tuning.tune,
    "select": selection.select,
    "selector": CrossEncoderSelector,
    "answer": answering.answer,
    "evaluate": evaluation.evaluate,
    "sweep": sweep,
}
