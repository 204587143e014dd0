"""The selectors of a run: GainRAG's own, its rival on relevance, and the variants, each a system of its own.

warm_start/              on relevance, from training questions of all data sets: what the others start from
selector/ relevance/     GainRAG's, and its rival on relevance, from those of the same questions that can teach it
warm_starts/A+B/         from the training questions of these data sets alone
variants/NAME/selector/  a variant's
variants/NAME/without_A/ of a variant with leave_out, the one that never saw data set A and ranks its test questions
selector.seed1/ ..       beside each but the warm starts: the same trained with the next seed, where `seeds` asks for it

A variant has the settings of [train], those that tuning chose for GainRAG's selector, and over both its own, as far as
its kind reads them. It starts from the warm start on the data sets it learns from, unless it names another `base` or is
no cross-encoder. The rival on relevance never starts from trees that learned from gains.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from gainrag import synthesis, training
from gainrag.answering import fixed_choices
from gainrag.errors import ConfigError
from gainrag.files.meta import digest
from gainrag.files.progress import say
from gainrag.models.identity import identity
from gainrag.records import GainRecord, Retrieved
from gainrag.runs import tuning
from gainrag.runs.config import Config, Variant
from gainrag.runs.folder import Run
from gainrag.runs.names import GAINRAG, RELEVANCE, file_name, joined, seeded
from gainrag.runs.questions import by_dataset
from gainrag.runs.recorded import chosen_settings
from gainrag.settings import further_seed, recorded, settings_of
from gainrag.training.features import SCRATCH
from gainrag.training.labels import AT_ALPHA, ENOUGH, held_out_share, is_held_out, teaches
from gainrag.training.settings import read_by

T = TypeVar("T", GainRecord, Retrieved)

# A run compares its systems on the test questions anyway: a selector that is worse than the retriever's order on its
# held-out questions is saved, and train says so, rather than that a run stops after hours.
KEPT = {"keep_worse": True}

# The settings of [train] that a warm start has, too.
SHARED = ("base", "max_length", "dtype", "device")


class Fold(NamedTuple):
    """One selector of a variant: its folder below the variant's, and the data sets it learns from."""

    folder: str
    sources: tuple[str, ...]


def learned_from(config: Config) -> tuple[str, ...]:
    """The data sets with training questions."""
    return tuple(dataset.name for dataset in config.datasets if dataset.train)


def folds(config: Config, variant: Variant) -> dict[str, Fold]:
    """By test data set, the selector of a variant that ranks its questions.

    With leave_out a data set without training questions is left out as it is: its selector learns from all the others.
    """
    trained = learned_from(config)
    sources = tuple(name for name in trained if name in (variant.train_on or trained))
    found = {}
    for name in (dataset.name for dataset in config.datasets if dataset.test):
        found[name] = Fold("selector", sources)
        if variant.leave_out and name in trained:
            found[name] = Fold(f"without_{name}", tuple(source for source in sources if source != name))
    return found


def check_enough(config: Config, labelled: Mapping[str, int]) -> None:
    """Whether there are as many labelled questions as each variant wants to learn from.

    Args:
        labelled: their number by data set.

    Raises:
        ConfigError: there are fewer.
    """
    for variant in config.variants:
        for fold in folds(config, variant).values():
            there = sum(labelled.get(source, 0) for source in fold.sources)
            if there < variant.questions:
                raise ConfigError(
                    f"questions is {variant.questions}, but {there} are labelled in {', '.join(fold.sources)}",
                    where=f"[[variant]] {variant.name}",
                    hint="lower it, or raise train_questions of [run]",
                )


def not_for_warm_starts(config: Config, labelled: Iterable[str]) -> set[str]:
    """The labelled questions, by id, that no warm start may be given: some selector of the run holds them out, and the
    warm start would learn from them. Those that it holds out itself are its own to be judged by."""
    ids = list(labelled)
    tables = (config.table("train"), *(variant.settings for variant in config.variants))
    # A selector may learn from fewer questions, of which a larger share is held out: the largest is that of ENOUGH.
    fewest = min(len(ids), ENOUGH)
    validation = max(held_out_share(table.get("validation"), fewest) for table in tables)
    own = float(config.table("warm_start").get("validation") or 0.0)  # left out: how many are held out is not known yet
    return {question for question in ids if is_held_out(question, validation) and not is_held_out(question, own)}


def warm_start_table(config: Config) -> dict[str, Any]:
    """The settings of a warm start: its own, and what must be alike in all selectors from [train].

    It holds out no questions unless it is told to: those that the selectors hold out are taken away from it, and of the
    few that were left one or two would choose its epoch.
    """
    table = config.table("train")
    shared: dict[str, Any] = {key: table[key] for key in SHARED if key in table}
    fixed = {"labels": "relevance", "kind": "cross-encoder"}
    return {"validation": 0.0, **KEPT, **shared, **config.table("warm_start"), **fixed}


def is_warmed_up(table: Mapping[str, Any]) -> bool:
    """Whether a selector with these settings of `train` starts from the warm start. Trees have nothing to start from;
    a stack's cross-encoders begin with has-answer labels of their own folds, since a warm start that has seen all
    questions would make no score out of fold."""
    return bool(settings_of(training.train, table)["kind"] == "cross-encoder")


def wants_warm_start(config: Config) -> bool:
    """Whether any selector of the run starts from a warm start."""
    table = config.table("train")
    return any(is_warmed_up(own) for own in (table, *({**table, **v.settings} for v in config.variants)))


def train_all(
    run: Run, warm: Sequence[Retrieved], gains: Sequence[GainRecord], seeds: int = 1, alpha: float | None = None
) -> dict[str, dict[str, Path]]:
    """Train every selector of the run, each with several seeds where asked; cross-encoders start from the same warm
    starts.

    Args:
        warm: training questions with their passages, for the warm starts; where there are none, nothing is warmed up.
        gains: of the labelled questions, in the order in which they were drawn.
        seeds: how many.
        alpha: to train on, where [train] does not say.

    Returns:
        By system and test data set, the folder of the selector that ranks its questions. A further seed of a system
        has the name that `gainrag.runs.names.seeded` gives it.
    """
    config = run.config
    table, grid, everything = config.table("train"), config.table("tune"), learned_from(config)
    if alpha is not None:
        table["alpha"] = alpha
    telling, warm = _telling(gains), _telling(warm)
    related = any(teaches(record, "relevance") for record in telling)
    if not related:
        say("no selector is trained on relevance: whether a passage holds the answer tells nothing in these data sets")

    @cache
    def start(sources: tuple[str, ...]) -> Path | None:
        own = [record for record in warm if record.extra["dataset"] in sources]
        return _warm_start(run, own, sources) if any(teaches(record, "relevance") for record in own) else None

    found: dict[str, dict[str, Path]] = {}
    # GainRAG's selector and its rival are given the same questions; which can teach either: gainrag.training.labels.
    main: list[tuple[str, str, Sequence[GainRecord], dict[str, Any]]] = [(GAINRAG, "selector", gains, table)]
    if related:
        main.insert(0, (RELEVANCE, "relevance", telling, rival_table(table)))
    for n in range(seeds):
        for system, name, records, own in main:
            # What tuning chose for the first seed holds for the others.
            chosen = chosen_settings(run.path(name)) if n else {}
            folder, settings = run.path(seeded(name, n)), with_seed({**own, **chosen}, n)
            first = start(everything) if is_warmed_up(own) else None
            _distil(run, folder, records, settings, everything, first, {}, {} if n else grid)
            found[seeded(system, n)] = {dataset.name: folder for dataset in config.datasets}
    tuned = chosen_settings(run.path("selector"))
    for variant in config.variants:
        own = {**table, **tuned, **variant.settings}
        home, by_source = run.path("variants", file_name(variant.name)), folds(config, variant)
        for n in range(seeds):
            for fold in dict.fromkeys(by_source.values()):
                records = _labelled(gains, variant, fold)
                first = start(fold.sources) if is_warmed_up(own) and "base" not in variant.settings else None
                more = {"questions": variant.questions, "train_on": list(fold.sources)}
                folder = home / seeded(fold.folder, n)
                _distil(run, folder, records, with_seed(own, n), fold.sources, first, more)
            found[seeded(variant.name, n)] = {d: home / seeded(fold.folder, n) for d, fold in by_source.items()}
    return found


def rival_table(table: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the selector on relevance: those of [train], but for a `start`, which may have learned gains."""
    if table.get("start") not in (None, SCRATCH):
        say(f"the relevance selector starts from nothing: {table['start']} may have learned from gains")
    return {**{key: value for key, value in table.items() if key != "start"}, "labels": "relevance"}


def with_seed(table: Mapping[str, Any], n: int) -> dict[str, Any]:
    """The settings of a training with the n-th further seed; those of the first are left as they are."""
    seed: int = settings_of(training.train, table)["seed"]
    return {**table, "seed": further_seed(seed, n)} if n else dict(table)


def _labelled(gains: Sequence[GainRecord], variant: Variant, fold: Fold) -> list[GainRecord]:
    """The labelled questions a fold learns from. They are in the order of the run's draw, data sets taking turns, so
    that fewer questions are the first of more."""
    own = [record for record in gains if record.extra["dataset"] in fold.sources]
    return own[: variant.questions] if variant.questions else own


def _telling(records: Sequence[T]) -> list[T]:
    """The questions of data sets in which it may tell something that a passage holds the answer: not of those with two
    fixed choices, such as Yes and No, which stand in a passage by chance."""
    fixed = {name for name, own in by_dataset(records).items() if fixed_choices(own)}
    return [record for record in records if record.extra["dataset"] not in fixed]


def _warm_start(run: Run, records: Sequence[Retrieved], sources: tuple[str, ...]) -> Path:
    """The selector on whether passages hold an answer, from the questions of these data sets."""
    config = run.config
    own = warm_start_table(config)
    settings = recorded(training.train, own)
    folder = run.path("warm_start")
    if sources != learned_from(config):
        folder = run.path("warm_starts", joined(sources))
        settings["train_on"] = list(sources)
    settings["identity"] = identity(settings["base"])
    settings |= {"questions": len(records), "ids": digest("\n".join(record.id for record in records))}

    def make(_: dict[str, Any]) -> None:
        training.train(records, folder, {"data": ", ".join(sources)}, **own)

    run.stage(folder, settings, {"retrieved": run.path("retrieved", "train.jsonl")}, make)
    return folder


def _distil(
    run: Run,
    folder: Path,
    records: Sequence[GainRecord],
    table: dict[str, Any],
    sources: Sequence[str],
    start: Path | None,
    more: Mapping[str, Any],
    grid: Mapping[str, Any] | None = None,
) -> None:
    """One selector from labelled questions; with a grid the best of several trainings, whose comparison is the stage's
    summary.

    Args:
        table: the settings of `train`; those that its kind does not read are for others.
        start: the warm start, instead of their base.
        more: what else it depends on.
    """
    config, kind = run.config, settings_of(training.train, table)["kind"]
    table = {**KEPT, **read_by(kind, table)}
    synthesized = settings_of(synthesis.synthesize, config.table("synthesize"))
    settings = {**recorded(training.train, table), **more}
    inputs = {"gains": run.path("gains", "train.jsonl")}
    facts: dict[str, Any] = {
        "data": ", ".join(sources),
        "LLM": run.llm_settings()["model"],
        **({"labelled by": run.proxy} if run.proxy else {}),
        "prompt": run.prompt_of(synthesis.synthesize, config.table("synthesize"), run.proxy),
    }
    if start:
        first = settings_of(training.train, {**config.table("train"), **config.table("warm_start")})["base"]
        facts["base"] = f"{first}, warmed up on relevance"
        table = {**table, "base": str(start)}
        settings["base"] = "warm_start"  # known by its hash; the run folder may have moved
        inputs["warm start"] = start
    elif kind != "features":
        settings["identity"] = identity(settings["base"])
    elif settings["start"] not in (None, SCRATCH):
        settings["identity"] = identity(settings["start"])
    sampled = synthesized["labels"] == "sampled"
    if settings["labels"] in AT_ALPHA and settings["alpha"] is None and not sampled:
        facts["alpha of the gains"] = synthesis.as_alphas(synthesized["alpha"])[0]
    if grid:
        settings["tune"] = dict(grid)

    def make(_: dict[str, Any]) -> dict[str, Any] | None:
        if not grid:
            training.train(records, folder, facts, **table)
            return None
        trials = tuning.tune(records, folder, facts, table, **grid)
        say(tuning.describe(trials))
        return {"trials": trials}

    run.stage(folder, settings, inputs, make)
