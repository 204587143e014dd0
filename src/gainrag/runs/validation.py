"""What `gainrag validate` looks at: everything that can be checked before compute is spent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gainrag import indexing, ingestion, lms, synthesis, training
from gainrag.runs import stages, variants
from gainrag.training import labels
from gainrag.runs.config import Config
from gainrag.settings import settings_of
from gainrag.errors import ConfigError
from gainrag.models.folder import source_of


def validate(config: Config) -> list[str]:
    """Read every data file, look every local model up, and check the settings against one another.

    Returns:
        What was found, a line each.

    Raises:
        DataError: a file is missing, malformed, empty or has duplicates.
        ConfigError: settings contradict one another.
        ModelError: an embedded model or local folder is not there.
    """
    lines = []
    # Several data sets may search one corpus: 21 million passages are read once.
    paths = {dataset.corpus for dataset in config.datasets if dataset.corpus}
    corpora = {path: sum(1 for _ in ingestion.read_passages(path)) for path in paths}
    drawn = settings_of(stages.run, config.table("run"))["train_questions"]
    labelled = {}
    for dataset in config.datasets:
        reader = ingestion.read_questions if dataset.corpus else ingestion.read_retrieved
        files = {split: file for split in ("train", "test") if (file := dataset.questions(split))}
        counts = {split: len(reader(file, need_answers=True)) for split, file in files.items()}
        if "train" in counts:
            labelled[dataset.name] = min(counts["train"], drawn or counts["train"])
        questions = " and ".join(f"{n} {split}" for split, n in counts.items())
        passages = f", {corpora[dataset.corpus]} passages" if dataset.corpus else ""
        lines.append(f"{dataset.name}: {questions} questions{passages}")
    stages.check(config)
    variants.check_enough(config, labelled)
    _check_alpha(config)
    models: list[tuple[str, str, Callable[..., Any]]] = []
    if corpora and settings_of(indexing.index, config.table("index"))["retriever"] != "bm25":
        models.append(("index", "model", indexing.index))
    models += [("llm", "model", lms.open_lm), ("train", "base", training.train)]
    for table, key, stage in models:
        name = settings_of(stage, config.table(table))[key]
        lines.append(f"[{table}] {key}: {name} ({source_of(name)})")
    for variant in config.variants:
        if (base := variant.settings.get("base")) is not None:
            lines.append(f"[[variant]] {variant.name}: base {base} ({source_of(base)})")
    for reranker in config.rerankers:
        lines.append(f"[[reranker]] {reranker.name}: {reranker.model} ({source_of(reranker.model)})")
    return lines


def _check_alpha(config: Config) -> None:
    """Whether every alpha to train on is one that losses are stored for."""
    stored = synthesis.as_alphas(settings_of(synthesis.synthesize, config.table("synthesize"))["alpha"])
    asked = [("[train] alpha is", config.table("train").get("alpha"))]
    asked += [("[tune] alpha is", value) for value in config.table("tune").get("alpha", ())]
    for variant in config.variants:
        asked.append((f"[[variant]] {variant.name}: alpha is", variant.settings.get("alpha")))
        if (kind := variant.settings.get("labels")) in labels.PLAIN:
            asked.append((f"[[variant]] {variant.name}: labels {kind} need losses at alpha", 0.0))
    for what, wanted in asked:
        if wanted is not None and float(wanted) not in stored:
            raise ConfigError(
                f"{what} {wanted}, but [synthesize] stores losses at {', '.join(map(str, stored))}",
                where="alpha",
                hint="add it to the alphas of [synthesize]",
            )
