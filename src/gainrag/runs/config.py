"""TOML configs, checked against the signatures of the stages: one table a stage, its keyword-only parameters the keys.

So a default is written once, in the signature; an unknown key is an error with a suggestion; flags of the command
line and keys of the config cannot differ.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from typing import Any

from gainrag.errors import ConfigError, DataError, unknown
from gainrag.records import ASKED_BY
from gainrag.runs.names import check_name
from gainrag.settings import Name, Passages, Seed, Seeds, Some, check_settings, parameters

Stages = Mapping[str, Callable[..., Any]]

# Where a run keeps the data that it makes itself: a folder a data set.
DATA = "data"


@dataclass(frozen=True)
class Dataset:
    """A corpus with questions to train on, to test on, or both. Without one, they bring their passages (`ctxs`).

    documents: a folder that the run makes the corpus of.
    questions: what people asked, with answers; it joins the test where the language model writes the questions.
    made: which of corpus, train and test the run makes itself; their paths start at its folder, see `Config.inside`.
    """

    name: str
    train: Path | None = None
    test: Path | None = None
    corpus: Path | None = None
    documents: Path | None = None
    questions: Path | None = None
    made: frozenset[str] = frozenset()

    @property
    def asked(self) -> bool:
        """Whether the language model writes its questions."""
        return "train" in self.made

    def split(self, name: str) -> Path | None:
        """The file of a split, train or test, where the data set serves for it."""
        return self.train if name == "train" else self.test


@dataclass(frozen=True)
class Variant:
    """A selector trained another way, and the system of that name.

    settings: those of training that differ from [train].
    questions: how many of the labelled questions it learns from; 0 is all.
    train_on: the data sets it learns from; empty is all.
    leave_out: whether it is one selector a data set, each learned from all the others.
    """

    name: str
    settings: dict[str, Any]
    _: KW_ONLY
    questions: int = 0
    train_on: Sequence[str] = ()
    leave_out: bool = False

    @property
    def table(self) -> dict[str, Any]:
        """What its table sets, without the name."""
        own = {"questions": self.questions, "train_on": self.train_on, "leave_out": self.leave_out}
        return {**{key: value for key, value in own.items() if value}, **self.settings}


@dataclass(frozen=True)
class Reranker:
    """A cross-encoder that is there already, and the system of that name.

    model: embedded:NAME, a Hugging Face id or a folder.
    """

    name: str
    model: str


@dataclass(frozen=True)
class Config:
    """A whole run: the data sets, for each stage the settings that differ from its defaults, and further systems."""

    datasets: tuple[Dataset, ...]
    tables: dict[str, dict[str, Any]] = field(default_factory=dict)
    text: str = ""
    variants: tuple[Variant, ...] = ()
    rerankers: tuple[Reranker, ...] = ()

    def table(self, name: str) -> dict[str, Any]:
        """The settings of a stage, as keyword arguments."""
        return dict(self.tables.get(name, {}))

    @property
    def group_by(self) -> str:
        """The key of the questions that the run's evaluation groups them by: where people asked some and a model wrote
        the others, who asked, unless it is told otherwise."""
        both = any(d.questions for d in self.datasets) and all(d.asked for d in self.datasets)
        return str(self.table("evaluate").get("group_by", ASKED_BY if both else "dataset"))

    def inside(self, folder: Path) -> Config:
        """The same of a run in this folder, with the paths of what it makes itself."""
        placed = (replace(d, **{part: folder / getattr(d, part) for part in d.made}) for d in self.datasets)
        return replace(self, datasets=tuple(placed))


@dataclass(frozen=True, kw_only=True)
class Options:
    """The settings of a run itself: the table [run], and the flags of `gainrag run`.

    Args:
        train_questions: questions a data set that get gain labels, drawn by the seed; 0 is all.
        train_k: passages retrieved for a training question; as many as for a test question when it is left out.
        test_questions: questions a data set to test on, drawn by the seed; 0 is all.
        proxy: the model that labels in the place of that of [llm], which answers; with its dtype and device.
        proxy_questions: labelled training questions that [llm] labels too, to see how far the two agree; 0 is none.
        diagnose: training questions whose every candidate is answered, to compare alphas; 0 is none.
        warm_start: train on has-answer labels of training questions before the gains; off for a trained reranker.
        warm_start_questions: for that, training questions a data set, drawn by the seed; 0 is all.
        pseudo: let the language model write the pseudo-passage; off where the candidates are complete as they come, as
            those of a task with a list of its own: labels and answers then cost what these cost.
        oracle: measure the test candidates' gains, too, to see what the best choice would reach; with many of them this
            costs more than the labels.
        top: how many of each retriever's first passages the language model is given, beside k of [select].
        seeds: how often each selector is trained, with its seed, the next one, and so on; tables show the mean over
            them and how far they differ.
        seed: of the draws.
    """

    train_questions: Some = 0
    train_k: Passages | None = None
    test_questions: Some = 0
    proxy: Name | None = None
    proxy_questions: Some = 50
    diagnose: Some = 50
    warm_start: bool = True
    warm_start_questions: Some = 0
    pseudo: bool = True
    oracle: bool = True
    top: Sequence[Passages] = ()
    seeds: Seeds = 1
    seed: Seed = 0


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """The table [sweep]: answers from the first k passages of either selector (the paper's Figure 5).

    Args:
        k: the numbers of passages.
        questions: test questions a data set, drawn by the seed of [run]; 0 is all.
    """

    k: Sequence[Passages] = (1, 2, 3, 5, 10)
    questions: Some = 50


def read_config(path: str | Path, stages: Stages | None, data: str | Path | None = None) -> Config:
    """Read and check a config.

    Args:
        stages: by table name, the functions whose keyword-only parameters are its keys; None of a finished run's
            config, which was checked when the run was made.
        data: the folder that relative data paths start from; the config's own folder when None.

    Raises:
        DataError: there is no such file.
        ConfigError: it is no TOML, or a table, key or value is not one of the stage's.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        tables = tomllib.loads(text)
    except FileNotFoundError:
        raise DataError("no such file", where=str(path), hint="name a config, such as configs/small/nq.toml") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"no TOML: {error}", where=str(path), hint="see docs/config.md") from None
    except OSError as error:
        raise DataError(str(error.strerror).lower(), where=str(path), hint="name a readable file") from None
    base = Path(data) if data else path.parent
    datasets = _datasets(tables.pop("dataset", None), base, str(path), asking="ask" in tables)
    variants = _variants(tables.pop("variant", []), stages, datasets, str(path))
    rerankers = _rerankers(tables.pop("reranker", []), str(path))
    for name, table in tables.items():
        _check_table(name, table, stages, str(path))
    return Config(datasets, tables, text, variants, rerankers)


def _check_table(name: str, table: Any, stages: Stages | None, where: str) -> None:
    if stages is not None and name not in stages:
        known = [*(f"[{stage}]" for stage in stages), "[[dataset]]", "[[variant]]", "[[reranker]]"]
        written = f"[[{name}]]" if isinstance(table, list) else f"[{name}]"
        raise ConfigError(unknown("table", written, known), where=where)
    if not isinstance(table, dict):
        raise ConfigError(f"{name!r} stands outside of any table", where=where, hint=f"write it as [{name}]")
    if stages is not None:
        check_settings(table, parameters(stages[name]), where=f"{where} [{name}]")


def _datasets(tables: Any, base: Path, where: str, asking: bool) -> tuple[Dataset, ...]:
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise ConfigError("no [[dataset]]", where=where, hint="name at least one, with name, corpus, train and test")
    found = []
    for table in tables:
        keys = ("name", "corpus", "documents", "train", "test", "questions")
        if wrong := [key for key in table if key not in keys]:
            raise ConfigError(f"{unknown('key', wrong[0], keys)} in [[dataset]]", where=where)
        if wrong := [key for key in table if not isinstance(table[key], str)]:
            raise ConfigError(f"{wrong[0]} of [[dataset]] is {table[wrong[0]]!r}", where=where, hint="give a string")
        if wrong := [key for key in keys[1:] if table.get(key) == ""]:
            raise ConfigError(f"{wrong[0]} of [[dataset]] is empty", where=where, hint="name a file, or leave it out")
        if "name" not in table:
            raise ConfigError("[[dataset]] has no 'name'", where=where, hint="add name = \"NAME\"")
        check_name(table["name"], f"{where} [[dataset]]")
        if wrong := [key for key in keys[1:] if "\0" in table.get(key, "")]:
            raise ConfigError(f"{wrong[0]} has a NUL character", where=f"{where} [[dataset]]", hint="name a file")
        paths = {key: base / table[key] for key in keys[1:] if key in table}
        made = _made(table, where, asking)
        own = {part: Path(DATA, table["name"], f"{part}.jsonl") for part in made}
        found.append(Dataset(name=table["name"], **{**paths, **own}, made=made))
    names = {dataset.name.casefold() for dataset in found}  # folders: on some disks Nq is nq
    if len(names) < len(found):
        raise ConfigError("two data sets have the same name", where=where, hint="rename one")
    for split in ("train", "test"):
        if not any(dataset.split(split) for dataset in found):
            hint = "a run needs questions to train on and questions to test on"
            raise ConfigError(f"no [[dataset]] has {split!r}", where=where, hint=hint)
    return tuple(found)


def _made(table: Mapping[str, str], where: str, asking: bool) -> frozenset[str]:
    """Which of a data set's files the run makes itself.

    Raises:
        ConfigError: it has too little to make them of, or two of what it needs one of.
    """
    name, splits = f"[[dataset]] {table['name']}", {"train", "test"} & set(table)
    if {"corpus", "documents"} <= set(table):
        hint = "give one: the run makes a corpus of documents"
        raise ConfigError(f"{name} has both 'corpus' and 'documents'", where=where, hint=hint)
    if not splits and not (asking and {"corpus", "documents"} & set(table)):
        hint = "give one or both, or a corpus or documents, and a table [ask] to have the language model write them"
        raise ConfigError(f"{name} has neither 'train' nor 'test'", where=where, hint=hint)
    if splits and "questions" in table:
        hint = "put them into these: 'questions' join those that the language model writes"
        raise ConfigError(f"{name} has 'questions' and {min(splits)!r}", where=where, hint=hint)
    return frozenset((() if splits else ("train", "test")) + (("corpus",) if "documents" in table else ()))


def _variants(
    tables: Any, stages: Stages | None, datasets: Sequence[Dataset], where: str
) -> tuple[Variant, ...]:
    own = parameters(Variant)
    with_train = [dataset.name for dataset in datasets if dataset.train]
    found = []
    for table in _named(tables, "variant", where):
        at = f"{where} [[variant]] {table['name']}"
        given = {key: value for key, value in table.items() if key != "name"}
        check_settings({k: v for k, v in given.items() if k in own}, own, where=at)
        if stages is not None:
            check_settings(given, {**parameters(stages["train"]), **own}, where=at)
        for name in given.get("train_on", ()):
            if name not in with_train:
                kind = "data set with training questions"
                raise ConfigError(unknown(kind, name, with_train), where=f"{at} train_on")
        if "questions" in given and given["questions"] < 1:
            raise ConfigError(f"questions is {given['questions']}", where=at, hint="leave it out to learn from all")
        if "train_on" in given and given.get("leave_out"):
            raise ConfigError("it has both train_on and leave_out", where=at, hint="make two variants of it")
        if given.get("train_on") == [] or (given.get("leave_out") and len(with_train) < 2):
            raise ConfigError("no data set is left to learn from", where=at, hint="name data sets that have 'train'")
        settings = {key: value for key, value in given.items() if key not in own}
        found.append(Variant(table["name"], settings, **{key: given[key] for key in own if key in given}))
    return tuple(found)


def _rerankers(tables: Any, where: str) -> tuple[Reranker, ...]:
    found = []
    for table in _named(tables, "reranker", where):
        at = f"{where} [[reranker]] {table['name']}"
        if wrong := [key for key in table if key not in ("name", "model")]:
            raise ConfigError(unknown("key", wrong[0], ("name", "model")), where=at)
        if not isinstance(table.get("model"), str):
            raise ConfigError("no 'model'", where=at, hint="give embedded:NAME, a Hugging Face id or a folder")
        found.append(Reranker(table["name"], table["model"]))
    return tuple(found)


def _named(tables: Any, kind: str, where: str) -> list[dict[str, Any]]:
    """The tables of a kind of which there may be several, each with a name."""
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ConfigError(f"{kind} is no list of tables", where=where, hint=f"write each one as [[{kind}]]")
    if not all(isinstance(table.get("name"), str) for table in tables):
        raise ConfigError(f"a [[{kind}]] has no 'name'", where=where, hint="it is a string, the system's name")
    return tables
