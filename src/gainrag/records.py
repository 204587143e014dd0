"""The records that flow between stages, and how they are read from and written to JSON lines.

One record is one line. Files may be plain or .gz, and `-` is standard input or output. Unknown keys of the input
are kept in `extra` and written back. A line that does not fit is an error that names file, line and field.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import os
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Literal, TypeVar

import msgspec

from gainrag.errors import DataError, ResourceError

Origin = Literal["corpus", "generated"]


class Record(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What all records share: keys that this version does not know are kept in `extra`, not dropped."""

    extra: dict[str, Any] = {}


class Passage(Record, kw_only=True):
    """A piece of text a model may read. `origin` "generated" marks the pseudo-passage, whatever its position."""

    id: str
    title: str = ""
    text: str
    origin: Origin = "corpus"


class Scored(Passage, kw_only=True):
    """A passage as a retriever or selector returned it. The pseudo-passage was never retrieved: its score is None."""

    score: float | None = None
    hasanswer: bool | None = None


class Gained(Scored, kw_only=True):
    """A scored passage with its contrastive loss (nats per token, least over the answers) by alpha, and its gain."""

    loss: dict[str, float]
    gain: float


class Question(Record, kw_only=True):
    """A question and its gold answers; `answers` may be empty where nothing is trained or evaluated."""

    id: str
    question: str
    answers: list[str] = []


class Retrieved(Question, kw_only=True):
    """A question with its candidate passages, best first: the DPR/Contriever result format."""

    ctxs: list[Scored]


class GainRecord(Question, kw_only=True):
    """A training label: every candidate's gain, the silver passage's index, whether the question passed the filter.

    loss_without: nats per token of the easiest answer when no passage is read; None in files that do not say.
    """

    kept: bool
    prediction: str
    silver: int
    ctxs: list[Gained]
    loss_without: float | None = None


class Answer(Question, kw_only=True):
    """What a system answered (`prediction`), from which passages (`ctxs`)."""

    prediction: str
    ctxs: list[Scored] = []


R = TypeVar("R", bound=Record)

# Which field of a record holds records in turn, and of what type.
_NESTED: dict[type[Record], type[Record]] = {Retrieved: Scored, GainRecord: Gained, Answer: Scored}


def mark_answers(passages: Iterable[Scored], answers: Sequence[str]) -> None:
    """Mark each passage with whether it holds one of the answers, where they are known."""
    from gainrag.metrics import has_answer

    for passage in passages if answers else ():
        passage.hasanswer = has_answer(passage.text, answers)


def from_builtins(kind: type[R], value: object) -> R:
    """Make a record from decoded JSON; keys the type does not have go to `extra`.

    Raises:
        msgspec.ValidationError: a field is missing or of the wrong type; the message names its path.
    """
    return msgspec.convert(_with_extra(kind, value), kind)


def _with_extra(kind: type[Record], value: object) -> object:
    if not isinstance(value, dict):
        return value
    known = set(kind.__struct_fields__) - {"extra"}
    lifted = {key: item for key, item in value.items() if key in known}
    extra = {key: item for key, item in value.items() if key not in known}
    if extra:
        lifted["extra"] = extra
    if kind in _NESTED and isinstance(lifted.get("ctxs"), list):
        lifted["ctxs"] = [_foreign_score(_with_extra(_NESTED[kind], ctx)) for ctx in lifted["ctxs"]]
    return lifted


def _foreign_score(ctx: object) -> object:
    """DPR writes scores and ids of another JSON type: the score as a string, the id as a number."""
    if isinstance(ctx, dict):
        if isinstance(ctx.get("score"), str):
            with suppress(ValueError):  # left as it is then: msgspec names the field
                ctx["score"] = float(ctx["score"])
        if isinstance(ctx.get("id"), int):
            ctx["id"] = str(ctx["id"])
    return ctx


def to_builtins(record: Record) -> dict[str, Any]:
    """The record as plain JSON data, `extra` merged back in. Fields without a default are always written."""
    out: dict[str, Any] = {}
    for name in record.__struct_fields__:
        value = getattr(record, name)
        if name == "extra":
            continue
        if isinstance(value, list) and value and isinstance(value[0], Record):
            value = [to_builtins(item) for item in value]
        if value is None or (name == "origin" and value == "corpus"):
            continue
        out[name] = value
    # Struct fields come base class first; a record reads best with its id in front.
    ordered: dict[str, Any] = {key: out[key] for key in ("id", "question", "title", "text") if key in out}
    return {**ordered, **out, **record.extra}


def encode(record: Record) -> bytes:
    """One JSON line, newline included."""
    return msgspec.json.encode(to_builtins(record)) + b"\n"


def open_input(path: str | Path) -> IO[bytes]:
    """Open a file for reading bytes: plain, .gz, or `-` for standard input.

    Raises:
        DataError: there is no such file, or it is a folder.
    """
    if str(path) == "-":
        return sys.stdin.buffer
    try:
        if str(path).endswith(".gz"):
            return io.BufferedReader(gzip.open(path, "rb"))
        return open(path, "rb")
    except FileNotFoundError:
        raise DataError("no such file", where=str(path), hint="check the path") from None
    except (IsADirectoryError, PermissionError) as error:
        raise DataError(str(error.strerror).lower(), where=str(path), hint="name a readable file") from None


def read_lines(path: str | Path) -> Iterator[tuple[int, bytes]]:
    """The non-blank lines of a file with their numbers, from 1.

    Raises:
        DataError: the file is missing or its compression is damaged.
    """
    with open_input(path) as stream:
        number = 0
        try:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    yield number, line
        except (zlib.error, EOFError, OSError) as error:
            raise DataError(
                f"cannot be read past this line ({error})", where=f"{path}:{number + 1}", hint="get the file again"
            ) from None


def read(path: str | Path, kind: type[R]) -> Iterator[R]:
    """Stream the records of a JSON-lines file.

    Raises:
        DataError: a line is no JSON or does not fit `kind`, with file, line and field; or the file has no record.
    """
    empty = True
    for number, line in read_lines(path):
        empty = False
        where = f"{path}:{number}"
        try:
            yield from_builtins(kind, msgspec.json.decode(line))
        except msgspec.ValidationError as error:
            hint = f"see the record {kind.__name__} in docs/records.md"
            raise DataError(str(error), where=where, hint=hint) from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise DataError(f"no JSON: {error}", where=where, hint="one JSON object a line") from None
    if empty:
        raise DataError("the file is empty", where=str(path), hint=f"it should hold {kind.__name__} records")


def write(path: str | Path, records: Iterable[Record]) -> int:
    """Write records as JSON lines and return how many. The file appears whole or not at all.

    Raises:
        ResourceError: the disk is full; what was at `path` before is still there.
    """
    count = 0
    with open_output(path) as stream:
        for record in records:
            stream.write(encode(record))
            count += 1
    return count


@contextmanager
def open_output(path: str | Path) -> Iterator[IO[bytes]]:
    """A stream that becomes `path` when all went well: written beside it first, then renamed over it.

    Gzip files carry no time stamp, so that the same records make the same bytes.
    """
    if str(path) == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with disk_errors(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(temporary, "wb") as raw:
                if path.name.endswith(".gz"):
                    with gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as packed:
                        yield packed  # type: ignore[misc]
                else:
                    yield raw
                raw.flush()
                os.fsync(raw.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def disk_errors(path: str | Path) -> Iterator[None]:
    """Turn the operating system's refusals to write into one-line errors."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise ResourceError(
                "the disk is full; earlier output is as it was",
                where=str(path),
                hint="free some space and run it again",
            ) from None
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EEXIST):
            raise DataError(
                f"cannot be written ({error.strerror})", where=str(path), hint="choose another output path"
            ) from None
        raise


def write_json(path: str | Path, value: Mapping[str, Any]) -> None:
    """Write one JSON object, indented and with a final newline; whole or not at all."""
    with open_output(path) as stream:
        stream.write(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")


def read_json(path: str | Path) -> dict[str, Any]:
    """Read one JSON object.

    Raises:
        DataError: it is missing, or no JSON object.
    """
    with open_input(path) as stream:
        try:
            return msgspec.json.decode(stream.read(), type=dict[str, Any])
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise DataError(f"no JSON object: {error}", where=str(path), hint="make the file again") from None


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hex; of a folder, of its files' names and bytes in order."""
    digest = hashlib.sha256()
    path = Path(path)
    for file in sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]:
        if path.is_dir():
            digest.update(str(file.relative_to(path)).encode() + b"\0")
        with open(file, "rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
