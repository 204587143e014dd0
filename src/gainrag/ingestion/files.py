"""Official files -> entries. A file is held as bytes and decoded an entry at a time: half a gigabyte needs little more.

Every error names the file, the entry (counted from 1; the line in a file of JSON lines) and the field.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from gainrag.errors import DataError
from gainrag.files.streams import read_lines
from gainrag.ingestion.releases import Release

T = TypeVar("T")


def find(release: Release, folder: str | Path, split: str) -> Path:
    """The official file of a split in a folder, plain or .gz.

    Raises:
        DataError: it is not there, or both are.
    """
    name = release.files[split]
    there = [path for path in (Path(folder) / name, Path(folder) / f"{name}.gz") if path.is_file()]
    if len(there) == 1:
        return there[0]
    what = f"both {name} and {name}.gz are here" if there else f"no {name} (or .gz) here"
    hint = "remove one of them" if there else f"get it from {release.origin}, or name another file as the source"
    raise DataError(what, where=str(folder), hint=hint)


def entries(release: Release, path: str | Path) -> Iterator[tuple[str, Any]]:
    """(where, entry) of a file, as the release's entry type: a JSON array, an object that holds it, or JSON lines.

    Raises:
        DataError: the file is missing, no JSON, of another format, or empty.
    """
    empty = True
    for where, raw in _undecoded(release, path):
        empty = False
        yield where, fitting(release, where, partial(msgspec.json.decode, raw, type=release.entry))
    if empty:
        raise DataError("the file is empty", where=str(path), hint=f"it should hold {release.name}'s questions")


def fitting(release: Release, where: str, make: Callable[[], T]) -> T:
    """What `make` decodes, or one line on why it does not fit the release's format.

    Raises:
        DataError: a field is missing or of another type, or it is no JSON.
    """
    try:
        return make()
    except msgspec.ValidationError as error:
        raise DataError(str(error), where=where, hint=_format_of(release)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataError(f"no JSON: {error}", where=where, hint="get the file again") from None


def _undecoded(release: Release, path: str | Path) -> Iterator[tuple[str, bytes | msgspec.Raw]]:
    """(where, entry as it stands); lines are streamed."""
    lines = read_lines(path)
    number, first = next(lines, (0, b""))
    if first.lstrip().startswith(b"{") and release.key is None:
        for at, line in chain([(number, first)], lines):
            yield f"{path}:{at}", line
        return
    if not first:
        return
    data: bytes | msgspec.Raw = first + b"".join(line for _, line in lines)
    if release.key is not None:
        whole = fitting(release, str(path), partial(msgspec.json.decode, data, type=dict[str, msgspec.Raw]))
        if release.key not in whole:
            raise DataError(f"the object has no {release.key!r}", where=str(path), hint=_format_of(release))
        data = whole[release.key]
    found = fitting(release, str(path), partial(msgspec.json.decode, data, type=list[msgspec.Raw]))
    for position, raw in enumerate(found, 1):
        yield f"{path}: entry {position}", raw


def _format_of(release: Release) -> str:
    return f"the format is that of {', '.join(release.files.values())}"
