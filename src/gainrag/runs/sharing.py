"""A run folder without the texts of its data sets, to pass on; and whole again where the data is at hand.

Labels, rankings and answers are the work of hours, the questions and passages in them are others' texts. Shared, a
record keeps its ids, what was measured, and what the language model wrote; the rest is filled in from the data that the
config names, and every file is checked to be, byte for byte, the one that was shared. So `gainrag run` continues it,
even in a stage that was stopped half-way, and `gainrag report` makes its report from it. Index folders and selectors'
weights are not in it: a run makes them again where it needs them.
"""

from __future__ import annotations

import hashlib
import shutil
import tomllib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from gainrag.errors import DataError
from gainrag.files.folders import open_output_folder
from gainrag.files.progress import say
from gainrag.files.streams import open_output, read_json, read_lines, write_json
from gainrag.ingestion import read_passages
from gainrag.records import Answer, GainRecord, Retrieved, encode, from_builtins, to_builtins
from gainrag.runs.config import Config
from gainrag.runs.questions import read_all

# The rooms of a run folder whose files hold texts of the data sets.
ROOMS = ("retrieved", "candidates", "gains", "scores", "selected", "answers")
MANIFEST = "shared.json"
# Files beside the rooms that hold settings and figures alone, and so are shared as they are.
SETTINGS = (
    "config.toml",
    "retrieved/weights.json",
    "gains/agreement.json",
    "diagnosis.json",
    "thresholds.json",
    "evaluation.json",
    "table.txt",
)
# In a shared record: the keys that the data has and the record has not.
ABSENT = "absent"

Plain = dict[str, Any]


class _Passage(msgspec.Struct):
    id: str
    absent: list[str] = []


class _Shared(msgspec.Struct):
    """What every record of a run has, shared or whole."""

    id: str
    ctxs: list[_Passage]
    absent: list[str] = []


class Texts:
    """The questions and passages of a config's data sets, as plain data by id."""

    def __init__(self, config: Config) -> None:
        self.questions: dict[str, Plain] = {}
        self._corpora: dict[str, dict[str, Plain]] = {}  # by data set
        self._brought: dict[str, dict[str, Plain]] = {}  # by question, where there is no corpus
        for question in (q for questions in read_all(config).values() for q in questions):
            self.questions[question.id] = _without(to_builtins(question), ("ctxs",))
            brought = getattr(question, "ctxs", ())
            own = {ctx.id: _without(to_builtins(ctx), ("score", "hasanswer")) for ctx in brought}
            self._brought[question.id] = own
        corpora: dict[Path, dict[str, Plain]] = {}
        for dataset in config.datasets:
            if dataset.corpus and dataset.corpus not in corpora:
                corpora[dataset.corpus] = {p.id: to_builtins(p) for p in read_passages(dataset.corpus)}
            if dataset.corpus:
                self._corpora[dataset.name] = corpora[dataset.corpus]

    def question(self, record: Plain) -> Plain:
        """What the data says of a record's question; where a run asks one several times, a number is behind its id."""
        return self.questions.get(self._id(record), {})

    def passage(self, record: Plain, ctx: Plain) -> Plain:
        """What the data says of one of its passages; nothing of one that a model wrote."""
        if ctx.get("origin") == "generated":
            return {}
        corpus = self._corpora.get(self.question(record).get("dataset", ""))
        return (self._brought.get(self._id(record), {}) if corpus is None else corpus).get(ctx["id"], {})

    def _id(self, record: Plain) -> str:
        given: str = record["id"]
        return given if given in self.questions else given.rpartition("#")[0]


def share(run: str | Path, out: str | Path, config: Config) -> list[str]:
    """Write a run folder's records without the texts of its data, its settings and its figures into a new folder.

    Args:
        run: the run folder, finished or not.
        out: a new folder.
        config: the run's, with the paths of its data.

    Returns:
        The files with records, as they are called in the run folder.

    Raises:
        DataError: it is no run folder, `out` is there already, a file is a link to another, or a record is not of this
            data.
    """
    folder, target = Path(run), Path(out)
    if not (folder / "config.toml").exists():
        raise DataError("is no run folder", where=str(folder), hint="make one with `gainrag run`")
    _check_given(config)
    settings = _settings(folder)
    if elsewhere := _elsewhere(config):
        say(f"{elsewhere[0]} is no path below a data folder: to restore, make the paths of config.toml relative")
    files: dict[str, str] = {}
    _check_new(target)
    with open_output_folder(target) as made:
        texts = Texts(config)
        for path in sorted(path for room in ROOMS for path in (folder / room).rglob("*.jsonl*")):
            name = path.relative_to(folder).as_posix()
            if not name.endswith((".jsonl", ".jsonl.part")):
                continue
            _check_own(path, folder)
            digest = hashlib.sha256()
            with open_output(made / f"{name}.gz") as stream:
                for where, line in _lines(path):
                    bare = _bare(line, texts)
                    if _has_text(bare) or _whole(bare, texts, where) != _encoded(line):
                        raise DataError("is not a record of this data", where=where, hint="check --data")
                    digest.update(_encoded(line))
                    stream.write(_encoded(bare))
            files[name] = digest.hexdigest()
        _copy(settings, folder, made)
        write_json(made / MANIFEST, {"files": files})
    return list(files)


def restore(shared: str | Path, out: str | Path, config: Config) -> list[str]:
    """Make a run folder of what `share` wrote, with the texts of the data that the config names.

    Args:
        shared: the shared folder.
        out: a new folder.
        config: the run's, with the paths of its data.

    Returns:
        The files with records.

    Raises:
        DataError: it is no shared run; a file is a link to another, or its config names data that is not below the
            data folder: who shared it must not choose what is read here; `out` is there already; or a file does not
            come out as it was: the data is not the same.
    """
    folder, target = Path(shared), Path(out)
    settings = _settings(folder)
    files = _manifest(folder)
    there = {path.relative_to(folder).as_posix() for room in ROOMS for path in (folder / room).rglob("*.gz")}
    if others := sorted(there - {f"{name}.gz" for name in files}):
        raise DataError(
            f"{others[0]} is not in {MANIFEST}", where=str(folder), hint="get the shared run again: it is not whole"
        )
    if elsewhere := _elsewhere(config):
        raise DataError(
            f"{elsewhere[0]!r} is no path below a data folder",
            where=str(folder / "config.toml"),
            hint="make it relative, and give the folder it starts from as --data",
        )
    for path in (path for d in config.datasets for path in (d.corpus, d.train, d.test) if path):
        if path.is_relative_to(folder):  # without --data
            _check_own(path, folder)
    _check_new(target)
    with open_output_folder(target) as made:
        texts = Texts(config)
        for name, digest in files.items():
            _check_own(folder / f"{name}.gz", folder)
            found = hashlib.sha256()
            with open_output(made / name) as stream:
                for where, line in _lines(folder / f"{name}.gz"):
                    whole = _whole(line, texts, where)
                    found.update(whole)
                    stream.write(whole)
            if found.hexdigest() != digest:
                raise DataError(
                    "does not come out as it was shared: the data sets are not the same",
                    where=str(folder / f"{name}.gz"),
                    hint="check --data, or make the run anew",
                )
        _copy(settings, folder, made)
    return list(files)


def _manifest(folder: Path) -> dict[str, str]:
    """The files of a shared run, with what they are checked by."""
    path = folder / MANIFEST
    _check_own(path, folder)
    try:
        files = msgspec.convert(read_json(path).get("files"), dict[str, str])
    except msgspec.ValidationError as error:
        raise DataError(f"files: {error}", where=str(path), hint="get the shared run again") from None
    for name in files:
        parts = PurePosixPath(name).parts
        plain = all(part.isprintable() and not part.startswith(".") and len(part.encode()) < 250 for part in parts)
        if not plain or len(parts) < 2 or parts[0] not in ROOMS or not name.endswith((".jsonl", ".jsonl.part")):
            raise DataError(f"{name[:100]!r} is no file of a run", where=str(path), hint="get the shared run again")
    return files


def _check_given(config: Config) -> None:
    """Whether others can have the run's data: they cannot have what it made of documents, or had a model write.

    Raises:
        DataError: they cannot.
    """
    if made := [dataset.name for dataset in config.datasets if dataset.made]:
        hint = "name the files of data/ in the config as corpus, train and test, and run that"
        raise DataError(f"it made the data of {made[0]} itself", where="gainrag share", hint=hint)


def _elsewhere(config: Config) -> list[str]:
    """The data paths of a config, as they are written there, that lead out of the folder they start from."""
    tables = tomllib.loads(config.text).get("dataset", []) if config.text else []
    paths = [table[key] for table in tables for key in ("corpus", "train", "test") if key in table]
    return [path for path in paths if Path(path).is_absolute() or ".." in Path(path).parts]


def _check_own(path: Path, folder: Path) -> None:
    """Whether a file of a folder is its own: a link could pass on any file of whoever follows it.

    Raises:
        DataError: it is a link, lies behind one, or is no plain file.
    """
    inside = path.relative_to(folder).parts
    links = any(folder.joinpath(*inside[:n]).is_symlink() for n in range(1, len(inside) + 1))
    if links or (path.exists() and not path.is_file()):
        raise DataError("is a link or no plain file", where=str(path), hint="put the file itself there")


def _check_new(target: Path) -> None:
    if target.exists():
        raise DataError("is there already", where=str(target), hint="choose another output")


def _settings(folder: Path) -> list[Path]:
    """The files that hold settings and figures alone.

    Raises:
        DataError: one is a link, or a folder is: what is behind a link is not looked for.
    """
    if links := [path for path in folder.rglob("*") if path.is_symlink() and path.is_dir()]:
        raise DataError("is a link", where=str(links[0]), hint="put the folder itself there")
    own = [folder / name for name in SETTINGS]
    inside = folder / "index"  # the indexes' own, which go with them
    metas = (p for p in folder.rglob("*.meta.json") if p.parent == inside or not p.is_relative_to(inside))
    for path in (found := [*own, *metas]):
        _check_own(path, folder)
    return [path for path in found if path.exists()]


def _copy(files: list[Path], folder: Path, target: Path) -> None:
    for path in files:
        copy = target / path.relative_to(folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)


def _lines(path: Path) -> Iterator[tuple[str, Plain]]:
    """The records of a file as plain data; of one that was stopped the last line may be half a line and is left out."""
    for number, line in read_lines(path):
        if not line.endswith(b"\n"):
            continue
        where = f"{path}:{number}"
        try:
            record = msgspec.json.decode(line)
            msgspec.convert(record, _Shared)
        except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError) as error:
            raise DataError(f"no record: {error}", where=where, hint="get the file again") from None
        yield where, record


def _bare(line: Plain, texts: Texts) -> Plain:
    """A record without what the data says of its question and its passages."""
    ctxs = [{"id": ctx["id"], **_less(ctx, texts.passage(line, ctx))} for ctx in line["ctxs"]]
    bare = {"id": line["id"], **_less(line, texts.question(line)), "ctxs": ctxs}
    choices = texts.question(line).get("choices") or ()
    if bare.get("prediction") in choices:  # one of the data's texts: its place among them says which
        bare["prediction"] = choices.index(bare["prediction"])
    return bare


def _has_text(bare: Plain) -> bool:
    """Whether a record still has a text that should have come from the data."""
    own = [ctx for ctx in bare["ctxs"] if ctx.get("origin") != "generated"]
    return not {"question", "answers"}.isdisjoint(bare) or any(not {"title", "text"}.isdisjoint(ctx) for ctx in own)


def _whole(bare: Plain, texts: Texts, where: str) -> bytes:
    """The record that `_bare` was made from, as one line."""
    kind = GainRecord if "silver" in bare else Answer if "prediction" in bare else Retrieved
    ctxs = [_more(ctx, texts.passage(bare, ctx)) for ctx in bare["ctxs"]]
    choices, said = texts.question(bare).get("choices") or (), bare.get("prediction")
    if type(said) is int and 0 <= said < len(choices):
        bare = {**bare, "prediction": choices[said]}
    try:
        return encode(from_builtins(kind, _more({**bare, "ctxs": ctxs}, texts.question(bare))))
    except msgspec.ValidationError as error:
        raise DataError(str(error), where=where, hint="check --data: its question or a passage is not there") from None


def _encoded(line: Plain) -> bytes:
    return msgspec.json.encode(line) + b"\n"


def _less(record: Plain, known: Mapping[str, Any]) -> Plain:
    """A record without what is known of it; what is known and not in it is named."""
    own = {key: value for key, value in record.items() if key not in known or known[key] != value}
    absent = [key for key in known if key not in record]
    return {**own, ABSENT: absent} if absent else own


def _more(own: Plain, known: Mapping[str, Any]) -> Plain:
    """The record that `_less` was made from."""
    absent = own.get(ABSENT, ())
    return {**_without(known, absent), **_without(own, (ABSENT,))}


def _without(record: Mapping[str, Any], keys: Collection[str]) -> Plain:
    return {key: value for key, value in record.items() if key not in keys}
