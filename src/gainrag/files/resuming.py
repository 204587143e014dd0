"""Long stages that may be stopped at any moment, by kill -9 too, and continue where they were.

    NAME.part             the records made so far, whole chunks of them
    NAME.part.meta.json   the settings they were begun with, and the size of the chunks
    NAME                  once all are made: NAME.part, renamed

A stage works through its input in fixed chunks; what a chunk gave is appended to `NAME.part` in one write and forced to
the disk. Started again, it keeps whole chunks, cuts off what a kill left half-written, and continues with the next
chunk. The device chooses the chunk size when the file is begun. A run that continues the file keeps that size, on
another device too. So each question is answered in the same batch as in a run never stopped, and the final file is the
same: in bfloat16 a model's output may depend a little on what else is in the batch.

A file is continued only with the settings it was begun with, and when its records are those of the input's first ones.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from gainrag.errors import DataError, StaleError
from gainrag.files.locks import lock
from gainrag.files.meta import as_json, meta_path, same_settings
from gainrag.files.places import is_stream, replace, target
from gainrag.files.progress import progress_bar
from gainrag.files.streams import disk_errors, open_output, read, read_json, write_json
from gainrag.records import Question, encode, from_builtins

X = TypeVar("X")
T = TypeVar("T", bound=Question)
R = TypeVar("R", bound=Question)

_CHUNK = "chunk"
_START_OVER = "remove it to start over, or write to another file"


def chunks(items: Sequence[X], size: int) -> Iterator[Sequence[X]]:
    """Consecutive slices of at most `size` items."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def write_resumable(
    out: str | Path | None,
    items: Sequence[T],
    make: Callable[[Sequence[T]], Sequence[R]],
    *,
    kind: type[R],
    chunk: int,
    settings: dict[str, Any],
    what: str,
    rate: Callable[[], str] | None = None,
) -> list[R]:
    """Write `make(chunk)` for every chunk of items to `out`, one record an item, and return all records.

    Args:
        out: without a file the records are returned alone. That cannot be resumed, nor can standard output or a pipe.
        make: gives a record for each item, with the item's id, in their order.
        chunk: items a chunk, where the file is begun now.
        settings: what the records depend on besides the items; a `.part` begun with others is not continued.
        what: the words in front of the progress bar.
        rate: what else the bar says of the speed, asked after each chunk.

    Raises:
        StaleError: `NAME.part` was begun with other settings or another input.
        DataError: there are no items, `NAME.part` is damaged, or another process is writing the file.
        ResourceError: the disk is full; what is written so far stays, and running again continues from there.
    """
    if out is None:
        return [record for part in chunks(items, chunk) for record in make(part)]
    if is_stream(out):
        with open_output(out) as stream, progress_bar(what, unit="questions", total=len(items)) as bar:
            records: list[R] = []
            for part in chunks(items, chunk):
                made = make(part)
                stream.write(b"".join(map(encode, made)))
                stream.flush()
                records += made
                bar.update(len(part))
            return records
    if not items:
        raise DataError("the input has no questions", where=str(out), hint="check the input")
    with disk_errors(out), lock(out):
        partial, begun = _beside(out)
        chunk = _begin(out, settings, chunk)
        done = _keep_whole_chunks(partial, kind, items, chunk)
        with open(partial, "ab") as raw, progress_bar(what, unit="questions", total=len(items), done=done) as bar:
            for part in chunks(items[done:], chunk):
                raw.write(b"".join(map(encode, make(part))))
                raw.flush()
                os.fsync(raw.fileno())
                if rate:
                    bar.set_postfix_str(rate(), refresh=False)
                bar.update(len(part))
        records = list(read(partial, kind))
        if str(out).endswith(".gz"):
            with open_output(out) as stream, open(partial, "rb") as source:
                shutil.copyfileobj(source, stream)
            partial.unlink()
        else:
            replace(partial, out)
        begun.unlink()
    return records


def forget(out: str | Path) -> bool:
    """Remove what an earlier process made of an output and did not finish; whether there was any."""
    with lock(out):
        there = [path for path in _beside(out) if path.exists()]
        for path in there:
            path.unlink()
    return bool(there)


def chunk_begun(out: str | Path, chunk: int) -> int:
    """The size of chunks in which an output is made: that of a run that was begun, which stays, or else this one."""
    if is_stream(out):
        return chunk
    partial, begun = _beside(out)
    recorded = read_json(begun).get(_CHUNK, chunk) if partial.exists() and begun.exists() else chunk
    return recorded if type(recorded) is int and recorded > 0 else chunk


def _beside(out: str | Path) -> tuple[Path, Path]:
    """Where the records made so far are, and what they were begun with."""
    partial = target(out).with_name(target(out).name + ".part")
    return partial, meta_path(partial)


def _begin(out: str | Path, settings: Mapping[str, Any], chunk: int) -> int:
    """Begin a file, or see whether it may be continued; the size of its chunks."""
    partial, begun = _beside(out)
    if not (partial.exists() and begun.exists()):
        # Of records alone nobody knows what they were made with.
        partial.unlink(missing_ok=True)
        write_json(begun, {**settings, _CHUNK: chunk}, of=out)
        return chunk
    was, now = read_json(begun), as_json(settings)
    # Files begun before it was written down are continued in the chunks of today.
    chunk = was.pop(_CHUNK, chunk)
    if not same_settings(was, now):
        raise StaleError(
            f"begun with other settings ({difference(was, now)})",
            where=str(partial),
            hint="use those settings again, or " + _START_OVER,
        )
    if type(chunk) is not int or chunk < 1:
        raise DataError(f"{_CHUNK} is {chunk!r}", where=str(begun), hint=_START_OVER)
    return chunk


def _keep_whole_chunks(partial: Path, kind: type[R], items: Sequence[T], chunk: int) -> int:
    """Cut the file to whole chunks of the items' records; how many records are left."""
    if not partial.exists():
        return 0
    with open(partial, "rb+") as stream:
        ends = [0]
        for line in stream:
            if not line.endswith(b"\n"):
                break  # a kill left it half-written
            _check_record(line, kind, items, len(ends), partial)
            ends.append(ends[-1] + len(line))
        lines = len(ends) - 1
        done = lines if lines == len(items) else lines - lines % chunk
        stream.truncate(ends[done])
    return done


def _check_record(line: bytes, kind: type[Question], items: Sequence[Question], number: int, partial: Path) -> None:
    """Whether a line is the record of the input's record of the same number, from 1."""
    where = f"{partial}:{number}"
    try:
        found = from_builtins(kind, msgspec.json.decode(line)).id
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataError(f"is no {kind.__name__} record: {error}", where=where, hint=_START_OVER) from None
    wanted = items[number - 1].id if number <= len(items) else None
    if found != wanted:
        its = "has no more" if wanted is None else f"has {_short(wanted)} there"
        raise StaleError(
            f"begun with another input: this is question {_short(found)}, the input {its}",
            where=where,
            hint=_START_OVER,
        )


def difference(was: dict[str, Any], now: dict[str, Any]) -> str:
    """The settings in which two runs differ, in a few words."""
    was, now = _flat(was), _flat(now)
    keys = sorted(key for key in was.keys() | now.keys() if was.get(key) != now.get(key))
    return ", ".join(f"{key} was {_short(was.get(key))}, is {_short(now.get(key))}" for key in keys)


def _flat(settings: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Settings within settings by dotted names: settings.llm.dtype."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found |= _flat(value, f"{above}{key}.") if isinstance(value, dict) else {above + key: value}
    return found


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:18] + "..." + text[-18:]
