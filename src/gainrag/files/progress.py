"""The one progress bar: on standard error, with rate and time left; a line now and then where there is no terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from tqdm import tqdm

T = TypeVar("T")

# Seconds between updates: a terminal's line is redrawn, a log file's lines stay.
_ON_TERMINAL, _IN_LOG = 0.2, 30.0


class _Lines:
    """What a bar is written to where there is no terminal: each time it is redrawn is a line, without a \\r or other
    control characters."""

    def __init__(self) -> None:
        self._last = ""

    def write(self, text: str) -> None:
        line = text.strip()
        # What only moves the cursor says nothing, nor does the end of a bar that was full already.
        if line and line.isprintable() and line != self._last:
            sys.stderr.write(line + "\n")
            self._last = line

    def flush(self) -> None:
        sys.stderr.flush()


def _bar(iterable: Iterable[Any] | None, total: int | None, what: str, unit: str, done: int = 0) -> tqdm[Any]:
    from tqdm import tqdm

    common = {"total": total, "desc": what, "unit": f" {unit}", "initial": done, "delay": 1.0}
    if sys.stderr.isatty():
        return tqdm(iterable, file=sys.stderr, mininterval=_ON_TERMINAL, dynamic_ncols=True, **common)
    # Without columns there are figures and no bar; a thread of tqdm's would redraw every 10 s.
    return tqdm(iterable, file=_Lines(), mininterval=_IN_LOG, maxinterval=_IN_LOG, ncols=0, **common)


def say(line: str) -> None:
    """One line to a person, on standard error."""
    print(line, file=sys.stderr, flush=True)


def progress(items: Iterable[T], what: str, *, unit: str, total: int | None = None) -> Iterator[T]:
    """Pass items on, and show how many went by, how fast, and how long it will take.

    Args:
        what: what is being done, as shown in front of the bar.
        unit: what an item is, in the plural.
        total: how many there will be, where `len(items)` cannot tell.
    """
    yield from _bar(items, total, what, unit)


@contextmanager
def progress_bar(what: str, *, unit: str, total: int | None = None, done: int = 0) -> Iterator[tqdm[Any]]:
    """A bar to advance by hand with `.update(n)`; `done` items were finished by an earlier run."""
    with _bar(None, total, what, unit, done) as bar:
        yield bar
