"""Folders that appear whole or not at all, as `records.open_output` does for a file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gainrag.files.streams import disk_errors


@contextmanager
def open_output_folder(path: str | Path) -> Iterator[Path]:
    """A folder to write in that becomes `path` when all went well: made beside it first, then renamed over it.

    Whether what is at `path` may be replaced is for the caller to say. It stays until the new folder is complete, and
    is put back when the process cannot go through with it; what killed processes left beside it is swept up.

    Raises:
        ResourceError: the disk is full; what was at `path` before is still there.
        DataError: it cannot be written there.
    """
    out = Path(path)
    with disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(out)
        folder = out.with_name(f".{out.name}.{os.getpid()}.tmp")
        replaced = out.with_name(f".{out.name}.{os.getpid()}.old")
        folder.mkdir()
        try:
            yield folder
            if out.exists():
                os.replace(out, replaced)
            os.replace(folder, out)
        finally:
            if replaced.exists() and not out.exists():
                os.replace(replaced, out)
            shutil.rmtree(folder, ignore_errors=True)
            shutil.rmtree(replaced, ignore_errors=True)


def _remove_leftovers(out: Path) -> None:
    """Sweep up after processes that were killed; the folders of those still alive are left alone."""
    for folder in out.parent.glob(f".{out.name}.*"):
        pid, _, kind = folder.name.removeprefix(f".{out.name}.").partition(".")
        if kind not in ("tmp", "old") or not pid.isdecimal() or _alive(int(pid)):
            continue
        if kind == "old" and not out.exists():  # killed between the two renames
            os.replace(folder, out)
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
