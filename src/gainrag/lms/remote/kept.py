"""Answers of an engine on disk: one that was paid for is never asked for again, also after kill -9.

The file is only ever appended to, a line an answer: {"key": .., "value": ..}. A line is written by one call to the
system, so a process that is killed loses at most the answer that it is writing. Such a half line is left out when the
file is read, and what it would have held is asked for again. In memory are the places of the lines alone.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import msgspec

from gainrag.errors import DataError
from gainrag.files.streams import disk_errors


class _Line(msgspec.Struct):
    key: str
    value: msgspec.Raw


class Kept:
    """Answers by their keys, in a file or, without one, in memory while the process lasts.

    Args:
        path: the file; it is made with the first answer.

    Raises:
        DataError: it cannot be read.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = None if path is None else Path(path)
        self._places: dict[str, tuple[int, int]] = {}  # where an answer's line begins, and its bytes
        self._values: dict[str, bytes] = {}  # without a file
        self._file: int | None = None
        self._lock = threading.Lock()
        if self.path is not None and self.path.exists():
            self._index(self.path)

    def __len__(self) -> int:
        return len(self._places) + len(self._values)

    def __contains__(self, key: str) -> bool:
        return key in self._places or key in self._values

    def _index(self, path: Path) -> None:
        try:
            with open(path, "rb") as stream:
                start = 0
                for line in stream:
                    if (key := _key(line)) is not None:
                        self._places[key] = start, len(line)
                    start += len(line)
        except OSError as error:
            hint = "remove it, or choose another output"
            raise DataError(f"cannot be read ({error.strerror})", where=str(path), hint=hint) from None

    def get(self, key: str) -> Any:
        """The answer of a key, which must be there."""
        if self.path is None:
            return msgspec.json.decode(self._values[key])
        start, size = self._places[key]
        with self._lock, disk_errors(self.path):
            line = os.pread(self._open(), size, start)
        return msgspec.json.decode(msgspec.json.decode(line, type=_Line).value)

    def put(self, key: str, value: Any) -> None:
        """Keep an answer.

        Raises:
            ResourceError: the disk is full.
            DataError: it cannot be written there.
        """
        if self.path is None:
            self._values[key] = msgspec.json.encode(value)
            return
        line = msgspec.json.encode({"key": key, "value": value}) + b"\n"
        with self._lock, disk_errors(self.path):
            file = self._open()
            left = memoryview(line)
            while left:
                left = left[os.write(file, left) :]
            # Another process may append, too: where this line begins is known from where it ends.
            self._places[key] = os.lseek(file, 0, os.SEEK_CUR) - len(line), len(line)

    def sync(self) -> None:
        """Wait until the disk has what was kept: a kill takes nothing back that was written, a power cut might."""
        if self.path is not None and self._file is not None:
            with disk_errors(self.path):
                os.fsync(self._file)

    def close(self) -> None:
        """Close the file; it is opened again when it is needed."""
        with self._lock:
            if self._file is not None:
                os.close(self._file)
                self._file = None

    def _open(self) -> int:
        if self._file is None:
            assert self.path is not None
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
            size = os.fstat(self._file).st_size
            if size and os.pread(self._file, 1, size - 1) != b"\n":
                os.write(self._file, b"\n")  # behind a half line
        return self._file


def _key(line: bytes) -> str | None:
    """The key of a whole line; None of a half one."""
    if not line.endswith(b"\n"):
        return None
    try:
        return msgspec.json.decode(line, type=_Line).key
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
