"""Files as streams: records and JSON objects, read and written whole or not at all.

Files may be plain or .gz, and `-` is standard input or output. A line that does not fit its record is an error that
names file, line and field.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import itertools
import logging
import os
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

import msgspec

from gainrag.errors import DataError, GainragError, ResourceError
from gainrag.files import decoding
from gainrag.files.locks import lock
from gainrag.files.places import beside, is_stream, replace, target
from gainrag.records import Passage, Question, Record, check, encode, from_builtins

R = TypeVar("R", bound=Record)

logger = logging.getLogger(__name__)


def open_input(path: str | Path) -> IO[bytes]:
    """Open a file for reading bytes: plain, .gz, or `-` for standard input.

    Raises:
        DataError: there is no such file, it is a folder, or its path is none.
    """
    if str(path) == "-":
        return sys.stdin.buffer
    with input_errors(path):
        if str(path).endswith(".gz"):
            return io.BufferedReader(gzip.open(path, "rb"))
        return open(path, "rb")


@contextmanager
def input_errors(path: str | Path) -> Iterator[None]:
    """Turn the operating system's refusals to open or look at a file into one-line errors."""
    try:
        # Names that are no text could be read, and would fail where they are noted beside what is made of them.
        str(path).encode()
        yield
    except UnicodeEncodeError:
        raise DataError("the path is not UTF-8", where=ascii(str(path)), hint="rename the file or folder") from None
    except FileNotFoundError:
        raise DataError("no such file", where=str(path), hint="check the path") from None
    except OSError as error:
        what = str(error.strerror or error).lower()
        raise DataError(what, where=str(path), hint="name a readable file") from None
    except ValueError as error:  # a path with a NUL
        raise DataError(f"is no path ({error})", where=ascii(str(path)), hint="check the path") from None


def read_blocks(path: str | Path) -> Iterator[bytes]:
    """A file's bytes, unpacked and without a byte-order mark, at most 1 MiB at a time.

    Raises:
        DataError: the file is missing or its compression is damaged.
    """
    done = 0
    with open_input(path) as stream:
        try:
            for block in decoding.blocks(stream):
                if not done and block == decoding.BOM:
                    logger.warning("%s: left out the byte-order mark at its start", path)
                else:
                    yield block
                done += len(block)
        except (zlib.error, EOFError, OSError) as error:
            what = f"cannot be read past byte {done} ({error})"
            raise DataError(what, where=str(path), hint="get the file again") from None


def read_lines(path: str | Path) -> Iterator[tuple[int, bytes]]:
    """The non-blank lines of a file with their numbers, from 1.

    Raises:
        DataError: the file is missing, its compression is damaged, or a line is longer than 64 MiB.
    """
    return decoding.lines(path, read_blocks(path))


def read_whole(path: str | Path) -> bytes:
    """A file's bytes, unpacked and without a byte-order mark.

    Raises:
        DataError: the file is missing, its compression is damaged, or it is larger than 2 GiB.
    """
    return decoding.whole(path, read_blocks(path), stored_size(path))


def stored_size(path: str | Path) -> int | None:
    """The bytes on disk of a compressed file; None of others."""
    return os.path.getsize(path) if str(path).endswith(".gz") and os.path.isfile(path) else None


def read_values(path: str | Path) -> Iterator[tuple[str, int | None, bytes | msgspec.Raw]]:
    """(place, position, JSON not decoded yet) of JSON lines, or of one JSON array, be it on one line or on many.

    The place names file and line, of an array file and record, from 1. The position is that in an array, from 0.

    Raises:
        DataError: the file cannot be read, or an array is no JSON or larger than 2 GiB.
    """
    found = read_blocks(path)
    first, block = 1, b""
    for block in found:
        if not block.isspace():
            break
        first += block.count(b"\n")
    found = itertools.chain([block], found)
    if not block.lstrip().startswith(b"["):
        for number, line in decoding.lines(path, found, first):
            yield f"{path}:{number}", None, line
        return
    data = decoding.whole(path, found, stored_size(path))
    array: list[msgspec.Raw] = decoding.decode(data, str(path), kind=list[msgspec.Raw])
    for position, raw in enumerate(array):
        yield f"{path}: record {position + 1}", position, raw


def read(path: str | Path, kind: type[R]) -> Iterator[R]:
    """Stream the records of a JSON-lines file that gainrag wrote, checked (see `gainrag.records.check`).

    Raises:
        DataError: a line is no JSON or does not fit `kind`, with file, line and field; an id comes twice; or the file
            has no record.
    """
    values = ((f"{path}:{number}", line) for number, line in read_lines(path))
    decoded = ((where, decoding.decode(line, where)) for where, line in values)
    return (record for _, record in fit(path, decoded, kind))


def fit(path: str | Path, values: Iterable[tuple[str, object]], kind: type[R]) -> Iterator[tuple[str, R]]:
    """Records made of decoded JSON and checked, with their places.

    Args:
        path: the file they come from.
        values: (place in the file, decoded JSON).

    Raises:
        DataError: a value does not fit `kind`, with place and field; an id comes twice; or there is none.
    """
    seen: dict[str, str | None] = {}
    for where, value in values:
        try:
            record = from_builtins(kind, value)
        except msgspec.ValidationError as error:
            hint = f"see the record {kind.__name__} in docs/records.md"
            raise DataError(str(error), where=where, hint=hint) from None
        check(record, where)
        if isinstance(record, Passage | Question):
            distinct(record, where, seen)
        yield where, record
    if not seen:
        raise DataError("the file is empty", where=str(path), hint=f"it should hold {kind.__name__} records")


def distinct(record: Passage | Question, where: str, seen: dict[str, str | None]) -> None:
    """Whether a record's id is none of those before it: `seen` has these with their places, and gets this one's.

    Raises:
        DataError: it is.
    """
    what = "passage" if isinstance(record, Passage) else "question"
    if record.id in seen:
        first = f" (first at {place})" if (place := seen[record.id]) else ""
        hint = "ids must differ; remove or rename one"
        raise DataError(f"duplicate {what} id {record.id!r}{first}", where=where, hint=hint)
    # Of passages there may be many millions: their places are not kept.
    seen[record.id] = where if what == "question" else None


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
def open_output(path: str | Path, *, of: str | Path | None = None) -> Iterator[IO[bytes]]:
    """A stream that becomes `path` when all went well: written beside it first, then renamed over it.

    Through a link its target is written. A device or a pipe is written directly. Gzip files carry no time stamp, so
    that the same records make the same bytes.

    Raises:
        ResourceError: the disk is full; what was at `path` before is still there.
        DataError: it cannot be written there, or another process is writing it.
    """
    if str(path) == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    with disk_errors(path):
        if is_stream(path):
            with open(path, "wb") as raw, _packed(path, raw) as stream:
                yield stream
            return
        out, temporary = target(path), beside(path, "tmp")
        with lock(path if of is None else of):
            if out.exists() and not out.is_file():
                raise DataError("is no file", where=str(path), hint="choose another output path")
            try:
                with open(temporary, "wb") as raw:
                    with _packed(path, raw) as stream:
                        yield stream
                    raw.flush()
                    os.fsync(raw.fileno())
                replace(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)


@contextmanager
def _packed(path: str | Path, raw: IO[bytes]) -> Iterator[IO[bytes]]:
    if str(path).endswith(".gz"):
        with gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as packed:
            yield packed  # type: ignore[misc]
    else:
        yield raw


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_REFUSED = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.ENXIO),
    *(errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ELOOP, errno.ENAMETOOLONG),
)


@contextmanager
def disk_errors(path: str | Path) -> Iterator[None]:
    """Turn the operating system's refusals to write into one-line errors.

    Raises:
        ResourceError: the disk is full.
        DataError: it may not be written there.
    """
    try:
        yield
    except GainragError:
        raise
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else None
        # Libraries that write through C or Rust, such as safetensors, have errors of their own and quote the system's.
        if number in _FULL or os.strerror(errno.ENOSPC) in str(error):
            raise ResourceError(
                "the disk is full; earlier output is as it was",
                where=str(path),
                hint="free some space and run it again",
            ) from None
        if isinstance(error, OSError) and number in _REFUSED:
            raise DataError(
                f"cannot be written ({error.strerror})", where=str(path), hint="choose another output path"
            ) from None
        raise


def write_json(path: str | Path, value: Mapping[str, Any], *, of: str | Path | None = None) -> None:
    """Write one JSON object, indented and with a final newline; whole or not at all. `of` as in `open_output`."""
    with open_output(path, of=of) as stream:
        stream.write(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")


def read_json(path: str | Path) -> dict[str, Any]:
    """Read one JSON object.

    Raises:
        DataError: it is missing, or no JSON object.
    """
    found: dict[str, Any] = decoding.decode(
        read_whole(path), str(path), kind=dict[str, Any], hint="it should hold one JSON object; make it again"
    )
    return found


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
