"""Whose an output is: the process that holds its lock may write it, and sweep up what killed ones left beside it.

The lock is the operating system's (flock) on a hidden file `.NAME.lock` beside the output, so that it ends with the
process, however that ends, and holds between machines that share a disk.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from gainrag.errors import DataError
from gainrag.files.places import beside, is_stream, target


@contextmanager
def lock(path: str | Path) -> Iterator[None]:
    """Hold an output alone, or fail at once. Who holds it may take it again in the same thread; a stream has no lock.

    Folders on the way to it are made, and removed again where nothing came to lie in them.

    Raises:
        DataError: another process, or another thread, is writing it; or nothing can be written there.
    """
    if is_stream(path):
        yield
        return
    out = target(path)
    made: list[Path] = []
    try:
        made += (folder for folder in out.parents if not folder.exists())
        out.parent.mkdir(parents=True, exist_ok=True)
        held = FileLock(beside(out, "lock"), timeout=0, is_singleton=True)
        held.acquire()
    except Timeout:
        raise DataError(
            "another process is writing it", where=str(path), hint="wait until it ends, or choose another output path"
        ) from None
    except OSError as error:
        _remove_empty(made)
        raise DataError(
            f"cannot be written ({error.strerror})", where=str(path), hint="choose another output path"
        ) from None
    try:
        yield
    finally:
        if held.lock_counter == 1:
            # Still held: who opened the file in the meantime finds that it has no name any more, and tries again.
            with suppress(OSError):
                os.unlink(held.lock_file)
        held.release()
        _remove_empty(made)


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()
