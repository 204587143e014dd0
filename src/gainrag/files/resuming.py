"""Long stages that may be stopped at any moment, by kill -9 too, and go on where they were.

A stage works through its input in fixed chunks; what a chunk gave is appended to `NAME.part` in one write and forced to
the disk. Started again, it keeps whole chunks, cuts off what a kill left half-written, and goes on with the next
chunk. Chunks are fixed by the input and the kind of device alone, so the final file is that of a run never stopped: a
model in bfloat16 may answer a little differently in other company, and here the company is always the same.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from gainrag.errors import StaleError
from gainrag.files.meta import as_json, same_settings
from gainrag.files.progress import progress_bar
from gainrag.files.streams import disk_errors, open_output, read, read_json, write_json
from gainrag.records import Record, encode

T = TypeVar("T")
R = TypeVar("R", bound=Record)


def chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Consecutive slices of at most `size` items."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def chunk_for(lm: object, sizes: Mapping[str, int]) -> int:
    """The size of a stage's chunks for a language model: by its `kind` (cpu, cuda), the CPU's for any other."""
    return sizes[getattr(lm, "kind", "cpu")]


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
        out: "-" is standard output; without a file the records are returned alone. Neither can be resumed.
        settings: what the records depend on besides the items; a `.part` begun with others is not continued.
        what: the words in front of the progress bar.
        rate: what else the bar says of the speed, asked after each chunk.

    Raises:
        StaleError: `NAME.part` was begun with other settings.
        ResourceError: the disk is full; what is written so far stays, and running again goes on from there.
    """
    if out is None:
        return [record for part in chunks(items, chunk) for record in make(part)]
    if str(out) == "-":
        with open_output(out) as stream, progress_bar(what, unit="questions", total=len(items)) as bar:
            records: list[R] = []
            for part in chunks(items, chunk):
                made = make(part)
                stream.write(b"".join(map(encode, made)))
                stream.flush()
                records += made
                bar.update(len(part))
            return records

    out = Path(out)
    partial, begun = out.with_name(out.name + ".part"), out.with_name(out.name + ".part.meta.json")
    with disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        if partial.exists() and begun.exists():
            if not same_settings(was := read_json(begun), as_json(settings)):
                raise StaleError(
                    f"begun with other settings ({_difference(was, settings)})",
                    where=str(partial),
                    hint="remove it to start over, or write to another file",
                )
        else:
            partial.unlink(missing_ok=True)
            write_json(begun, settings)
        done = _keep_whole_chunks(partial, chunk, len(items))
        with open(partial, "ab") as raw, progress_bar(what, unit="questions", total=len(items), done=done) as bar:
            for part in chunks(items[done:], chunk):
                raw.write(b"".join(map(encode, make(part))))
                raw.flush()
                os.fsync(raw.fileno())
                if rate:
                    bar.set_postfix_str(rate(), refresh=False)
                bar.update(len(part))
        records = list(read(partial, kind))
        if out.name.endswith(".gz"):
            with open_output(out) as stream, open(partial, "rb") as source:
                shutil.copyfileobj(source, stream)
            partial.unlink()
        else:
            os.replace(partial, out)
        begun.unlink()
    return records


def _keep_whole_chunks(partial: Path, chunk: int, total: int) -> int:
    """Cut the file to whole chunks of whole lines; how many records are left."""
    if not partial.exists():
        return 0
    with open(partial, "rb+") as stream:
        ends = [0]
        for line in stream:
            if line.endswith(b"\n"):
                ends.append(ends[-1] + len(line))
        lines = len(ends) - 1
        done = total if lines >= total else lines - lines % chunk
        stream.truncate(ends[done])
    return done


def _difference(was: dict[str, Any], now: dict[str, Any]) -> str:
    """The settings in which two runs differ, in a few words."""
    keys = sorted(key for key in was.keys() | now.keys() if was.get(key) != now.get(key))
    return ", ".join(f"{key} was {_short(was.get(key))}, is {_short(now.get(key))}" for key in keys)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:18] + "..." + text[-18:]
