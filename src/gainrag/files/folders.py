"""Folders that appear whole or not at all, as `streams.open_output` does for a file.

    .NAME.tmp     what is made so far; swept away when the process ends, or by the next one
    NAME.part     the same where it takes hours: it stays, and the next process continues it, see `continue_folder`
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from gainrag.errors import StaleError
from gainrag.files.locks import lock
from gainrag.files.meta import as_json
from gainrag.files.places import beside, check_replaceable, invalidate, target
from gainrag.files.streams import disk_errors, read_json, write_json

BEGUN_FILE = "begun.json"
_NOTHING: Mapping[str, Any] = MappingProxyType({})


class Begun:
    """How far a folder is that is being made: what is `done`, by names of the caller's.

    Args:
        folder: what is made so far.
        settings: what it was begun with; None where nothing is kept.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any] | None = None, done: Mapping[str, Any] = _NOTHING):
        self.folder, self._settings, self.done = folder, settings, dict(done)

    @property
    def kept(self) -> bool:
        """Whether the next process continues it."""
        return self._settings is not None

    def note(self, **done: Any) -> None:
        """Record what is done, once the disk has the files. A folder that is not kept records nothing."""
        self.done |= done
        if self.kept:
            _to_disk(self.folder)
            write_json(self.folder / BEGUN_FILE, {"settings": self._settings, "done": self.done})


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
            _finish(path, out, folder, replaced)
        finally:
            _tidy(out, folder, replaced)


@contextmanager
def continue_folder(path: str | Path, settings: Mapping[str, Any]) -> Iterator[Begun]:
    """As `open_output_folder`, for what takes hours: what is made is kept in `NAME.part` whatever happens, and
    continued by the next process with the same settings.

    Args:
        settings: everything that what is made depends on.

    Raises:
        StaleError: it was begun with other settings.
        ResourceError: the disk is full; what was at `path` before is still there.
        DataError: it cannot be written there, or another process is writing it.
    """
    out = target(path)
    folder, replaced = out.with_name(f"{out.name}.part"), beside(out, "old")
    with disk_errors(out), lock(out):
        _tidy(out, replaced)
        check_replaceable(folder, BEGUN_FILE, "folder that was begun")
        folder.mkdir(exist_ok=True)
        wanted, done = as_json(settings), {}
        if (folder / BEGUN_FILE).exists():
            found = read_json(folder / BEGUN_FILE)
            done = dict(found.get("done") or {})
            differ = [key for key, value in wanted.items() if (found.get("settings") or {}).get(key) != value]
            if done and differ:  # where nothing was finished, nothing is lost
                what = f"was begun with another {' and '.join(differ)}"
                hint = "remove it to start over, or write to another folder"
                raise StaleError(what, where=str(folder), hint=hint)
        begun = Begun(folder, wanted, done)
        begun.note()
        try:
            yield begun
            _finish(path, out, folder, replaced)
            # Last of all: a folder that does not say how far it is would be begun anew.
            (out / BEGUN_FILE).unlink()
        finally:
            _tidy(out, replaced)


def _finish(path: str | Path, out: Path, folder: Path, replaced: Path) -> None:
    """A folder that is complete becomes the output."""
    _to_disk(folder)
    invalidate(path)
    if out.exists():
        os.replace(out, replaced)
    os.replace(folder, out)


def _tidy(out: Path, *leftovers: Path) -> None:
    """Sweep up leftovers; the last is what was at the output before."""
    if leftovers[-1].exists() and not out.exists():  # stopped between the two renames
        os.replace(leftovers[-1], out)
    for leftover in leftovers:
        shutil.rmtree(leftover, ignore_errors=True)


def _to_disk(folder: Path) -> None:
    """Wait until the disk has every file: libraries write them and do not."""
    for path in folder.rglob("*"):
        if path.is_file():
            with open(path, "rb") as stream:
                os.fsync(stream.fileno())
