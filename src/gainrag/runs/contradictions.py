"""Whether the settings of a config contradict one another, or name what is not on this machine.

Single values are checked where they are read, by their types (gainrag.settings).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gainrag import lms, retrieval, selection, synthesis, training
from gainrag.cluster import Cluster, check_cluster
from gainrag.errors import ConfigError, ModelError
from gainrag.files.streams import read_json
from gainrag.models.devices import choose_device
from gainrag.models.folder import resolve, source_of
from gainrag.models.registry import PREFIX
from gainrag.runs import names, variants
from gainrag.runs.config import Config, Options, Sweep
from gainrag.selectors.fetching import FEATURES_FILE
from gainrag.settings import settings_of
from gainrag.training.features import SCRATCH
from gainrag.training.labels import AT_ALPHA, PLAIN
from gainrag.training.settings import Kind, Settings, check_read, check_training, read_by

# One of these lies in every model's folder, a GGUF file's aside.
_MARKS = ("config.json", "modules.json", FEATURES_FILE)
_NAMES = "give embedded:NAME, a Hugging Face id or a folder"


def check(config: Config, options: Options) -> None:
    """Whether a config asks for what a run can do, before anything is read or made.

    Raises:
        ConfigError: a name can be no file's or is taken; settings contradict one another; or a device is not there.
        ModelError: what a selector starts from, or a further system, is not there.
    """
    for dataset in config.datasets:
        names.check_name(dataset.name, "[[dataset]]")
    names.check_systems((*(v.name for v in config.variants), *(r.name for r in config.rerankers)))
    _check_made(config)
    _check_labels(config)
    _check_read(config, options.warm_start)
    _check_pseudo(config)
    _check_depths(config, options)
    _check_alphas(config)
    _check_trainings(config, options.warm_start)
    _check_devices(config)
    lms.check(config.table("llm"))
    _check_cluster(config, options.proxy)
    for reranker in config.rerankers:
        look_up_model(reranker.model, f"[[reranker]] {reranker.name} model")


def _check_made(config: Config) -> None:
    """Whether there is something to make data of, and whether the tables that say how are read."""
    for dataset in config.datasets:
        if dataset.documents and not dataset.documents.exists():
            hint = "name a folder of documents"
            raise ConfigError("no such folder", where=f"[[dataset]] {dataset.name}: {dataset.documents}", hint=hint)
    if "ingest" in config.tables and not any(dataset.documents for dataset in config.datasets):
        raise ConfigError("no [[dataset]] has 'documents'", where="[ingest]", hint="leave the table out, or name some")
    if "ask" in config.tables and not any(dataset.asked for dataset in config.datasets):
        hint = "leave the table out, or a [[dataset]]'s train and test"
        raise ConfigError("every [[dataset]] has its questions", where="[ask]", hint=hint)
    if "tune" in config.table("ask"):
        hint = "leave it out, and see validation of [train]"
        raise ConfigError("a run holds out some of the questions that it learns from", where="[ask] tune", hint=hint)


def trainings(config: Config, warm_start: bool) -> list[tuple[str, dict[str, Any]]]:
    """Where each training of a run is configured, with its table."""
    table = config.table("train")
    found = [("[train]", table)]
    if warm_start:
        found.append(("[warm_start]", variants.warm_start_table(config)))
    return found + [(f"[[variant]] {v.name}:", {**table, **v.settings}) for v in config.variants]


def _check_labels(config: Config) -> None:
    for table, labels in (("train", AT_ALPHA), ("warm_start", ("relevance",))):
        if (own := config.table(table).get("labels", labels[0])) not in labels:
            raise ConfigError(
                f"in a run [{table}] has labels {' or '.join(map(repr, labels))}, not {own!r}",
                where=f"[{table}] labels",
                hint="a [[variant]] may learn from other labels",
            )


def _check_read(config: Config, warm_start: bool) -> None:
    """Whether every setting of a training is read: those of [train] by some selector of the run, as they are shared."""
    if (kind := config.table("warm_start").get("kind", "cross-encoder")) != "cross-encoder":
        hint = "leave it out: trees have nothing to warm up"
        raise ConfigError(f"a warm start is a cross-encoder, not {kind!r}", where="[warm_start] kind", hint=hint)
    check_read("cross-encoder", config.table("warm_start"), where="[warm_start]")
    if warm_start and config.table("warm_start") and not variants.wants_warm_start(config):
        raise ConfigError(
            "no selector of this run starts from a warm start: only those of kind 'cross-encoder' do",
            where=f"[warm_start] {next(iter(config.table('warm_start')))}",
            hint="leave the table out, or set kind in [train] or a [[variant]]",
        )
    table = config.table("train")
    read = set(variants.SHARED) if warm_start and variants.wants_warm_start(config) else set()
    for variant in config.variants:
        kind = kind_of({**table, **variant.settings})
        check_read(kind, variant.settings, where=f"[[variant]] {variant.name}")
        read |= read_by(kind, table).keys() - variant.settings.keys()
    check_read(kind_of(table), {key: value for key, value in table.items() if key not in read}, where="[train]")
    check_read(kind_of(table), {k: v for k, v in config.table("tune").items() if k != "seeds"}, where="[tune]")


def kind_of(table: Mapping[str, Any]) -> Kind:
    """What a training with these settings makes."""
    kind: Kind = settings_of(training.train, table)["kind"]
    return kind


def _check_pseudo(config: Config) -> None:
    pseudo = selection.as_pseudo(config.table("select").get("pseudo", "eager"))
    if pseudo != "eager":
        raise ConfigError(
            f"in a run [select] has pseudo {pseudo!r}",
            where="[select] pseudo",
            hint=f"leave it out: {names.NO_PSEUDO!r} is a system of every run, and lazy is for answering",
        )


def depths(config: Config, options: Options) -> dict[str, int]:
    """How many passages the language model is given at most, by the setting that says so."""
    found = {"[select] k": int(settings_of(selection.select, config.table("select"))["k"])}
    if options.top:
        found["[run] top"] = max(options.top)
    if "sweep" in config.tables:
        found["[sweep] k"] = max(Sweep(**config.table("sweep")).k)
    return found


def _check_depths(config: Config, options: Options) -> None:
    if "sweep" in config.tables and not Sweep(**config.table("sweep")).k:
        raise ConfigError("no k is given", where="[sweep] k", hint="name numbers of passages, such as [1, 3, 5]")
    k = settings_of(retrieval.retrieve, config.table("retrieve"))["k"]
    searched = [dataset for dataset in config.datasets if dataset.corpus]
    for where, depth in depths(config, options).items():
        if searched and depth > k:
            raise ConfigError(
                f"{depth} passages are wanted of {k} candidates", where=where, hint="lower it, or raise k of [retrieve]"
            )
    warms_up = options.warm_start and variants.wants_warm_start(config)
    if warms_up and all(d.corpus for d in config.datasets if d.train) and (options.train_k or k) < 2:
        raise ConfigError(
            "one passage a training question teaches no order",
            where="[run] train_k" if options.train_k else "[retrieve] k",
            hint="retrieve two or more, or set warm_start = false in [run]",
        )


def _check_alphas(config: Config) -> None:
    """Whether every alpha to train on is one that losses are stored for; of sampled labels none is."""
    own = settings_of(synthesis.synthesize, config.table("synthesize"))
    given, sampled = own["alpha"], own["labels"] == "sampled"
    synthesis.check_source(config.table("synthesize"), "[synthesize] ")
    if given == [] or given == ():
        raise ConfigError(
            "no alpha is given", where="[synthesize] alpha", hint="0 is plain perplexity, 0.5 the published contrast"
        )
    stored = synthesis.as_alphas(given)
    asked = [("[train] alpha is", config.table("train").get("alpha"))]
    asked += [("[tune] alpha is", value) for value in config.table("tune").get("alpha", ())]
    for variant in config.variants:
        asked.append((f"[[variant]] {variant.name}: alpha is", variant.settings.get("alpha")))
        if (kind := variant.settings.get("labels")) in PLAIN:
            asked.append((f"[[variant]] {variant.name}: labels {kind} need losses at alpha", 0.0))
    if sampled:
        asked += [(f"{where} labels are 'choice', which take losses at", 0.0) for where in _by_choice(config)]
    for what, wanted in asked:
        if sampled and wanted is not None:
            raise ConfigError(
                f"{what} {wanted}, but [synthesize] makes sampled labels, which have no losses",
                where="alpha",
                hint="leave it out, or use labels = \"losses\" in [synthesize]",
            )
        if wanted is not None and float(wanted) not in stored:
            raise ConfigError(
                f"{what} {wanted}, but [synthesize] stores losses at {', '.join(map(str, stored))}",
                where="alpha",
                hint="add it to the alphas of [synthesize]",
            )


def _by_choice(config: Config) -> list[str]:
    """Where a training of the run learns from the gain normalised over the choices."""
    own = [where for where, table in trainings(config, warm_start=False) if table.get("labels") == "choice"]
    return own + (["[tune]"] if "choice" in config.table("tune").get("labels", ()) else [])


def _check_trainings(config: Config, warm_start: bool) -> None:
    """Whether every training has held-out questions where it needs them, and as many layers as it trains."""
    for where, table in trainings(config, warm_start):
        own = settings_of(training.train, table)
        check_training(Settings(**own), where=where)
        if own["kind"] != "features":
            _check_layers(own["base"], own["last_layers"], where)
        elif own["start"] not in (None, SCRATCH):
            look_up_model(own["start"], f"{where} start")
    for key, values in (tune := config.table("tune")).items():
        if not values:
            raise ConfigError("no value is given", where=f"[tune] {key}", hint="name values to try, or leave it out")
    if tune:
        learned = Settings(**settings_of(training.train, config.table("train")))
        check_training(learned, tuned=True, where=f"[tune] {next(iter(tune))}")


def _check_layers(base: str, last_layers: int, where: str) -> None:
    look_up_model(base, f"{where} base")
    described = Path(resolve(base)) / "config.json"
    layers = read_json(described).get("num_hidden_layers") if last_layers and described.is_file() else None
    if isinstance(layers, int) and last_layers > layers:
        raise ConfigError(
            f"{last_layers} layers are to be trained, but {base} has {layers}",
            where=f"{where} last_layers",
            hint="lower it; 0 trains all",
        )


def _check_devices(config: Config) -> None:
    tables = [(f"[{name}]", config.table(name)) for name in ("llm", "train", "warm_start", "selector")]
    for where, table in (*tables, *((f"[[variant]] {v.name}:", v.settings) for v in config.variants)):
        try:
            choose_device(table.get("device", "auto"))
        except ConfigError as error:
            raise ConfigError(error.what, where=f"{where} device", hint=error.hint) from None


def _check_cluster(config: Config, proxy: str | None) -> None:
    cluster = Cluster(**config.table("cluster"))
    for model in (config.table("llm"), *([{**config.table("llm"), "model": proxy}] if proxy else [])):
        check_cluster(cluster, model, "[cluster] ")
    if cluster.may_fail:
        hint = "leave it out: systems are compared on the same questions"
        raise ConfigError("in a run no question may fail", where="[cluster] may_fail", hint=hint)


def look_up_model(model: str, where: str) -> str:
    """Where a model comes from, without loading it.

    Args:
        where: the setting that names it, for errors.

    Raises:
        ModelError: it is nowhere, its name can be none, or its folder holds no model.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    path, where = Path(model), f"{where}: {model[:100]}"
    try:
        found = source_of(model)
        if not (model.startswith(PREFIX) or path.exists()):
            validate_repo_id(model)
    except ModelError as error:
        raise ModelError(error.what, where=where, hint=error.hint) from None
    except (HFValidationError, OSError, ValueError):
        raise ModelError("is no model's name", where=where, hint=_NAMES) from None
    if path.is_dir() and not any((path / name).is_file() for name in _MARKS) and not any(path.glob("*.gguf")):
        raise ModelError("holds no model", where=where, hint=f"name the folder with its {_MARKS[0]}")
    return found
