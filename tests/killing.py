"""Processes that die between two file operations, as by kill -9."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

KILLED = 9
_CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "fcntl.flock"}


def run_and_kill(work: Callable[[], object], folder: Path, at: int) -> bool:
    """Run work in a process of its own that dies before its file operation number `at`, from 0; whether it did.

    An operation is whatever changes something below the folder: open for writing, rename, remove, mkdir, rmdir, flock,
    fsync. Nothing is cleaned up: the process ends at once.
    """
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        assert os.WIFEXITED(status), "it hung"
        assert os.WEXITSTATUS(status) in (0, KILLED), "it failed, see above"
        return os.WEXITSTATUS(status) == KILLED
    signal.alarm(60)
    count = 0

    def operation() -> None:
        nonlocal count
        if count == at:
            os._exit(KILLED)
        count += 1

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if (writes and str(arguments[0]).startswith(str(folder))) or event in _CHANGES:
            operation()

    try:
        # Nothing is lost of what the system was given: to wait for the disk would only take time.
        os.fsync = lambda fd: operation()
        sys.addaudithook(watch)
        work()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
