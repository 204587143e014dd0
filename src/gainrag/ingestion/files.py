"""Official files -> entries. A file is held as bytes and decoded a record at a time: half a gigabyte needs little more.

Every error names the file, the record (counted from 1; the line in a file of JSON lines) and the field.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from gainrag.errors import DataError
from gainrag.files.decoding import decode
from gainrag.files.streams import read_values, read_whole
from gainrag.ingestion.releases import Release


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
        yield where, decode(raw, where, kind=release.entry, hint=format_of(release))
    if empty:
        raise DataError("the file is empty", where=str(path), hint=f"it should hold {release.name}'s questions")


def _undecoded(release: Release, path: str | Path) -> Iterator[tuple[str, bytes | msgspec.Raw]]:
    """(where, entry as it stands); lines are streamed."""
    if release.key is None:
        for where, _, raw in read_values(path):
            yield where, raw
        return
    data = read_whole(path)
    if not data.strip():
        return
    whole = decode(data, str(path), kind=dict[str, msgspec.Raw], hint=format_of(release))
    if release.key not in whole:
        raise DataError(f"the object has no {release.key!r}", where=str(path), hint=format_of(release))
    found = decode(whole[release.key], str(path), kind=list[msgspec.Raw], hint=format_of(release))
    for position, raw in enumerate(found, 1):
        yield f"{path}: record {position}", raw


def format_of(release: Release) -> str:
    """What a file of a release looks like, as a hint."""
    return f"the format is that of {', '.join(release.files.values())}"
