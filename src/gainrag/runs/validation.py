"""Everything that can be checked before compute is spent: `gainrag validate`, and the beginning of every run.

Single values are checked where they are read, by their types (gainrag.settings), and settings against one another in
gainrag.runs.contradictions. Here they are checked against the data, and models are looked up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gainrag import asking, indexing, ingestion, lms, training
from gainrag.errors import ConfigError
from gainrag.records import Question, Retrieved
from gainrag.runs import costs, variants
from gainrag.runs.config import Config, Options
from gainrag.runs.contradictions import check, depths, kind_of, look_up_model, trainings
from gainrag.runs.folder import Run
from gainrag.runs.questions import check_apart, draw, read_all
from gainrag.settings import settings_of
from gainrag.training.labels import held_out_share


def validate(config: Config, measured: bool = True) -> list[str]:
    """Read every data file, look every local model up, and check the settings against one another.

    Args:
        measured: also open the language model, where it is on this machine, and measure what the run will take.

    Returns:
        What was found, a line each.

    Raises:
        DataError: a file is missing, malformed, empty or has duplicates, or a question is both in train and in test.
        ConfigError: settings contradict one another or the data.
        ModelError: an embedded model or local folder is not there.
    """
    options = Options(**config.table("run"))
    check(config, options)
    models = check_models(config, options.proxy)
    found = read_all(replace(config, datasets=tuple(d for d in config.datasets if not d.asked)))
    if not any(dataset.asked for dataset in config.datasets):
        check_questions(config, options, found)
    # Several data sets may search one corpus: 21 million passages are read once.
    paths = {dataset.corpus for dataset in config.datasets if dataset.corpus and "corpus" not in dataset.made}
    corpora = {path: f"{sum(1 for _ in ingestion.read_passages(path))} passages" for path in paths}
    counts = Counter((q.extra["dataset"], split) for split, questions in found.items() for q in questions)
    lines = []
    for dataset in config.datasets:
        splits = [split for split in ("train", "test") if dataset.split(split)]
        questions = " and ".join(f"{counts[dataset.name, split]} {split}" for split in splits) + " questions"
        if dataset.asked:
            questions = f"{settings_of(asking.ask, config.table('ask'))['n']} questions that the model will write"
        if dataset.questions:
            questions += f", {len(ingestion.read_questions(dataset.questions, need_answers=True))} that people asked"
        passages = corpora.get(dataset.corpus, f"a corpus of {dataset.documents}") if dataset.corpus else ""
        lines.append(f"{dataset.name}: {questions}" + (f", {passages}" if passages else ""))
    lines += models + [f"[llm] {line}" for line in lms.look_over(config.table("llm"))]
    if not measured or any(dataset.made for dataset in config.datasets):
        return lines
    return lines + costs.estimate(Run(Path(), config, update=False), options, found)


def check_models(config: Config, proxy: str | None = None) -> list[str]:
    """Look every model of a run up, without loading it; a line each.

    Args:
        proxy: the model that labels, where there is one.

    Raises:
        ModelError: one is not there.
    """
    models: list[tuple[str, str, Callable[..., Any]]] = []
    index = settings_of(indexing.index, config.table("index"))
    if any(dataset.corpus for dataset in config.datasets) and "dense" in indexing.parts_of(index["retriever"]):
        models.append(("index", "model", indexing.index))
    lines = []
    if (found := lms.look_up(config.table("llm"))) is not None:
        lines.append(f"[llm] model: {lms.endpoint_of(config.table('llm'))} ({found})")
    else:
        models.append(("llm", "model", lms.open_lm))
    if any(kind_of(table) != "features" for _, table in trainings(config, warm_start=False)):
        models.append(("train", "base", training.train))
    if proxy is not None:
        found = lms.look_up({"model": proxy}) or look_up_model(proxy, "[run] proxy")
        lines.append(f"[run] proxy: {proxy} ({found})")
    if "base" in config.table("warm_start"):
        models.append(("warm_start", "base", training.train))
    for table, key, stage in models:
        name = settings_of(stage, config.table(table))[key]
        lines.append(f"[{table}] {key}: {name} ({look_up_model(name, f'[{table}] {key}')})")
    for variant in config.variants:
        if (base := variant.settings.get("base")) is not None:
            source = look_up_model(base, f"[[variant]] {variant.name}")
            lines.append(f"[[variant]] {variant.name}: base {base} ({source})")
    for reranker in config.rerankers:
        source = look_up_model(reranker.model, f"[[reranker]] {reranker.name}")
        lines.append(f"[[reranker]] {reranker.name}: {reranker.model} ({source})")
    return lines


def check_questions(config: Config, options: Options, found: dict[str, list[Question]]) -> None:
    """Whether the questions of a run are enough, apart, and have what the config asks of them.

    Args:
        found: of every split, see `gainrag.runs.questions.read_all`.

    Raises:
        DataError: a question is both in train and in test.
        ConfigError: a variant wants more labelled questions than there are; test questions lack the key to group by, or
            brought fewer passages than are wanted.
    """
    test = draw(found["test"], options.test_questions, options.seed)
    check_apart({"train": found["train"], "test": test})
    labelled = draw(found["train"], options.train_questions, options.seed)
    variants.check_enough(config, Counter(str(question.extra["dataset"]) for question in labelled))
    _check_choices(config, labelled)
    _check_groups(test, config.group_by)
    _check_held_out(config, len(labelled))
    for where, depth in depths(config, options).items():
        if few := [q for q in test if isinstance(q, Retrieved) and len(q.ctxs) < depth]:
            raise ConfigError(
                f"{depth} passages are wanted, but question {few[0].id} brought {len(few[0].ctxs)}",
                where=where,
                hint="lower it, or bring more passages",
            )


def _check_choices(config: Config, labelled: Sequence[Question]) -> None:
    """Whether what is learned from the choices of questions has some."""
    without = {str(question.extra["dataset"]) for question in labelled if not question.choices}
    for where, table in trainings(config, warm_start=False):
        asked = [table.get("labels", "gain"), *(config.table("tune").get("labels", ()) if where == "[train]" else ())]
        own = set(next((v.train_on for v in config.variants if where == f"[[variant]] {v.name}:"), ()))
        if "choice" in asked and (lacking := without & own if own else without):
            raise ConfigError(
                f"labels 'choice' need questions with choices, and those of {min(lacking)} have none",
                where=where,
                hint="learn from gain, or give a [[variant]] train_on",
            )


def _check_held_out(config: Config, labelled: int) -> None:
    own = settings_of(training.train, config.table("train"))
    if own["retrieval_prior"] and not held_out_share(own["validation"], labelled):
        raise ConfigError(
            f"it needs held-out questions, and of {labelled} none is held out",
            where="[train] retrieval_prior",
            hint="set validation, such as 0.2",
        )


def _check_groups(test: Sequence[Question], key: str) -> None:
    if without := [question.id for question in test if key not in question.extra]:
        raise ConfigError(
            f"{len(without)} of {len(test)} test questions have no {key!r}, such as {without[0]}",
            where="[evaluate] group_by",
            hint="give them one, or leave it out to group by data set",
        )
