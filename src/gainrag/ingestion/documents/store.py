"""What is known of the files read so far, and their passages: an SQLite file beside the corpus.

It is what makes a second run short. It may be removed: the next run reads all files again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from gainrag.errors import DataError, ResourceError
from gainrag.ingestion.documents.duplicates import BANDS
from gainrag.records import Passage, encode, from_builtins

NAME = "documents.sqlite"
# Files between two commits: what a kill costs at most.
_COMMIT = 200

_SCHEMA = """
CREATE TABLE IF NOT EXISTS made (settings TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS files (
    path TEXT PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, sha256 TEXT NOT NULL,
    reason TEXT, note TEXT, counts TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS passages (
    path TEXT NOT NULL, place INTEGER NOT NULL, line BLOB NOT NULL, bands BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS in_order ON passages (path, place);
"""


class File(NamedTuple):
    """A file as it was read.

    Args:
        path: below the folder, with slashes.
        reason: why it gave no passages; None where it did.
        note: what is to be said of how it was read.
        counts: what was cut in it, by kind, as JSON.
    """

    path: str
    size: int
    mtime_ns: int
    sha256: str
    reason: str | None = None
    note: str | None = None
    counts: str = "{}"


class Store:
    """The files and passages of a corpus. Make it with `open_store`."""

    def __init__(self, base: sqlite3.Connection) -> None:
        self._base = base
        self._since = 0

    def begin(self, settings: str) -> bool:
        """Keep what was made with these settings, and nothing else; whether anything was thrown away."""
        found = self._base.execute("SELECT settings FROM made").fetchone()
        other = found is not None and found[0] != settings
        if other:
            self._base.executescript("DELETE FROM files; DELETE FROM passages; DELETE FROM made;")
        if found is None or other:
            self._base.execute("INSERT INTO made VALUES (?)", (settings,))
        self._base.commit()
        return other

    def files(self) -> dict[str, File]:
        """The files by path."""
        return {row[0]: File(*row) for row in self._base.execute("SELECT * FROM files ORDER BY path")}

    def put(self, file: File, passages: Sequence[tuple[Passage, bytes]]) -> None:
        """A file and its passages with their bands, in place of what was there of it."""
        self._remove(file.path)
        self._base.execute("INSERT INTO files VALUES (?, ?, ?, ?, ?, ?, ?)", file)
        rows = ((file.path, place, encode(passage), bands) for place, (passage, bands) in enumerate(passages))
        self._base.executemany("INSERT INTO passages VALUES (?, ?, ?, ?)", rows)
        self._changed()

    def touch(self, file: File) -> None:
        """Other size and time of a file that is the same."""
        values = (file.size, file.mtime_ns, file.path)
        self._base.execute("UPDATE files SET size = ?, mtime_ns = ? WHERE path = ?", values)
        self._changed()

    def remove(self, path: str) -> None:
        """Forget a file."""
        self._remove(path)
        self._changed()

    def commit(self) -> None:
        """Put what was done on the disk."""
        self._base.commit()
        self._since = 0

    def lines(self) -> Iterator[bytes]:
        """Every passage as a line of JSON, by path and place."""
        for (line,) in self._base.execute("SELECT line FROM passages ORDER BY path, place"):
            yield line

    def signatures(self) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
        """(bands [passage, 8], the row numbers of `text`), by path and place."""
        (number,) = self._base.execute("SELECT COUNT(*) FROM passages").fetchone()
        found = np.zeros((number, BANDS), dtype=np.uint64)
        rows = np.zeros(number, dtype=np.int64)
        query = "SELECT rowid, bands FROM passages ORDER BY path, place"
        for at, (row, bands) in enumerate(self._base.execute(query)):
            rows[at], found[at] = row, np.frombuffer(bands, dtype=np.uint64)
        return found, rows

    def text(self, row: int) -> str:
        """The text of a passage."""
        (line,) = self._base.execute("SELECT line FROM passages WHERE rowid = ?", (row,)).fetchone()
        return from_builtins(Passage, msgspec.json.decode(line)).text

    def _remove(self, path: str) -> None:
        self._base.execute("DELETE FROM passages WHERE path = ?", (path,))
        self._base.execute("DELETE FROM files WHERE path = ?", (path,))

    def _changed(self) -> None:
        self._since += 1
        if self._since >= _COMMIT:
            self.commit()


@contextmanager
def open_store(folder: Path) -> Iterator[Store]:
    """The store of a folder, made when missing. What was put is kept, whatever ends the block.

    Raises:
        DataError: the file is damaged or no store.
        ResourceError: the disk is full.
    """
    file = folder / NAME
    base = sqlite3.connect(file)
    try:
        # A kill loses the last commit at most; the file stays whole.
        base.execute("PRAGMA journal_mode = WAL")
        base.execute("PRAGMA synchronous = NORMAL")
        base.executescript(_SCHEMA)
        store = Store(base)
        try:
            yield store
        finally:
            store.commit()
    except sqlite3.Error as error:
        if "full" in str(error):
            raise ResourceError("the disk is full", where=str(file), hint="free some space and run it again") from None
        hint = "remove it: the next run reads all files again"
        raise DataError(f"the store is damaged ({error})", where=str(file), hint=hint) from None
    finally:
        base.close()
