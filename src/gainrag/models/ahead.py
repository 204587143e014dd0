"""What the next step needs is made in a thread while this one is under way."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

_END = object()


@contextmanager
def ahead(items: Iterator[T], most: int) -> Iterator[Iterator[T]]:
    """The same items in their order, made in a thread: at most so many that nobody has taken yet, and one more.

    What making them raises is raised where the next one would be taken. When the block is left early, the thread ends
    behind the item that it is making.
    """
    made: queue.Queue[tuple[object, BaseException | None]] = queue.Queue(most)
    left = threading.Event()

    def make() -> None:
        error: BaseException | None = None
        try:
            for item in items:
                if not _put(item, None):
                    return
        except BaseException as raised:
            error = raised
        _put(_END, error)

    def _put(item: object, error: BaseException | None) -> bool:
        """Whether it was still wanted."""
        while not left.is_set():
            try:
                made.put((item, error), timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def take() -> Iterator[T]:
        while True:
            item, error = made.get()
            if error is not None:
                raise error
            if item is _END:
                return
            yield item  # type: ignore[misc]

    thread = threading.Thread(target=make, name="gainrag-ahead", daemon=True)
    thread.start()
    try:
        yield take()
    finally:
        left.set()
        thread.join()
