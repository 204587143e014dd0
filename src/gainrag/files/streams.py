"""Files as streams: records and JSON objects, read and written whole or not at all.

Files may be plain or .gz, and `-` is standard input or output. A line that does not fit its record is an error that
names file, line and field.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import os
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

import msgspec

from gainrag.errors import DataError, ResourceError
from gainrag.records import Record, encode, from_builtins

R = TypeVar("R", bound=Record)


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
        except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
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
