"""Folders that appear whole or not at all, as `streams.open_output` does for a file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gainrag.files.locks import lock
from gainrag.files.places import beside, invalidate, target
from gainrag.files.streams import disk_errors


@contextmanager
def open_output_folder(path: str | Path) -> Iterator[Path]:
    """A folder to write in that becomes `path` when all went well: made beside it first, then renamed over it.

    Whether what is at `path` may be replaced is for the caller to say. It stays until the new folder is complete, and
    is put back when the process cannot go through with it.

    Raises:
        ResourceError: the disk is full; what was at `path` before is still there.
        DataError: it cannot be written there, or another process is writing it.
    """
    out = target(path)
    folder, replaced = beside(out, "tmp"), beside(out, "old")
    with disk_errors(out), lock(out):
        _tidy(out, folder, replaced)  # after a process that was killed
        folder.mkdir()
        try:
            yield folder
            _to_disk(folder)
            invalidate(path)
            if out.exists():
                os.replace(out, replaced)
            os.replace(folder, out)
        finally:
            _tidy(out, folder, replaced)


def _tidy(out: Path, folder: Path, replaced: Path) -> None:
    if replaced.exists() and not out.exists():  # stopped between the two renames
        os.replace(replaced, out)
    for leftover in (folder, replaced):
        shutil.rmtree(leftover, ignore_errors=True)


def _to_disk(folder: Path) -> None:
    """Wait until the disk has every file: libraries write them and do not."""
    for path in folder.rglob("*"):
        if path.is_file():
            with open(path, "rb") as stream:
                os.fsync(stream.fileno())
